"""The core as a whole: a child's morning, any bytes, any clock, a restart in the middle."""

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.core.resolve import SAME_S
from gateway.effects import Commit, Downlink, Effect
from gateway.events import (
    Arrival,
    Danger,
    Departure,
    Event,
    GatewayHealth,
    Position,
    Presence,
    ReaderHealth,
    Sos,
    is_emergency,
)
from gateway.locate.tracker import LATE_EVERY, LOOK_BACK
from gateway.uplink import Urgent, decode_urgent, encode_row, encode_urgent
from readers import wire
from tests.gateway.core.bed import KEYS, MACS, SPACING_M, UTC_S, Pole, Shell, acks, advertisement, alarms, at, events

INSIDE = (30.0, 6.0)
"""In the school, 30 m behind its edges and near a reader."""


class Child:
    """A tag on a child, heard by the two or three poles next to it, which report every 2 s as the firmware does."""

    def __init__(self, shell: Shell, tag: str = "tag-003", *, seed: int = 1) -> None:
        self.shell, self.tag, self.counter = shell, tag, 100
        self.poles = {n: Pole(n) for n in KEYS}
        self.bound: set[int] = set()
        self.rng = random.Random(seed)

    def stand(self, x_m: float, y_m: float, seconds: float, *, moving: bool = True) -> list[Effect]:
        done: list[Effect] = []
        until_s = self.shell.now_s + seconds
        while self.shell.now_s < until_s:
            self.counter += 2
            for n, pole in self.poles.items():
                distance = math.dist(((n - 1) * SPACING_M, 0, 3.5), (x_m, y_m, 1))
                rssi = round(-50 - 25 * math.log10(distance) + self.rng.gauss(0, 2))
                if rssi < -92:
                    continue
                if n in self.bound:
                    frame = pole.see((1, self.counter), rssi_dbm=rssi, moving=moving)
                else:
                    flags = wire.FLAG_MOVING if moving else 0
                    utc_s = UTC_S + self.shell.now_s - 1000.0
                    raw = advertisement(self.tag, counter=self.counter, flags=flags, power_dbm=-50, utc_s=utc_s)
                    frame = pole.bind((1, raw), rssi_dbm=rssi)
                sent = self.shell.frame(frame)
                sent += self.shell.wait(0.25)
                for rebind, sequences in acks(sent, pole):
                    if rebind:
                        self.bound.discard(n)
                    elif pole.sequence in sequences:
                        self.bound.add(n)
                done += sent
            done += self.shell.wait(2)
        return done

    def walk(self, x1: float, x2: float, y_m: float = -3.0) -> list[Effect]:
        steps = int(abs(x2 - x1) / 2.4)
        return [e for n in range(steps) for e in self.stand(x1 + (x2 - x1) * n / steps, y_m, 0.1)]


def test_a_childs_morning() -> None:
    """Along the street, into the school, silence, back past it to the river and away again."""
    shell = Shell()
    child = Child(shell)
    done = child.walk(150, 40)
    assert events(done, Arrival) == []
    positions = events(done, Position)
    assert len(positions) > 8
    assert all(p.tag == "tag-003" and p.moving for p in positions)
    done = child.stand(*INSIDE, 60)
    [arrival] = events(done, Arrival)
    assert arrival.place == "school"
    assert [p.state for p in events(done, Presence)][-1] == "at"
    resting = events(child.stand(*INSIDE, 300), Position)
    assert len(resting) <= 6
    silent = shell.wait(100)
    assert [(p.state, p.place) for p in events(silent, Presence)] == [("unseen", "school")]
    assert events(shell.wait(1000), Departure) == [], "silence is no departure"
    assert len(events(shell.wait(1), Presence)) == 0
    done = child.walk(70, 262)
    [departure] = events(done, Departure)
    assert departure.place == "school"
    [near] = events(done, Danger)
    assert (near.area, near.near) == ("river", True)
    done = child.walk(262, 120)
    [clear] = events(done, Danger)
    assert (clear.alarm, clear.near, clear.revision) == (near.alarm, False, 1)


