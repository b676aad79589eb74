"""What the gateway's words are held against: who came and went, by when it must be told, and what is false."""

from typing import Any

import pytest

from sim.demo import records, report
from sim.street import site
from sim.street.children import Child, World
from sim.street.tag import CALM_S

ZONE = site.load()
WORLD, END_S, BEGAN = World(ZONE, 1, 20), 90.0, 450.0
"""The ids change at 0 and at 900 s: no tag is silent in this story."""
ROAD = ZONE.dangers[0]


def word(tag: str, at_s: float, stored_after_s: float = 0.5) -> dict[str, Any]:
    return {"tag": tag, "observed_at_unix": BEGAN + at_s, "stored_at": BEGAN + at_s + stored_after_s,
            "where": {"accuracy_95_m": 15.0}}  # fmt: skip


def notice(tag: str, at_s: float, area: str = ROAD.id) -> dict[str, Any]:
    return {"tag": tag, "area": area, "probability": 0.6, "observed_at_unix": BEGAN + at_s}


def passages(world: World = WORLD, end_s: float = END_S) -> dict[bool, dict[str, float]]:
    """Return when each child came (True) and went (False): those that must be told."""
    found: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for one in report.passages_until(world, end_s, end_s, report.TOLD_S):
        if one.due:
            found[one.arrives][one.tag] = one.at_s
    return found


def city(came_after_s: float = 10.0, went_after_s: float = 10.0) -> records.CityRecords:
    """Return the records of a city that was told of everybody, so long after it."""
    due = passages()
    return records.CityRecords(
        arrivals=[word(tag, at_s + came_after_s) for tag, at_s in due[True].items()],
        departures=[word(tag, at_s + went_after_s) for tag, at_s in due[False].items()],
    )


def judged(of: records.CityRecords, end_s: float = END_S, told_s: float = report.TOLD_S) -> dict[str, dict[str, Any]]:
    return report.passages_of(WORLD, of, BEGAN, end_s, told_s)


def figures(found: dict[str, Any]) -> list[int]:
    return [found[key] for key in report.PASSAGE_FIGURES]


def test_who_comes_and_who_goes_must_be_told() -> None:
    due = passages()
    assert len(due[True]) >= 3
    assert {child.role for child in WORLD.children if child.tag in due[False]} == {"errand"}
    assert all(due[True][tag] + 25 < at_s for tag, at_s in due[False].items()), "it was inside meanwhile"
    leave = [bool(passages(World(ZONE, seed, 8))[False]) for seed in range(1, 31)]
    assert sum(leave) >= 27, "in nearly every story of 90 s a child leaves early enough to be told"


def test_everybody_told_in_time_breaks_nothing() -> None:
    found, due = judged(city()), passages()
    assert figures(found["arrivals"]) == [len(due[True]), len(due[True]), 0, 0]
    assert figures(found["departures"]) == [len(due[False]), len(due[False]), 0, 0]
    assert set(found["arrivals"]["detail"]["seconds_after_entering"].values()) == {10.5}


def test_nobody_told_is_late_and_missing_with_its_time() -> None:
    found, due = judged(records.CityRecords()), passages()
    for kind, arrives in (("arrivals", True), ("departures", False)):
        assert found[kind]["detail"]["missing"] == sorted(due[arrives])
        assert {row["tag"]: row["at_s"] for row in found[kind]["detail"]["late"]} == due[arrives]
        assert {row["after_s"] for row in found[kind]["detail"]["late"]} == {None}


def test_late_is_by_when_it_is_in_the_city() -> None:
    for stored_after_s, late in ((49.0, 0), (51.0, 1)):
        of = city()
        of.departures[0]["stored_at"] = of.departures[0]["observed_at_unix"] + stored_after_s
        found = judged(of)["departures"]
        assert found["late"] == late
        assert found["detail"]["missing"] == [], "told, only late"


def test_a_silence_of_the_tags_gives_more_time() -> None:
    assert report.patience_s(60.0, 450.0) == 60.0
    assert report.patience_s(60.0, 900.0 - CALM_S - 59.0) == 60.0 + 2 * CALM_S
    assert report.patience_s(60.0, 905.0) == 60.0 + 2 * CALM_S


def test_who_enters_in_the_last_seconds_may_be_told_or_not() -> None:
    tag, at_s = max(passages()[True].items(), key=lambda pair: pair[1])
    cut_s = at_s + report.SETTLED_S - 1.0
    assert tag not in passages(end_s=cut_s)[True]
    assert tag in passages(end_s=cut_s + 1.5)[True]
    of = records.CityRecords(arrivals=[word(tag, at_s + 8.0)])
    assert figures(judged(of, cut_s)["arrivals"])[1::2] == [1, 0], "told all the same, and not false"


