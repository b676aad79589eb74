"""The story: the same for the same seed; its presses can be heard, and its faults do what their names say."""

import math

import pytest

from sim.demo import scenario
from sim.demo.scenario import Fault, ScenarioError
from sim.street import site
from sim.street.children import World

ZONE = site.load()
POLES = ZONE.poles[:8]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kill-gateway@30", Fault("kill-gateway", 30.0)),
        ("kill-reader@20.5:3", Fault("kill-reader", 20.5, 3)),
        ("noise@40", Fault("noise", 40.0)),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    assert scenario.parse_fault(text) == fault


@pytest.mark.parametrize(
    "text", ["", "kill-gateway", "kill-gateway@", "kill-moon@3", "noise@4:2", "noise@-1", "noise@1e9x"]
)
def test_what_is_no_fault_is_refused_with_the_kinds(text: str) -> None:
    with pytest.raises(ScenarioError, match="kill-gateway, kill-broker"):
        scenario.parse_fault(text)


def test_a_seed_and_options_are_a_story() -> None:
    faults = (Fault("kill-reader", 20.0), Fault("noise", 10.0))
    one = scenario.write(World(ZONE, 7, 20), POLES, seconds=90, faults=faults)
    again = scenario.write(World(ZONE, 7, 20), POLES, seconds=90, faults=faults)
    other = scenario.write(World(ZONE, 8, 20), POLES, seconds=90, faults=faults)
    assert one == again
    assert one.digest != other.digest
    assert [fault.at_s for fault in one.faults] == [10.0, 20.0]
    assert 1 <= one.faults[1].reader <= 8


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_child_that_presses_is_on_the_street_in_reach_of_a_pole(seed: int) -> None:
    world = World(ZONE, seed, 20)
    sos, bell = scenario.write(world, POLES, seconds=90).presses
    assert 29 < sos.at_s < 31
    assert 43 < bell.at_s < 47
    where = world.children[sos.tag - 1].at(sos.at_s)
    assert not world.at_school(world.children[sos.tag - 1], sos.at_s)
    assert min(math.dist((where.x_m, where.y_m), pole.at) for pole in POLES) <= scenario.REACH_M
    assert bell.reader in {pole.number for pole in POLES}


def test_for_a_person_who_watches_the_sos_comes_after_twenty_seconds() -> None:
    story = scenario.write(World(ZONE, 1, 20, endless=True), POLES, seconds=1e9, live=True)
    assert [press.at_s for press in story.presses] == [20.0, 60.0]


@pytest.mark.parametrize(
    ("fault", "words"), [(Fault("noise", 90.0), "behind the end"), (Fault("kill-reader", 5.0, 9), "readers are 1..8")]
)
def test_a_fault_with_no_place_in_the_story_is_refused(fault: Fault, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        scenario.write(World(ZONE, 1, 3), POLES, seconds=90, faults=[fault])