def test_a_restart_in_the_school_is_no_second_arrival() -> None:
    shell = Shell()
    child = Child(shell)
    assert len(events(child.stand(*INSIDE, 60), Arrival)) == 1
    before = pipeline.snapshot(shell.state)
    shell.restart()
    assert pipeline.snapshot(shell.state) == before
    done = child.stand(*INSIDE, 120)
    assert events(done, Arrival) == []
    assert events(done, Departure) == []
    assert child.bound, "the rows of forgotten slots asked for their bindings"


def test_changes_count_what_a_snapshot_is_worth_for() -> None:
    shell = Shell()
    child = Child(shell)
    child.walk(150, 120)
    assert shell.state.changes == 0
    child.stand(*INSIDE, 60)
    assert shell.state.changes == 1


def test_a_dead_reader_is_not_covered() -> None:
    shell = Shell()
    done = Child(shell).stand(*INSIDE, 60)
    assert [p.state for p in events(done, Presence)][-1] == "at"
    states = [p.state for p in events(shell.wait(200), Presence)]
    assert states == ["unseen", "not_covered"]


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
        shell.frame(pole.bind((1, advertisement(counter=100))))
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
    shell.frame(pole.bind((1, advertisement(counter=100))))
    shell.wait(0.5)
    first = pole.see((1, 102), moving=True)
    second = pole.see((1, 104), moving=False)
    tag = shell.state.resolver.tags[shell.state.resolver.rows["tag-003"]]
    shell.frame(second, later_s=4.0)
    shell.frame(first, later_s=0.1)
    assert not tag.moving


def test_a_paused_tag_is_not_followed_and_its_cry_is_heard() -> None:
    shell = Shell()
    child = Child(shell)
    child.stand(*INSIDE, 60)
    pipeline.pause(shell.state, "tag-003")
    done = child.stand(*INSIDE, 30) + child.walk(40, 262)
    [told] = events(done, Presence)
    assert (told.state, told.place, told.where) == ("paused", None, None)
    assert [e for kind in (Position, Arrival, Departure, Danger) for e in events(done, kind)] == []
    [sos] = events(shell.frame(Pole(9).sos(advertisement(flags=wire.FLAG_SOS, press=1, counter=5000))), Sos)
    assert (sos.tag, sos.trust) == ("tag-003", "verified")
    assert sos.where is not None
    shell.restart()
    pipeline.resume(shell.state, "tag-003", shell.now_s)
    child.counter = 6000
    done = child.stand(*INSIDE, 120)
    assert events(done, Arrival) == [], "it may have been there all the time"
    assert [(p.state, p.place) for p in events(done, Presence)][-1] == ("at", "school")
    assert len(events(done, Position)) > 0
    with pytest.raises(KeyError):
        pipeline.pause(shell.state, "nobody")


def test_a_tag_paused_in_the_configuration_is_told_of_once_over_restarts() -> None:
    shell = Shell(paused=("tag-003", "tag-that-is-gone"))
    told = [e for _ in range(3) for e in (shell.restart(), events(shell.wait(5), Presence))[1]]
    assert [(p.tag, p.state) for p in told] == [("tag-003", "paused")]


def test_a_copied_tag_at_both_ends_of_the_street_is_told_of() -> None:
    shell = Shell()
    raw = advertisement()
    found: list[Event] = []
    for n in (1, 10):
        done = shell.frame(Pole(n).bind((1, raw), rssi_dbm=-58), later_s=1) + shell.wait(1.1)
        found += events(done, GatewayHealth)
    assert [e.what for e in found if isinstance(e, GatewayHealth)] == ["tag_in_two_places"]


def test_a_replayed_advertisement_is_not_followed_and_its_slot_not_bound() -> None:
    shell = Shell()
    old = advertisement(counter=100)
    shell.frame(Pole(2).bind((1, old)))
    shell.frame(Pole(2).bind((1, advertisement(counter=200))), later_s=100)
    far = Pole(9)
    done = shell.frame(far.bind((1, old)), later_s=SAME_S) + shell.wait(1)
    assert acks(done, far) == [], "not acknowledged, so it says it again with what it hears next"
    assert events(done, Position) == []
    done = shell.frame(far.see((1, 7))) + shell.wait(1)
    assert events(done, Position) == []
    assert shell.counts["rows_refused_slot"] == 1
    done = shell.frame(far.bind((1, advertisement(counter=301)))) + shell.wait(1)
    assert len(acks(done, far)) == 1


