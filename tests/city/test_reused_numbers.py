"""A box whose disk was put back counts again from an older number: its new cries have numbers and names of old ones.

And cries that stay at a gateway although it is online."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from city import incident_store, intake
from city import tables as t
from city.config import load
from city.intake import Stored
from city.server import BACKLOG_ASK_S, BACKLOG_S, REUSED_S
from city.server import City as Server
from city.store import Store, counters
from gateway.events import Bell, Emergency
from gateway.uplink import Poison, StageNotice, Status
from tests.city.bed import SITE, danger, sos, told, when
from tests.city.test_link import CONFIG
from tests.city.test_standby import Bed, bed
from tests.city.test_store import NOW_S, TOPIC, urgent

__all__ = ["bed"]


class Clocked:
    """A city without a broker, on a clock that moves when told, and the gateways that it asks."""

    def __init__(self, folder: Path) -> None:
        (folder / "operators.json").write_text("{}")
        (folder / "city.toml").write_text(CONFIG)
        self.now_s = NOW_S
        self.city = Server(load(folder / "city.toml"), lambda: self.now_s)

    def status(self, kept: int, *, online: bool = True) -> None:
        status = Status(
            online=online,
            gateway="gw1",
            site=SITE,
            at=when(self.now_s),
            version="t",
            backlog={"sos": kept, "events": 9},
        )
        self.city.on_status(status, self.now_s)

    def take(self, seq: int, event: Emergency, after: int | None = None) -> Stored:
        stored = intake.store_urgent(self.city.store, TOPIC, urgent(seq, event, after), self.now_s)
        self.city.on_stored(stored, self.now_s)
        return stored

    def problems(self) -> list[str]:
        return [text for text in self.city.problems() if text.startswith("gateway: ")]


@pytest.fixture
def clocked(tmp_path: Path) -> Iterator[Clocked]:
    clocked = Clocked(tmp_path)
    yield clocked
    clocked.city.standby.close()


def take(store: Store, seq: int, event: Emergency | Poison) -> Stored:
    return intake.store_urgent(store, TOPIC, urgent(seq, event), NOW_S)


def bell(alarm: str, at_s: float) -> Bell:
    return Bell(
        observed_at=when(at_s), clock="good", alarm=alarm, revision=0, bell="gate", reader=8, presses=1, where=None
    )


def views(store: Store) -> list[dict[str, Any]]:
    with store.read() as c:
        return sorted(incident_store.views(c), key=lambda view: int(view["number"]))


def close(store: Store, number: int) -> None:
    with store.write() as c:
        incident_store.acknowledge(c, number, "kim", NOW_S)
        incident_store.close(c, number, "kim", NOW_S)


def test_a_cry_under_the_number_of_another_opens_its_incident_once(store: Store) -> None:
    take(store, 1, sos("a-1", tag="t-old", at_s=NOW_S - 900))
    new = sos("a-1", tag="t-new", at_s=NOW_S)
    first, again = take(store, 1, new), take(store, 1, new)
    assert (first.incidents, first.reused, first.new, first.duplicates, first.upto) == ((2,), True, 0, 0, 1)
    assert (again.incidents, again.reused, again.new, again.duplicates, again.upto) == ((), False, 0, 1, 1)
    assert [(view["subject"], view["alarm"], view["state"]) for view in views(store)] == [
        ("t-old", "a-1", "new"),
        ("t-new", "a-1~2", "new"),
    ]
    with store.read() as c:
        counts = counters(c)
        kept = c.execute(select(t.quarantine.c.raw, t.quarantine.c.reason, t.quarantine.c.times)).all()
    assert (counts["stored.sos"], counts["seq_reused"]) == (1, 1)
    ((raw, reason, times),) = kept
    assert b"t-new" in bytes(raw)
    assert "another emergency has its number (epoch e1, seq 1)" in reason
    assert times == 2


@pytest.mark.parametrize("kind", ["sos", "bell", "danger"])
def test_a_closed_incident_of_the_same_child_does_not_swallow_it(store: Store, kind: str) -> None:
    """The hardest case: the same tag or bell, the same alarm's name, and nobody looks at the old incident any more."""
    cries: dict[str, tuple[Emergency, Emergency]] = {
        "sos": (sos("a-1", press=7, at_s=NOW_S - 900), sos("a-1", press=8, at_s=NOW_S)),
        "bell": (bell("a-1", NOW_S - 900), bell("a-1", NOW_S)),
        "danger": (danger("a-1", "t-01"), danger("a-1", "t-01")),
    }
    old, new = cries[kind]
    take(store, 1, old)
    close(store, 1)
    assert take(store, 1, new).incidents == (2,)
    assert [view["state"] for view in views(store)] == ["closed", "new"]
    assert take(store, 1, new).incidents == ()


def test_three_children_under_one_number_and_name_are_three_incidents(store: Store) -> None:
    for n in range(3):
        take(store, 1, sos("a-1", tag=f"t-{n}", at_s=NOW_S + n))
    assert [view["alarm"] for view in views(store)] == ["a-1", "a-1~2", "a-1~3"]
    later = sos("a-1", tag="t-1", revision=1, at_s=NOW_S + 9)
    assert take(store, 2, later).incidents == (2,), (
        "a later word finds its own child by the tag, under a free number too"
    )


