"""A cry that cannot be proven is raised as unverified. Too many of them are merged; a proven one never is."""

import pytest

from gateway.core import pipeline
from gateway.core.sos import DOUBTED_MAX, REVISIONS_MAX
from gateway.events import UNKNOWN_TAG, Bell, Sos
from readers import wire
from readers.advertisement import EPOCH_S, TagKeys, build, epoch_at
from tests.gateway.core.bed import SOS, UTC_S, Pole, Shell, advertisement, alarms, cry, events, stages


def stranger(n: int, press: int = 1) -> bytes:
    return build(TagKeys(n.to_bytes(16, "big"), bytes(16)), epoch_at(UTC_S), flags=SOS, press=press)


@pytest.mark.parametrize(
    "raw",
    [
        stranger(1),
        cry()[:13] + bytes(6),
        b"\x30" + cry()[1:],
        advertisement(press=1),
    ],
    ids=["a tag of another zone", "a wrong MIC", "another version", "a reader says SOS, the tag does not"],
)
def test_what_cannot_be_proven_is_raised_as_unverified(raw: bytes) -> None:
    shell, pole = Shell(), Pole(4)
    done = shell.frame(pole.sos(raw))
    [event] = events(done, Sos)
    assert (event.trust, event.tag) == ("unverified", UNKNOWN_TAG)
    assert stages(done, pole) == [(1, wire.RECEIVED)]


def test_a_stale_frame_is_told_too_and_only_its_trust_is_less() -> None:
    shell, pole = Shell(), Pole(4)
    proven, unproven, bell = pole.sos(cry()), pole.sos(stranger(1), number=2), pole.bell(number=3)
    for _ in range(70):
        shell.frame(pole.beat())
    assert [e.trust for e in events(shell.frame(unproven), Sos)] == ["unverified"]
    assert [e.trust for e in events(shell.frame(bell), Bell)] == ["unverified"]
    assert [e.trust for e in events(shell.frame(proven), Sos)] == ["verified"]


def test_unproven_cries_are_merged_above_five_a_minute_and_proven_ones_never() -> None:
    shell, pole = Shell(), Pole(4)
    for n in range(50):
        done = shell.frame(pole.sos(stranger(n), number=1 + n), later_s=0.5)
        assert stages(done, pole) == [(1 + n, wire.RECEIVED)], "each is answered"
    assert len(alarms(shell.events)) == DOUBTED_MAX
    assert shell.counts["cries_merged"] == 50 - DOUBTED_MAX
    shell.frame(Pole(5).sos(stranger(99)))
    assert len(alarms(shell.events)) == DOUBTED_MAX + 1, "each reader has its own measure"
    for n in range(20):
        shell.frame(pole.sos(cry(tag=f"tag-{n:03d}"), number=100 + n))
    assert len(alarms(shell.events)) == DOUBTED_MAX + 1 + 20
    shell.now_s += 61
    shell.frame(pole.sos(stranger(200), number=200))
    assert len(alarms(shell.events)) == DOUBTED_MAX + 2 + 20


def test_a_cry_is_not_merged_into_an_alarm_that_was_closed() -> None:
    shell, pole = Shell(), Pole(4)
    for n in range(DOUBTED_MAX):
        shell.frame(pole.sos(stranger(n), number=1 + n))
    shell.stage(f"gw1-e1-{DOUBTED_MAX}", wire.CLOSED)
    assert len(events(shell.frame(pole.sos(stranger(77), number=77)), Sos)) == 1


def test_a_forgery_that_was_closed_does_not_swallow_the_true_cry() -> None:
    shell = Shell()
    forged = cry()[:13] + bytes(6)
    [event] = events(shell.frame(Pole(4).sos(forged)), Sos)
    shell.stage(event.alarm, wire.CLOSED)
    [true] = events(shell.frame(Pole(5).sos(cry()), later_s=5), Sos)
    assert (true.trust, true.alarm != event.alarm) == ("verified", True)