def test_a_slot_bound_before_the_clock_was_right_finds_its_tag_after() -> None:
    shell, pole = Shell(utc_s=UTC_S - 40 * 900), Pole(4)
    shell.frame(pole.bind((1, advertisement())))
    shell.wait(1.1)
    assert shell.counts["tags_followed"] == 0
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    shell.frame(pole.see((1, 3)), later_s=1)
    shell.wait(1.1)
    assert shell.counts["tags_followed"] == 1


def test_what_readers_hear_within_a_second_makes_one_fix() -> None:
    shell = Shell()
    shell.wait(1)
    for n in (3, 4):
        shell.frame(Pole(n).bind((1, advertisement())))
    assert "fixes" not in shell.counts, "a frame is read without waiting for any locating"
    shell.wait(0.01)
    assert shell.counts["fixes"] == 1
    fix = shell.state.locator.latest(shell.state.resolver.rows["tag-003"])
    assert fix is not None
    assert {h.reader for h in fix.evidence} == {3, 4}
    shell.frame(Pole(5).bind((1, advertisement(counter=2))), later_s=0.5)
    shell.wait(0.4)
    assert shell.counts["fixes"] == 1
    shell.wait(0.2)
    assert shell.counts["fixes"] == 2


def test_positions_are_told_of_smoothed_fixes_and_dated_when_they_were_true() -> None:
    shell = Shell()
    child = Child(shell)
    done = [(shell.now_s, effect) for _ in range(20) for effect in child.stand(135, -3, 2)]
    lived_s = shell.now_s - 1000.0
    told = [(now_s, position) for now_s, effect in done for position in events([effect], Position)]
    assert len(told) == pytest.approx(lived_s / LATE_EVERY, abs=2)
    for now_s, position in told:
        late_s = UTC_S + now_s - 1000.0 - position.observed_at.timestamp()
        assert LOOK_BACK - 1.5 < late_s < LOOK_BACK + 4.0
        assert position.where.geometry.coordinates == pytest.approx(at(135, -3), abs=3e-4)
    assert shell.counts["fixes"] == pytest.approx(lived_s, abs=3), "a fix a second, told or not"


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 10 * 365 * 86400.0, -10 * 365 * 86400.0])
def test_no_step_of_the_wall_clock_disturbs_a_timer(step_s: float) -> None:
    """Two gateways hear the same; one's clock jumps and comes back. What they do, and when, is the same."""

    def live(shell: Shell, steps: dict[int, float]) -> list[tuple[float, str]]:
        log: list[tuple[float, str]] = []
        pole, counter = Pole(4), 100

        def note(effects: list[Effect]) -> None:
            for effect in effects:
                if isinstance(effect, Downlink):
                    log.append((round(shell.now_s, 3), f"down {effect.payload.hex()}"))
                elif isinstance(effect, Commit) and not isinstance(effect.event, Position):
                    log.append((round(shell.now_s, 3), type(effect.event).__name__))

        for second in range(300):
            if second in steps:
                pipeline.set_clock(shell.state, UTC_S + second + steps[second], shell.now_s, "good")
            counter += 1
            if second == 20:
                raw = advertisement(flags=wire.FLAG_SOS, press=1, counter=counter)
                note(shell.frame(pole.sos(raw)))
            if second == 90:
                note(shell.stage("gw1-e1-1", wire.ACKNOWLEDGED))
            if second % 60 == 30:
                note(shell.frame(pole.beat(uptime_s=second)))
            if second == 2:
                note(shell.frame(pole.bind((1, advertisement(counter=counter)))))
            elif second < 200:
                note(shell.frame(pole.see((1, counter))))
            note(shell.wait(1))
        return log

    calm = live(Shell(), {})
    assert calm == live(Shell(), {50: step_s, 150: 0.0})
    assert {"Sos", "Presence", "ReaderHealth"} <= {what for _, what in calm}


