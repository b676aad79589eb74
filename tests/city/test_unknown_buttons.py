"""What the city makes of ZigBee buttons that are none of ours, and of emergencies that a gateway lost."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from city import incident_store, intake
from city.store import Store
from gateway.events import UNKNOWN_BUTTON, Sos
from gateway.uplink import Poison, Urgent

NOW_S = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'city.db'}")
    yield store
    store.close()


def button(alarm: str, device: str, *, press: int = 1, revision: int = 0, later_s: float = 0.0) -> Sos:
    return Sos(
        observed_at=datetime.fromtimestamp(NOW_S + later_s, UTC), clock="good", alarm=alarm, revision=revision,
        tag=f"{UNKNOWN_BUTTON} {device}", trust="unverified", drill=False, press=press, battery_mv=0, readers=(),
        where=None,
    )  # fmt: skip


def take(store: Store, seq: int, event: Sos | Poison, gateway: str = "gw1") -> list[dict[str, Any]]:
    """Store one emergency; return the open incidents."""
    at = datetime.fromtimestamp(NOW_S, UTC)
    message = Urgent(gateway=gateway, epoch="e1", seq=seq, after=seq - 1, queued_at=at, event=event)
    intake.store_urgent(store, f"ansim/v2/s/gw/{gateway}/sos", message, NOW_S + 300)
    with store.read() as c:
        return incident_store.views(c, open_only=True)


def test_each_alarm_of_an_unknown_button_is_a_new_incident_and_its_repetitions_are_none(store: Store) -> None:
    """A tag's second alarm with the press of an open incident is the same press. A button counts from 1 each time."""
    take(store, 1, button("gw1-e-1", "1a2b"))
    [one] = take(store, 2, button("gw1-e-1", "1a2b", press=2, revision=1))
    assert (one["subject"], one["trust"], one["press"], one["state"]) == ("unknown button 1a2b", "unverified", 2, "new")
    assert (one["kind"], one["where"], one["readers"]) == ("sos", None, ())
    with store.write() as c:
        incident_store.acknowledge(c, one["number"], "kim", NOW_S + 301)
    found = take(store, 3, button("gw1-e-2", "1a2b", press=2, later_s=60))
    assert [incident["state"] for incident in found] == ["new", "acknowledged"], "pressed again: new, and at the top"
    assert len(take(store, 4, button("gw1-e-3", "1a2b", later_s=120))) == 3
    assert len(take(store, 1, button("gw2-e-1", "1a2b", later_s=120), gateway="gw2")) == 4, "other gateway, other box"


def test_emergencies_lost_on_a_gateway_open_an_incident_that_says_which(store: Store) -> None:
    words = "Invalid value 'rows 3 to 7 of epoch 1a2b3c4d were lost on the gateway' - at `$.event`"
    [one] = take(store, 1, Poison(b"{}", words))
    assert (one["kind"], one["subject"], one["state"]) == ("unreadable", "gw1", "new")
    assert "rows 3 to 7 of epoch 1a2b3c4d were lost on the gateway" in one["detail"]