def test_an_unproven_cry_that_is_proven_later_is_the_same_alarm_revised() -> None:
    """The clock was 10 hours wrong, so the table had no column with this id. Then the clock was set."""
    shell = Shell(utc_s=UTC_S - 40 * EPOCH_S)
    pole = Pole(4)
    [first] = events(shell.frame(pole.sos(cry())), Sos)
    assert first.trust == "unverified"
    shell.utc_offset_s = UTC_S - shell.now_s
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    shell.frame(pole.sos(cry(count=53), shown=1), later_s=1)
    [proven] = events(shell.wait(0.1), Sos)
    assert (proven.alarm, proven.trust, proven.tag, proven.revision) == (first.alarm, "verified", "tag-003", 1)
    other = Pole(5)
    assert stages(shell.frame(other.sos(cry(count=54))), other) == [(1, wire.RECEIVED)]
    assert len(alarms(shell.events)) == 1


def test_a_merged_cry_that_is_proven_later_gets_its_own_alarm() -> None:
    shell = Shell(utc_s=UTC_S - 40 * EPOCH_S)
    pole = Pole(4)
    for n in range(DOUBTED_MAX):
        shell.frame(pole.sos(stranger(n), number=1 + n))
    shell.frame(pole.sos(cry(), number=50))
    assert len(alarms(shell.events)) == DOUBTED_MAX
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    done = shell.frame(pole.sos(cry(count=51), number=50, shown=1), later_s=1)
    [event] = events(done, Sos)
    assert (event.trust, event.tag, event.revision) == ("verified", "tag-003", 0)
    assert event.alarm == f"gw1-e1-{DOUBTED_MAX + 1}"


@pytest.mark.parametrize("off_epochs", [-8, -3, 3, 8])
def test_a_tag_or_a_gateway_with_a_wrong_clock_still_cries_by_name(off_epochs: int) -> None:
    shell, pole = Shell(utc_s=UTC_S - off_epochs * EPOCH_S), Pole(4)
    [first] = events(shell.frame(pole.sos(cry())), Sos)
    later = events(shell.wait(30), Sos)
    assert (first.trust == "verified") or later[-1].trust == "verified"


@pytest.mark.parametrize("flags", [0, wire.FLAG_DRILL])
def test_a_cry_that_is_proven_later_says_whether_it_is_a_drill(flags: int) -> None:
    """Nobody runs for a drill: a true cry must not become one when its key is known."""
    shell, pole = Shell(utc_s=UTC_S - 40 * EPOCH_S), Pole(4)
    [first] = events(shell.frame(pole.sos(cry(flags=flags))), Sos)
    assert (first.trust, first.drill) == ("unverified", False)
    shell.utc_offset_s = UTC_S - shell.now_s
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    shell.frame(pole.sos(cry(count=53, flags=flags), shown=1), later_s=1)
    [proven] = events(shell.wait(0.1), Sos)
    assert (proven.alarm, proven.trust, proven.drill) == (first.alarm, "verified", bool(flags))


def test_a_cry_that_is_proven_after_its_last_revision_is_told() -> None:
    shell = Shell(utc_s=UTC_S - 40 * EPOCH_S)
    for n in range(110):  # heard along the street, a new reader in each interval of revisions
        shell.frame(Pole(1 + n // 12).sos(cry(count=60 + n), shown=1), later_s=1)
        shell.wait(0)
    last = [event for event in shell.events if isinstance(event, Sos)][-1]
    assert (last.revision, last.trust) == (REVISIONS_MAX, "unverified")
    shell.utc_offset_s = UTC_S - shell.now_s
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    shell.wait(1)
    proven = [event for event in shell.events if isinstance(event, Sos)][-1]
    assert (proven.alarm, proven.trust, proven.tag) == (last.alarm, "verified", "tag-003")
