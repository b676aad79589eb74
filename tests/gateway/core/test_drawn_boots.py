"""A reader whose flash keeps no boot number draws one: each is a session of its own, and its bells always ring."""

import random

import pytest

from gateway.core import frames
from gateway.core.frames import DRAWN_MAX, WINDOW, Frame, Freshness, ReaderLinks, Report
from gateway.events import Bell, Sos
from readers import wire
from tests.gateway.core.bed import KEYS, Pole, Shell, acks, advertisement, alarms, cry, events, stages, told

DRAWN = [wire.BOOT_DRAWN | n for n in (0x0007, 0x7FFF, 0x1234, 0x4001, 0x0001, 0x2222, 0x3333)]
"""In no order, as they are drawn."""


def report(known: ReaderLinks, boot: int, sequence: int) -> Report:
    found = frames.read(known, Pole(3, boot).frame(wire.BELL, bytes(6), sequence=sequence).payload)
    assert isinstance(found, Report)
    return found


def freshness(known: ReaderLinks, boot: int, *sequences: int) -> list[Freshness]:
    return [report(known, boot, sequence).freshness for sequence in sequences]


def forget(shell: Shell, number: int) -> Pole:
    """Let a reader boot so often that its older drawn boots are forgotten; return its newest boot."""
    for n in range(DRAWN_MAX):
        pole = Pole(number, wire.BOOT_DRAWN | 0x7000 + n)
        shell.frame(pole.beat())
    return pole


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_each_drawn_boot_has_its_own_window() -> None:
    known = ReaderLinks.of(KEYS)
    one, other = DRAWN[:2]
    assert freshness(known, one, 5, 100, 100, 101 - WINDOW, 100 - WINDOW) == ["new", "new", "again", "new", "stale"]
    assert freshness(known, other, 1, 2, 2) == ["new", "new", "again"]
    assert freshness(known, one, 100, 5, 101) == ["again", "stale", "new"]
    assert freshness(known, other, 3, 1) == ["new", "again"]


def test_a_reader_goes_from_kept_boots_to_drawn_ones_and_back() -> None:
    known = ReaderLinks.of(KEYS)
    assert freshness(known, 7, 500) == ["new"]
    for boot in (DRAWN[0], DRAWN[1], 8, DRAWN[2], 9, DRAWN[3], 9 + 0x3000):
        found = report(known, boot, 1)
        assert (found.freshness, found.rebooted, found.old_boot) == ("new", True, False)
        assert frames.boot_of(known, 3) == boot
    for boot in (7, 8, 9):
        old = report(known, boot, 9999)
        assert (old.freshness, old.rebooted, old.old_boot) == ("stale", False, True), "kept boots still have an order"
    assert freshness(known, 9 + 0x3000, 1, 2) == ["again", "new"], "what was kept before a drawn boot goes on"


@pytest.mark.parametrize("seed", range(8))
def test_frames_of_remembered_boots_are_judged_as_with_endless_memory(seed: int) -> None:
    print(f"seed {seed}")
    rng, known = random.Random(seed), ReaderLinks.of(KEYS)
    seen: dict[int, set[int]] = {}
    order: list[int] = []  # drawn boots by their newest new frame
    tops = {boot: rng.randrange(1, 5000) for boot in DRAWN}
    for _ in range(3000):
        boot = rng.choice(DRAWN[: DRAWN_MAX if rng.random() < 0.9 else None])
        sequence = max(1, tops[boot] + rng.randrange(-80, 6))
        tops[boot] = max(tops[boot], sequence)
        [fresh] = freshness(known, boot, sequence)
        if boot not in order:
            seen[boot] = set()
            assert fresh == "new"
        elif sequence in seen[boot]:
            assert fresh in ("again", "stale")
        else:
            assert fresh == ("new" if sequence > max(seen[boot]) - WINDOW else "stale")
        if fresh == "new":
            seen[boot].add(sequence)
            order = ([each for each in order if each != boot] + [boot])[-DRAWN_MAX:]
            assert known.by_number[3].newest()[:2] == (boot, max(seen[boot]))
        assert list(known.by_number[3].sessions) == order


def test_a_readers_own_frames_stay_new_whatever_is_replayed() -> None:
    """Recordings of many old boots, in any order, after each frame of the reader itself."""
    for own in (5, DRAWN[6]):
        known, rng = ReaderLinks.of(KEYS), random.Random(own)
        for sequence in range(1, 400):
            assert freshness(known, own, sequence) == ["new"]
            for boot in rng.sample([4, *DRAWN[:6]], 3):
                freshness(known, boot, rng.randrange(1, 9))
        assert len(known.by_number[3].sessions) <= DRAWN_MAX + 1


