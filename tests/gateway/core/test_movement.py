"""Whether a tag moves: the newest sighting decides, in whatever order the frames of readers come."""

import pytest

from gateway.events import Position, Presence
from readers import wire
from tests.gateway.core.bed import INSIDE, Child, Pole, Shell, advertisement, events


def test_a_tag_off_the_child_is_idle() -> None:
    shell = Shell()
    done = Child(shell).stand(135, -5, 620, moving=False)
    assert [p.state for p in events(done, Presence)][-1] == "idle"
    assert not any(p.moving for p in events(done, Position))


@pytest.mark.parametrize(("spot", "state"), [((135.0, -5.0), "idle"), (INSIDE, "at")])
def test_a_tag_that_moves_ends_not_moving_with_the_next_row(spot: tuple[float, float], state: str) -> None:
    shell = Shell()
    child = Child(shell)
    before = events(child.stand(*spot, 660, moving=False), Presence)
    assert (before[-1].state, before[-1].still) == (state, True)
    bindings = shell.counts["frames_kind_2"]
    after = events(child.stand(*spot, 1, moving=True), Presence)
    assert [(p.state, p.still) for p in after] == [("moving" if state == "idle" else "at", False)]
    assert shell.counts["frames_kind_2"] == bindings, "rows alone told of it"
    positions = events(child.stand(*spot, 120, moving=True), Position)
    assert positions
    assert all(p.moving for p in positions)
    assert events(child.stand(*spot, 560, moving=False), Presence) == [], "ten minutes begin anew"
    assert events(child.stand(*spot, 60, moving=False), Presence)[-1].still


def test_a_late_row_of_another_reader_does_not_undo_a_newer_word() -> None:
    shell = Shell()
    near, far = Pole(1), Pole(2)
    for pole in (near, far):
        shell.frame(pole.bind((1, advertisement(count=100))))
        shell.wait(0.5)
    tag = shell.state.resolver.tags[shell.state.resolver.rows["tag-003"]]
    late = far.see((1, 104), moving=False)
    shell.frame(near.see((1, 106), moving=True), later_s=6.0)
    assert (tag.moving, tag.still_since_s) == (True, None)
    shell.frame(late, later_s=3.0)
    assert (tag.moving, tag.still_since_s) == (True, None), "older, though it came later"
    shell.frame(far.see((1, 110), moving=False), later_s=1.0)
    assert (tag.moving, tag.still_since_s) == (False, shell.now_s)
    since_s = shell.now_s
    shell.frame(near.see((1, 108), moving=True), later_s=0.5)
    assert (tag.moving, tag.still_since_s) == (False, since_s)
    shell.frame(near.see((1, 112), moving=True, age_ms=wire.AGE_STEP_MS * 255), later_s=1.0)
    assert not tag.moving, "nobody knows when that was heard"
    shell.frame(near.see((1, 113), moving=True), later_s=0.5)
    assert tag.moving


def test_frames_of_one_reader_in_the_wrong_order_leave_the_newest_word() -> None:
    shell = Shell()
    pole = Pole(1)
    shell.frame(pole.bind((1, advertisement(count=100))))
    shell.wait(0.5)
    first = pole.see((1, 102), moving=True)
    second = pole.see((1, 104), moving=False)
    tag = shell.state.resolver.tags[shell.state.resolver.rows["tag-003"]]
    shell.frame(second, later_s=4.0)
    shell.frame(first, later_s=0.1)
    assert not tag.moving