def test_an_unsure_clock_says_so_and_stops_nothing() -> None:
    shell, pole = Shell(utc_s=None), Pole(4)
    [event] = events(shell.frame(pole.sos(advertisement(flags=wire.FLAG_SOS))), Sos)
    assert event.clock == "unsure"
    shell.wait(10)
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    done = shell.frame(pole.beat(), later_s=1)
    assert {e.event.clock for e in done if isinstance(e, Commit)} == {"good"}


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x94\x01", b"{}", bytes(300)])
def test_a_snapshot_that_cannot_be_read_changes_nothing(garbage: bytes) -> None:
    shell = Shell()
    before = pipeline.snapshot(shell.state)
    with pytest.raises(ValueError, match="snapshot"):
        pipeline.restore(shell.state, garbage)
    assert pipeline.snapshot(shell.state) == before


frames_ = st.one_of(
    st.binary(max_size=70),
    st.tuples(
        st.integers(0, 15), st.sampled_from(sorted(KEYS)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF),
        st.binary(max_size=wire.BODY_MAX),
    ).map(lambda f: wire.encode(f[0], f[1], f[2], f[3], f[4], MACS[f[1]])),
    st.tuples(st.integers(1, 200), st.binary(min_size=25, max_size=25)).map(
        lambda both: wire.encode(wire.SOS, 4, 1, both[0], both[1], MACS[4])
    ),
    st.tuples(st.integers(1, 200), st.binary(min_size=6, max_size=6)).map(
        lambda both: wire.encode(wire.BELL, 4, 1, both[0], both[1], MACS[4])
    ),
)  # fmt: skip


@given(
    st.lists(st.tuples(frames_, st.floats(0, 500), st.integers(0, 7)), max_size=30),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_nothing_from_the_air_and_no_clock_breaks_the_core(
    story: list[tuple[bytes, float, int]], clocks: list[float]
) -> None:
    shell = Shell()
    for payload, later_s, stage in story:
        for event in shell.carry(pipeline.on_frame(shell.state, Frame(1, None, None, payload), shell.now_s)):
            if isinstance(event, Commit):
                check(event.event)
        shell.carry(pipeline.on_tick(shell.state, shell.now_s + later_s))
        shell.now_s += later_s
        if shell.memories:
            shell.stage(next(iter(shell.memories.values())).alarm, stage)
        if clocks:
            pipeline.set_clock(shell.state, clocks.pop(), shell.now_s, "good")
    shell.restart()
    assert pipeline.next_deadline_s(shell.state) >= shell.now_s - 1


def check(event: Event) -> None:
    """Every event can be told to the city, and is read there as it was meant."""
    if is_emergency(event):
        message = Urgent(gateway="gw1", epoch="e1", seq=1, after=0, queued_at=event.observed_at, event=event)  # type: ignore[arg-type]
        assert decode_urgent(encode_urgent(message)) == message
    else:
        assert encode_row(event)  # type: ignore[arg-type]


def test_a_storm_leaves_every_table_bounded() -> None:
    """10 000 frames of strangers, of forged tags and of a reader gone mad, and one true cry in the midst of it."""
    shell, mad = Shell(), Pole(4)
    rng = random.Random(3)

    def storm() -> Iterator[Frame]:
        for n in range(10_000):
            kind = n % 4
            if kind == 0:
                yield Frame(1, None, None, rng.randbytes(66))
            elif kind == 1:
                yield mad.bind((rng.randrange(256), b"\x10" + rng.randbytes(18)))
            elif kind == 2:
                yield mad.see(*((rng.randrange(256), rng.randrange(32)) for _ in range(13)))
            else:
                yield mad.sos(b"\x10" + rng.randbytes(8) + b"\x01" + rng.randbytes(9), number=rng.randrange(256))

    for n, frame in enumerate(storm()):
        shell.frame(frame, later_s=0.001)
        if n == 5000:
            [true] = events(shell.frame(Pole(5).sos(advertisement(flags=wire.FLAG_SOS))), Sos)
            assert true.trust == "verified"
    counts = shell.counts
    assert counts["alarms"] <= 7
    assert counts["slots_bound"] <= 256
    assert counts["unknown_ids"] <= 4096
    assert len(alarms(shell.events)) <= 7
    assert counts["rebinds_asked"] <= 6
    assert len(pipeline.snapshot(shell.state)) < 1000
    assert not [e for e in shell.events if isinstance(e, ReaderHealth) and e.state == "silent"]
