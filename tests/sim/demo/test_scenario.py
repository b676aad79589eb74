"""The story: the same for the same seed; its presses can be heard, and its faults do what their names say."""

import json
import math
from pathlib import Path

import pytest

from sim.demo import report, run, scenario
from sim.demo.scenario import Fault, ScenarioError, Switching
from sim.reader.switches import Switches
from sim.street import site
from sim.street.children import World
from sim.street.tag import CALM_S, Tag, calm_in_s

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


@pytest.mark.parametrize(
    ("text", "switching"),
    [
        ("flash=full", Switching("flash=full")),
        ("flash=full:3", Switching("flash=full", None, 3)),
        ("flash=full,transmit_ms=5000@20:3", Switching("flash=full,transmit_ms=5000", 20.0, 3)),
        ("interrupt_every_s=2.5@0", Switching("interrupt_every_s=2.5", 0.0)),
    ],
)
def test_a_switching_is_read(text: str, switching: Switching) -> None:
    assert scenario.parse_switching(text) == switching


@pytest.mark.parametrize("text", ["", "@20", ":3", "flash=full@", "flash=full@-1", "flash=full:0", "flash=full@20:x"])
def test_what_is_no_switching_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"NAME=VALUE\[,NAME=VALUE...\]\[@SECONDS\]\[:READER\]"):
        scenario.parse_switching(text)


def test_an_unknown_switch_is_answered_with_those_there_are_and_a_wrong_value_too() -> None:
    with pytest.raises(ScenarioError, match=r"there is no switch 'flsh'; there are .*transmit_ms"):
        scenario.parse_switching("flsh=full")
    with pytest.raises(ScenarioError, match="'ful' is none of works, full"):
        scenario.parse_switching("flash=ful@20:3")


def test_switches_of_the_start_add_up_and_later_ones_wait() -> None:
    texts = ("atcmd=bytes", "flash=full@20:2", "flash=no_sync:2", "call_ms=5:2", "transmit_ms=9@1")
    switchings = [scenario.parse_switching(text) for text in texts]
    story = scenario.write(World(ZONE, 1, 3), POLES, seconds=90, switchings=switchings)
    assert story.digest == scenario.write(World(ZONE, 1, 3), POLES, seconds=90).digest, "nobody walks another way"
    assert [each.at_s for each in story.switchings] == [None, None, None, 1.0, 20.0]
    modules = scenario.at_boot(story, [1, 2], Switches(boot_ms=900))
    assert modules[1] == Switches(boot_ms=900, atcmd="bytes")
    assert modules[2] == Switches(boot_ms=900, atcmd="bytes", flash="no_sync", call_ms=5)
    assert scenario.words(modules[2]) == "boot_ms=900,call_ms=5,atcmd=bytes,flash=no_sync"


def test_a_file_of_bringup_is_the_module_of_every_reader(tmp_path: Path) -> None:
    file = tmp_path / "bringup.json"
    file.write_text(json.dumps({"switches": {"transmit_ms": 40, "flash": "no_replace"}, "firmware": "1014"}))
    assert scenario.module_of(file) == Switches(transmit_ms=40, flash="no_replace")
    file.write_text("{}")
    with pytest.raises(ScenarioError, match=r"--switches: .*is no file of `ansim-reader bringup`"):
        scenario.module_of(file)


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


LAST_S = 900 - CALM_S - report.TOLD_S
"""So long after a change of the ids, a story may still end whose last arrival is told before the next."""


@pytest.mark.parametrize(
    ("since_s", "story_s", "waits_s"),
    [
        (0.0, 90.0, CALM_S), (10.0, 90.0, CALM_S - 10), (450.0, 90.0, 0.0),
        (LAST_S - 90.5, 90.0, 0.0), (LAST_S - 89.5, 90.0, 900 - LAST_S + 89.5 + CALM_S),
        (880.0, 5000.0, 20 + CALM_S), (800.0, 5000.0, 0.0), (890.0, math.inf, 10 + CALM_S), (500.0, math.inf, 0.0),
    ],
)  # fmt: skip
def test_a_short_story_waits_until_no_tag_changes_its_id_in_it(since_s: float, story_s: float, waits_s: float) -> None:
    begins_s = 2_000_000 * 900 + since_s
    assert calm_in_s(begins_s, run.needed_calm_s(story_s)) == pytest.approx(waits_s)


def test_no_tag_of_a_zone_is_silent_in_a_calm_time() -> None:
    """Every tag sends once a second from CALM_S after a change of the ids until CALM_S before the next."""
    change_s = 2_000_000 * 900.0
    for number in range(1, 200):
        tag = Tag(7, number, "tag", change_s + CALM_S)
        last_s = 0.0
        while tag.next_s < 900 - 2 * CALM_S:
            assert tag.next_s - last_s < 1.1, (number, tag.next_s)
            last_s = tag.advertise(moving=True).sent_s