def test_downlinks_are_for_the_boot_of_the_newest_new_frame() -> None:
    known = ReaderLinks.of(KEYS)
    for boot, sequence, heard in ((7, 50, 50), (DRAWN[0], 9, 9), (DRAWN[0], 4, 9), (8, 1, 1), (DRAWN[0], 12, 12)):
        report(known, boot, sequence)
        payload = frames.answer(known, 3, wire.ACK, wire.encode_ack(0, []))
        assert payload is not None
        assert wire.peek(payload) == (wire.ACK, 3, boot, heard)
    freshness(known, 8, 1)  # read before
    assert frames.boot_of(known, 3) == DRAWN[0]


def test_all_remembered_boots_survive_a_restart() -> None:
    known = ReaderLinks.of(KEYS)
    for boot in (7, *DRAWN[:DRAWN_MAX]):
        freshness(known, boot, 10, 11)
    freshness(known, DRAWN[0], 12)
    again = ReaderLinks.of(KEYS)
    frames.restore(again, frames.snapshot(known))
    assert again.by_number[3].sessions == known.by_number[3].sessions
    assert frames.boot_of(again, 3) == DRAWN[0]
    assert freshness(again, DRAWN[1], 11, 9, 12) == ["again", "new", "new"]
    frames.restore(again, [(3, DRAWN[6], 1, 1, b"")])
    assert DRAWN[6] not in again.by_number[3].sessions, "what was heard since the start is newer than a snapshot"


# ---- alarms ----------------------------------------------------------------------------------------------------------


def test_a_bell_pressed_in_two_drawn_boots_is_two_alarms() -> None:
    shell = Shell()
    for boot in (7, DRAWN[0], DRAWN[1], 8):
        pole = Pole(2, boot)
        done = shell.frame(pole.bell(), later_s=1)
        assert len(events(done, Bell)) == 1
        assert stages(done, pole) == [(1, wire.RECEIVED)]
    assert len(alarms(shell.events)) == 4


@pytest.mark.parametrize("sent_before", [1, 40, 500])
@pytest.mark.parametrize("restart", [None, True, False])
def test_a_press_in_a_drawn_boot_is_an_alarm_even_if_its_number_was_drawn_before(
    sent_before: int, restart: bool | None
) -> None:
    """The one case in which true frames look old: the gateway remembers another boot of the same number."""
    shell, before = Shell(), Pole(2, DRAWN[0])
    for _ in range(sent_before):
        shell.frame(before.beat())
    if restart is not None:
        shell.restart(keep_snapshot=restart)
    pole = Pole(2, DRAWN[0])
    assert len(events(shell.frame(pole.bell(number=1)), Bell)) == 1
    stranger = bytearray(advertisement(flags=wire.FLAG_SOS, press=1))
    stranger[1:9] = b"no tag!!"
    [sos] = events(shell.frame(pole.sos(bytes(stranger), number=2)), Sos)
    assert sos.trust == "unverified"
    [sos] = events(shell.frame(pole.sos(cry(press=4), number=3)), Sos)
    assert sos.trust == "verified"
    assert not shell.counts.get("bells_refused")
    assert not shell.counts.get("cries_refused")


def test_a_press_whose_name_was_drawn_before_and_closed_is_an_alarm_once_its_frames_are_newer() -> None:
    shell, before = Shell(), Pole(2, DRAWN[0])
    [first] = events(shell.frame(before.bell()), Bell)
    shell.stage(first.alarm, wire.CLOSED)
    for _ in range(5):
        shell.frame(before.beat(), later_s=60)
    pole, found = Pole(2, DRAWN[0]), []
    for age_s in range(8):
        found += events(shell.frame(pole.bell(age_ms=1000 * age_s), later_s=1), Bell)
    assert [event.alarm == first.alarm for event in found] == [False], "the reader says it until it is answered"


# ---- a stranger who recorded frames ----------------------------------------------------------------------------------


def life(shell: Shell, pole: Pole) -> list[Frame]:
    """Let a reader send some of everything; return its frames as a stranger records them."""
    sent = [pole.bell(), pole.beat(), pole.bind((5, advertisement("tag-009"))), pole.sos(cry(press=3), number=2)]
    sent += [pole.bell(shown=1), pole.see((5, 2)), pole.bell(shown=5), pole.beat()]
    for frame in sent:
        shell.frame(frame, later_s=1)
        shell.wait(0.5)
    for alarm in sorted(alarms(shell.events)):
        shell.stage(alarm, wire.CLOSED)
    return sent