def test_without_gate_readers_an_arrival_has_more_time_and_a_departure_is_not_expected() -> None:
    of = city(came_after_s=140.0)
    of.departures = []
    assert [found["late"] for found in judged(of, told_s=report.UNGUARDED_TOLD_S).values()] == [0, 0]
    assert [found["late"] for found in judged(of).values()] == [len(passages()[True]), len(passages()[False])]
    assert report.told_within_s(ZONE.poles[:2]) == report.TOLD_S, "one post, both sides"
    for poles in ([], ZONE.poles[:1], ZONE.poles[4:], [ZONE.poles[0], ZONE.poles[2]]):
        assert report.told_within_s(poles) == report.UNGUARDED_TOLD_S


@pytest.mark.parametrize(("before_s", "false"), [(2.0, 0), (4.0, 1), (20.0, 1)])
def test_a_word_before_the_child_is_in_the_gate_is_false(before_s: float, false: int) -> None:
    tag, at_s = next(iter(passages()[True].items()))
    found = judged(records.CityRecords(arrivals=[word(tag, at_s - before_s)]))["arrivals"]
    assert found["false"] == false
    for row in found["detail"]["false"]:
        assert row["tag"] == tag
        assert 0.9 * min(before_s, 4.0) < row["away_m"] + 0.5 < 1.8 * before_s, "the street runs 4 m before the wall"


def test_a_word_about_who_passes_by_or_a_second_one_is_false() -> None:
    passer = next(child for child in WORLD.children if child.role == "passer")
    of = city()
    of.arrivals += [word(passer.tag, 80.0), of.arrivals[0] | {"observed_at_unix": BEGAN + END_S}, word("tag-999", 50.0)]
    stays = next(tag for tag in passages()[True] if tag not in passages()[False])
    of.departures.append(word(stays, 88.0))
    found = judged(of)
    assert [(row["tag"], row["again"]) for row in found["arrivals"]["detail"]["false"]] == [
        (passer.tag, False), (of.arrivals[0]["tag"], True), ("tag-999", False),
    ]  # fmt: skip
    assert found["arrivals"]["detail"]["false"][2]["away_m"] is None
    [row] = found["departures"]["detail"]["false"]
    assert row["tag"] == stays
    assert row["away_m"] > 0


def test_dangers_that_are_near_are_told_or_missed() -> None:
    kerb = by_the_road()
    clear = next(c for c in WORLD.children if min(WORLD.danger_distance_m(c, t) for t in range(91)) > 60)
    nobody_told = report.dangers_of(WORLD, records.CityRecords(), BEGAN, END_S)
    assert nobody_told["near"] == nobody_told["missed"] > 0
    assert [kerb.tag, ROAD.id] in nobody_told["detail"]["missed"]
    assert [clear.tag, ROAD.id] not in nobody_told["detail"]["missed"]
    of = records.CityRecords(dangers=[notice(kerb.tag, 40.0), notice(clear.tag, 40.0)])
    found = report.dangers_of(WORLD, of, BEGAN, END_S)
    assert (found["told"], found["true"], found["false"]) == (2, 1, 1)
    assert [row["true"] for row in found["detail"]["notices"]] == [True, False]
    assert found["missed"] == found["near"] - 1
    of.dangers = [notice("tag-999", 40.0, "moon")]
    assert report.dangers_of(WORLD, of, BEGAN, END_S)["false"] == 1, "nobody, nowhere"


def test_a_notice_is_false_only_if_the_child_was_well_clear_for_all_of_the_last_seconds() -> None:
    """It may come early, because a walker could be there in NEAR_S; and late, because it was there NEAR_S ago."""
    kerb = by_the_road()
    for n in range(800):
        at_s = 0.5 * n
        nearest_m = min(WORLD.danger_distance_m(kerb, at_s - 0.5 * back) for back in range(21))
        found = report.dangers_of(WORLD, records.CityRecords(dangers=[notice(kerb.tag, at_s)]), BEGAN, 10.0)
        assert found["false"] == (nearest_m > ROAD.warn_m + report.CLEAR_M), (at_s, nearest_m)


def by_the_road() -> Child:
    return next(c for c in WORLD.children if WORLD.danger_distance_m(c, 40.0) <= ROAD.warn_m)