def test_an_unreadable_emergency_under_a_used_number_is_told(store: Store) -> None:
    take(store, 1, sos("a-1"))
    for _ in range(2):
        take(store, 1, Poison(b"what", "no such type"))
    take(store, 2, Poison(b"first", "no such type"))
    assert take(store, 2, Poison(b"first", "no such type")).duplicates == 1
    assert take(store, 2, Poison(b"second", "no such type")).reused
    assert take(store, 2, sos("a-2", tag="t-2")).reused
    assert [view["kind"] for view in views(store)] == ["sos", "unreadable", "sos"]
    with store.read() as c:
        assert counters(c)["seq_reused"] == 3


def test_the_lamp_of_the_new_child_gets_its_own_stages_only(clocked: Clocked, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str]] = []

    def publish(_gateway: str, notice: StageNotice) -> bool:
        sent.append((notice.alarm, notice.stage))
        return True

    monkeypatch.setattr(clocked.city.sos, "publish", publish)
    clocked.take(1, sos("a-1", tag="t-old", at_s=NOW_S))
    clocked.take(1, sos("a-1", tag="t-new", at_s=NOW_S))
    assert sent == [("a-1", "stored"), ("a-1", "stored")], "by the name that the gateway knows"
    sent.clear()
    clocked.city.acknowledge(1, "kim")
    clocked.city.close(1, "kim")
    clocked.city._notify(to_report(clocked))
    assert sent == [("a-1", "stored")], "help for the old child is not shown to the new one"
    sent.clear()
    clocked.city.acknowledge(2, "kim")
    assert sent == [("a-1", "acknowledged")]
    clocked.take(2, told("a-1", "acknowledged", at_s=NOW_S))
    lamps = {view["subject"]: view["alarms"][0]["told"] for view in views(clocked.city.store)}
    assert [one["stage"] for one in lamps["t-new"]] == ["acknowledged"]
    assert lamps["t-old"] == []


def to_report(clocked: Clocked) -> list[Any]:
    with clocked.city.store.read() as c:
        return incident_store.alarms_of_gateway(c, "gw1", clocked.now_s)


def test_in_memory_too_two_cries_of_one_number_are_two(bed: Bed) -> None:
    """The key of the lane tells them apart, and the twin does what the store does."""
    bed.cry(1, sos("a-1", tag="t-old", at_s=NOW_S - 900))
    bed.standby.follow(1)
    bed.standby.step()
    bed.lock()
    for tag in ("t-new", "t-newer"):
        event = sos("a-1", tag=tag, at_s=NOW_S)
        message = urgent(1, event)
        _, held = bed.standby.do(
            "cry",
            lambda store, m=message: intake.store_urgent(store, TOPIC, m, NOW_S),  # type: ignore[misc]
            key=("gw1", "e1", 1, intake.raw_of(event)),
            numbers=lambda stored: stored.incidents,
        )
        assert held
    assert set(bed.states()) == {"t-old", "t-new", "t-newer"}
    bed.unlock()
    bed.standby.step()
    assert {tag: state for tag, (_, state, _) in bed.states().items()} == dict.fromkeys(
        ("t-old", "t-new", "t-newer"), "new"
    )


def test_a_number_used_twice_is_told_for_an_hour(clocked: Clocked) -> None:
    clocked.take(1, sos("a-1", tag="t-old"))
    assert clocked.problems() == []
    clocked.take(1, sos("a-1", tag="t-new"))
    (text,) = clocked.problems()
    assert text.startswith("gateway: gw1 has given numbers of old emergencies to 1 new ones; all have their incidents.")
    clocked.now_s += REUSED_S + 1
    assert clocked.problems() == []


def test_cries_that_stay_at_a_gateway_that_is_online_are_told(
    clocked: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(clocked.city, "on_doubt", asked.append)
    clocked.status(2)
    clocked.city.do_duty(clocked.now_s)
    assert (asked, clocked.problems()) == ([], [])
    clocked.now_s += BACKLOG_ASK_S + 1
    clocked.city.do_duty(clocked.now_s)
    assert asked == ["gw1"], "is it still so?"
    clocked.status(3)
    clocked.now_s += BACKLOG_S - BACKLOG_ASK_S
    (text,) = clocked.problems()
    assert text == (
        "gateway: gw1 has 3 emergencies that do not arrive, or whose answers do not arrive there, for 11 s: "
        "call the site; look at the broker's access list"
    )
    clocked.take(1, sos("a-1"))
    assert clocked.problems() == [], "they do arrive"
    clocked.now_s += BACKLOG_S + 1
    clocked.take(1, sos("a-1", tag="t-9"), after=0)
    assert any("do not arrive" in text for text in clocked.problems()), "what is no progress is no sign of arrival"
    clocked.status(0)
    assert not any("do not arrive" in text for text in clocked.problems())
    clocked.status(1)
    clocked.now_s += BACKLOG_S + 1
    clocked.status(1, online=False)
    assert not any("do not arrive" in text for text in clocked.problems()), "it is shown as offline"