@pytest.mark.parametrize("boot", [7, DRAWN[0]])
def test_a_recording_of_a_remembered_boot_has_no_effect(boot: int) -> None:
    shell = Shell()
    recorded = life(shell, Pole(2, boot))
    now = Pole(2, DRAWN[1])
    shell.frame(now.beat())
    shell.wait(1500)
    shell.events.clear()
    shell.downlinks.clear()
    for _ in range(3):
        for frame in recorded:
            shell.frame(frame, later_s=40)
            shell.wait(1)
    assert not alarms(shell.events)
    assert not told(shell.events)
    assert not shell.downlinks, "an answer by its number would acknowledge another frame of the reader"
    shell.frame(now.beat())
    assert acks(shell.wait(1), now) == [(0, [2])]


def test_a_recording_of_a_forgotten_boot_joins_the_alarm_that_is_open() -> None:
    shell, pole = Shell(), Pole(2, DRAWN[0])
    recorded = [pole.bell(), pole.sos(cry(press=3), number=2)]
    for frame in recorded:
        shell.frame(frame)
    now = forget(shell, 2)
    known = alarms(shell.events)
    assert len(known) == 2
    for frame in recorded:
        shell.frame(frame, later_s=30)
        assert frames.boot_of(shell.state.links, 2) == DRAWN[0]
    assert alarms(shell.events) == known
    shell.frame(now.beat())
    assert acks(shell.wait(1), now) == [(0, [2])], "the reader's own next frame is answered as if nothing had been"


def test_a_recording_of_a_forgotten_boot_rings_once_after_its_alarm_was_closed() -> None:
    """Stated in docs/GATEWAY.md. A stranger at the pole does as much by pressing the bell."""
    shell, pole = Shell(), Pole(2, DRAWN[0])
    press = pole.bell()
    [first] = events(shell.frame(press), Bell)
    shell.stage(first.alarm, wire.CLOSED)
    forget(shell, 2)
    found = [e for _ in range(20) for e in events(shell.frame(press, later_s=60), Bell)]
    assert len(found) == 1


def test_a_recorded_cry_of_a_forgotten_boot_is_its_old_alarm_or_an_unverified_one() -> None:
    shell, pole = Shell(), Pole(2, DRAWN[0])
    recorded = pole.sos(cry(press=3))
    [first] = events(shell.frame(recorded), Sos)
    shell.stage(first.alarm, wire.CLOSED)
    for hours in (1, 10, 100):
        forget(shell, 2)
        shell.frame(recorded, later_s=hours * 3600)
        assert frames.boot_of(shell.state.links, 2) == pole.boot
    assert alarms(shell.events) == {first.alarm}
    shell.memories.clear()
    shell.restart()
    forget(shell, 2)
    [unproven] = events(shell.frame(recorded), Sos)
    assert unproven.trust == "unverified"


def test_a_lamp_is_told_though_a_forgotten_boot_was_replayed() -> None:
    shell, old = Shell(), Pole(2, DRAWN[0])
    recorded = [old.beat() for _ in range(30)]
    shell.frame(recorded[0])
    pole = forget(shell, 2)
    [bell] = events(shell.frame(pole.bell()), Bell)
    shell.frame(recorded[1])
    shell.downlinks.clear()
    shell.stage(bell.alarm, wire.ACKNOWLEDGED)
    for _ in range(20):
        shell.frame(recorded[2])
        shell.wait(1)
    assert not [d for d in shell.downlinks if wire.peek(d.payload)[2] == pole.boot]
    shell.frame(pole.see((1, 1)))  # any frame of the reader itself
    assert (1, wire.ACKNOWLEDGED) in stages(shell.wait(11), pole)


def test_a_lamp_of_a_forgotten_boot_is_left_alone() -> None:
    shell, pole = Shell(), Pole(2, DRAWN[0])
    [bell] = events(shell.frame(pole.bell()), Bell)
    forget(shell, 2)
    shell.downlinks.clear()
    shell.stage(bell.alarm, wire.ACKNOWLEDGED)
    shell.wait(700)
    assert not [d for d in shell.downlinks if wire.peek(d.payload)[0] == wire.STAGE]
