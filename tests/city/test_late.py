"""What comes late: a flood of old rows hides nothing of today, and a danger that is over is no work for anybody."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func, select

from city import incident_store, intake
from city import tables as t
from city.config import load
from city.pages.login import add_operator
from city.server import HEALTH_MAX, PASSAGES_MAX, TAGS_MAX, City
from city.store import Store
from gateway.events import Danger, ReaderHealth
from tests.city.bed import arrival, free_port, place, position, sos, when
from tests.city.test_store import NOW_S, TOPIC, batch, urgent

HOUR_S = 3600.0


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    add_operator(tmp_path / "operators.json", "kim")
    path = tmp_path / "city.toml"
    path.write_text(
        f'site = "s"\n[mqtt]\nhost = "127.0.0.1"\nport = {free_port()}\n[store]\nurl = "sqlite:///city.db"\n'
        '[web]\noperators_file = "operators.json"\n'
    )
    city = City(load(path), lambda: NOW_S)
    yield city
    city.standby.close()


def near(alarm: str, at_s: float, *, near: bool, tag: str = "t-01") -> Danger:
    return Danger(
        observed_at=when(at_s),
        clock="good",
        alarm=alarm,
        revision=0 if near else 1,
        tag=tag,
        area="road",
        near=near,
        probability=0.9,
        where=place(),
    )


def states(store: Store) -> list[tuple[str, str | None]]:
    with store.read() as c:
        return [(view["state"], view["closed_by"]) for view in incident_store.views(c, limit=1000)]


def test_a_flood_of_old_arrivals_hides_none_of_today(city: City) -> None:
    today = [arrival(f"t-{i:02}", NOW_S - 60 + i) for i in range(5)]
    intake.store_batch(city.store, TOPIC, batch(1, *today), NOW_S - 50)
    for first in range(6, 306, 100):  # three hours of a gateway that was away, stored after them
        old = [arrival(f"o-{first + i}", NOW_S - 3 * HOUR_S + i) for i in range(100)]
        intake.store_batch(city.store, TOPIC, batch(first, *old), NOW_S)
    passages = city.snapshot()["passages"]
    assert [one["subject"] for one in passages[:5]] == [f"t-{i:02}" for i in (4, 3, 2, 1, 0)]
    assert len(passages) == PASSAGES_MAX
    with city.store.read() as c:
        query = select(t.event).where(t.event.c.type == "arrival").order_by(t.event.c.observed_at.desc()).limit(100)
        plan = " ".join(row[3] for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled(query)}"))
    assert "event_by_time" in plan
    assert "TEMP B-TREE" not in plan, "the page must not sort all rows"


def compiled(query: object) -> str:
    return str(query.compile(compile_kwargs={"literal_binds": True}))  # type: ignore[attr-defined]


def test_an_arrival_from_the_future_does_not_stay_on_top(city: City) -> None:
    intake.store_batch(city.store, TOPIC, batch(1, arrival("t-future", NOW_S + 5 * HOUR_S)), NOW_S - 10)
    intake.store_batch(city.store, TOPIC, batch(2, arrival("t-now", NOW_S)), NOW_S)
    assert [(p["subject"], p["as_of"]) for p in city.snapshot()["passages"]] == [
        ("t-now", NOW_S),
        ("t-future", NOW_S - 10),
    ]


def test_tags_push_no_silent_reader_off_the_page(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("city.server.TAGS_MAX", 50)
    dead = ReaderHealth(observed_at=when(NOW_S - 9 * HOUR_S), clock="good", reader=7, state="silent", counters={})
    intake.store_batch(city.store, TOPIC, batch(1, dead, *[position(f"t-{i:02}", NOW_S) for i in range(60)]), NOW_S)
    words = city.snapshot()["words"]
    assert [word["state"] for word in words if word["kind"] == "reader_health"] == ["silent"]
    assert len(words) == 51
    assert HEALTH_MAX >= 1000 < TAGS_MAX


def test_300_old_dangers_that_are_over_leave_nothing_open_in_any_order(store: Store) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    events = [
        near(f"d{i}", NOW_S - 3 * HOUR_S + 10 * i + (0 if is_near else 5), near=is_near, tag=f"t-{i % 40}")
        for i in range(300)
        for is_near in (True, False)
    ]
    random.Random(seed).shuffle(events)
    for seq, event in enumerate(events, 1):
        intake.store_urgent(store, TOPIC, urgent(seq, event), NOW_S)
    assert states(store) == [("closed", "city")] * 300
    with store.read() as c:
        open_alarms = c.execute(select(func.count()).select_from(t.alarm).where(t.alarm.c.open)).scalar_one()
    assert open_alarms == 0


def test_a_danger_that_is_over_before_it_is_heard_of_opens_nothing(store: Store) -> None:
    intake.store_urgent(store, TOPIC, urgent(2, near("d1", NOW_S, near=False), after=1), NOW_S)
    assert states(store) == [("closed", "city")]
    intake.store_urgent(store, TOPIC, urgent(1, near("d1", NOW_S - 5, near=True)), NOW_S)
    assert states(store) == [("closed", "city")]


def test_a_danger_that_came_in_time_waits_for_a_person_although_it_is_over(store: Store) -> None:
    intake.store_urgent(store, TOPIC, urgent(1, near("d1", NOW_S - 5, near=True)), NOW_S)
    intake.store_urgent(store, TOPIC, urgent(2, near("d1", NOW_S + 300, near=False)), NOW_S + 300)
    assert states(store) == [("new", None)]


def test_a_late_danger_that_is_not_over_is_shown_and_one_a_person_took_stays_with_that_person(store: Store) -> None:
    for seq, alarm in enumerate(("d1", "d2"), 1):
        event = near(alarm, NOW_S - HOUR_S, near=True, tag=alarm)
        intake.store_urgent(store, TOPIC, urgent(seq, event), NOW_S)
    assert states(store) == [("new", None)] * 2
    with store.write() as c:
        incident_store.acknowledge(c, 1, "kim", NOW_S)
    for seq, alarm in enumerate(("d1", "d2"), 3):
        event = near(alarm, NOW_S - HOUR_S + 9, near=False, tag=alarm)
        intake.store_urgent(store, TOPIC, urgent(seq, event), NOW_S)
    assert states(store) == [("acknowledged", None), ("closed", "city")]


def test_no_number_of_notices_pushes_a_call_off_the_page(store: Store) -> None:
    intake.store_urgent(store, TOPIC, urgent(1, sos("a1", tag="t-cry", at_s=NOW_S)), NOW_S)
    for seq in range(2, 12):
        intake.store_urgent(store, TOPIC, urgent(seq, near(f"d{seq}", NOW_S, near=True, tag=f"t-{seq}")), NOW_S)
    with store.read() as c:
        views = incident_store.views(c, limit=3)
    assert [view["kind"] for view in views] == ["sos", "danger", "danger"]
    assert views == sorted(views, key=incident_store.view_order)
    old = msgspec.structs.replace(sos("a2", tag="t-old", at_s=NOW_S - 9 * HOUR_S))
    intake.store_urgent(store, TOPIC, urgent(12, old), NOW_S)
    with store.read() as c:
        assert [view["subject"] for view in incident_store.views(c, limit=2)] == ["t-old", "t-cry"]
