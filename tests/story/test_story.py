"""The whole chain on real parts, from a child's press to the lamp, with the gateway, the broker and the city killed."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from sim.demo.processes import console
from tests.sim.demo.terminal import Screen, in_terminal

ASK = "press Acknowledge"
pytestmark = [pytest.mark.story, pytest.mark.timeout(280)]


def test_a_cry_and_a_bell_survive_the_death_of_every_server(tmp_path: Path) -> None:
    """Seed 5, 40 s: the gateway dies just before the tag's press, the broker at the bell's, then city and reader."""
    command = [
        console("ansim-sim"), "demo", "--once", "--seconds", "40", "--children", "8", "--readers", "5", "--seed", "5",
        "--json", "out.json", "--fault", "kill-gateway@12.5", "--fault", "kill-broker@20", "--fault", "kill-city@26",
        "--fault", "kill-reader@30",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=270, check=False)
    assert (tmp_path / "out.json").exists(), done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    words = done.stdout + done.stderr
    assert [fault["kind"] for fault in report["faults"]] == ["kill-gateway", "kill-broker", "kill-city", "kill-reader"]
    assert all(fault["down_s"] > 1 for fault in report["faults"] if fault["kind"] != "kill-reader")
    assert report["lost_events"] == 0, words
    assert report["undelivered_events"] == 0, words
    assert report["duplicate_events"] == 0, words
    assert report["second_incidents"] == 0, words
    assert report["quarantined"] == 0
    assert report["committed"]["sos"] >= 4
    assert report["committed"]["events"] > 20
    sightings = report["sightings"]
    assert 0 < sightings["decoded"] <= sightings["reported"]
    for kind in ("sos", "bell"):
        (hops,) = report[kind]
        assert all(hops[name] is not None for name in hops if name.endswith("_ms")), (kind, hops, words)
        assert 0 < hops["press_to_gateway_ms"] < hops["press_to_stored_ms"] < 20_000
        assert hops["press_to_lamp_received_ms"] > hops["press_to_gateway_ms"], "a lamp never says what is not durable"
        assert 0 < hops["acknowledge_to_lamp_help_ms"] < 20_000
    boots = [reader["boots"] for reader in report["readers"]]
    assert sorted(boots) == [1, 1, 1, 1, 2]
    assert max(report["readers_heap_used_b"]) < 32 * 1024
    assert report["arrivals"]["false"] == 0, report["arrivals_detail"]
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert left == "", f"still running: {left}"


def test_a_press_on_a_bell_outlives_a_dead_gateway_and_its_own_readers_power(tmp_path: Path) -> None:
    """Seed 5, 24 s: bell03 is pressed 0.8 s after the gateway's death; its reader loses power 0.7 s later, for 2 s.

    It runs in a terminal of 80 x 24, as the pages promise it, which is made smaller when the first press waits.
    """
    command = [
        console("ansim-sim"), "demo", "--once", "--seconds", "24", "--children", "3", "--readers", "3", "--seed", "5",
        "--no-walk-test", "--json", "out.json", "--fault", "kill-gateway@11.5", "--fault", "kill-reader@13:3",
    ]  # fmt: skip
    screen = in_terminal(
        command, tmp_path, (80, 24), limit_s=270, then=lambda so_far: (40, 12) if ASK in so_far else None
    )
    words = screen.after
    report = json.loads((tmp_path / "out.json").read_text())
    (hops,) = report["bell"]
    gateway, reader = report["faults"]
    assert hops["who"] == "bell03"
    assert gateway["at_s"] < hops["at_s"] < reader["at_s"] < gateway["at_s"] + gateway["down_s"], "nobody was there"
    assert [reader["boots"] for reader in report["readers"]] == [1, 1, 2]
    assert hops["incidents"] == 1, words
    assert report["second_incidents"] == report["lost_events"] == report["undelivered_events"] == 0, words
    assert all(hops[name] is not None for name in hops if name.endswith("_ms")), (hops, words)
    assert hops["press_to_gateway_ms"] > 1000 * (reader["at_s"] - hops["at_s"] + 2), "told by the reader's second life"
    check_pictures(screen)


def bare(text: str) -> str:
    return "".join(text.split())


def check_pictures(screen: Screen) -> None:
    """In both sizes: the page, name and passcode, what to do next for the press, the newest line, and nothing else."""
    login = re.compile(r"page (http://127\.0\.0\.1:\d+/) +name desk +passcode [a-z0-9]{5}(-[a-z0-9]{5}){3} *")
    said = [bare(line.split(" s  ", 1)[1]) for line in screen.after.splitlines() if " s  " in line]
    for columns, rows in ((80, 24), (40, 12)):
        drawn = [each for each in screen.pictures if len(each) == rows and len(each[-1]) == columns]
        asking = [each for each in drawn if bare(ASK) in bare(" ".join(each))]
        assert asking, screen.output[-3000:]
        text = " ".join(" ".join(asking[-1]).split())
        assert login.search(text), text
        assert re.search(rf"(SOS|BELL) \S+: open the page, log in, {ASK}", text), text
        assert all(len(line) == columns for line in asking[-1]), text
        assert bare(text).endswith(tuple(said)), "the newest line, wholly"
    assert "files of this run: " in screen.after


def test_a_bell_on_a_pole_whose_flash_is_full_is_told_among_readers_that_fail_in_other_ways(tmp_path: Path) -> None:
    """Seed 5, 30 s: reader 4 keeps nothing, reader 2 never scans, each send of reader 3 blocks for 5 s."""
    command = [
        console("ansim-sim"), "demo", "--once", "--seconds", "30", "--children", "4", "--readers", "4", "--seed", "5",
        "--no-walk-test", "--json", "out.json", "--switch", "flash=full:4",
        "--switch", "gap_scan=ENODEV,gap_scan_again=ENODEV:2", "--switch", "transmit_ms=5000@1:3",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=270, check=False)
    words = done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 0, words
    assert [(row["changes"], row["at_s"], row["reader"]) for row in report["switches"]] == [
        ("flash=full", None, 4), ("gap_scan=ENODEV,gap_scan_again=ENODEV", None, 2), ("transmit_ms=5000", 1.0, 3),
    ]  # fmt: skip
    assert [row["switches"] for row in report["readers"]] == [
        {}, {"gap_scan": "ENODEV", "gap_scan_again": "ENODEV"}, {"transmit_ms": 5000}, {"flash": "full"},
    ]  # fmt: skip
    faults = [row["faults"] for row in report["readers"]]
    assert faults[0] == [], "it has no switches"
    assert "boot" in faults[3], "its boot number is drawn, because flash keeps none"
    assert [row["boots"] for row in report["readers"]] == [1, 1, 1, 1], "none of this resets a reader"
    (bell,) = report["bell"]
    (sos,) = report["sos"]
    assert bell["who"] == "bell04"
    assert bell["press_to_gateway_ms"] < 5000, words
    assert bell["lamp_received_by"].endswith("reader 4"), words
    assert bell["lamp_help_by"].endswith("reader 4"), words
    assert not sos["lamp_received_by"].endswith("reader 2"), "it hears nobody"
    assert bell["incidents"] == sos["incidents"] == 1
    assert "pole 4 beeps, flashes twice and pauses: help is coming" in words
