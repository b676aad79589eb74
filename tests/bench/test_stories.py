"""A story of the demo without processes: everybody is told in time, nothing is false, and the verdict can fail."""

import pytest

from sim.demo.records import CityRecords
from sim.demo.report import TOLD_S, passages_of, passages_until
from tests.bench.stories import OfflineStory, broken, near_after_s

SEED, CHILDREN, STORY_S = 22, 8, 85.0


@pytest.fixture(scope="module")
def story() -> OfflineStory:
    print(f"seed {SEED}")
    return OfflineStory(SEED, children=CHILDREN, seconds=STORY_S)


def test_who_comes_and_goes_by_a_guarded_gate_is_told_and_nothing_else(story: OfflineStory) -> None:
    due = [one for one in passages_until(story.world, STORY_S, STORY_S, TOLD_S) if one.due]
    assert {one.arrives for one in due} == {True, False}
    found = story.run()
    assert broken(found) == []
    assert found["arrivals"]["reported"] >= sum(one.arrives for one in due)
    assert len(near_after_s(story)) == found["dangers"]["near"] > 0
    assert found["dangers"]["missed"] == 0
    nobody = passages_of(story.world, CityRecords(), 0.0, STORY_S, TOLD_S)
    assert len(broken(nobody | {"dangers": found["dangers"]})) == len(due)
