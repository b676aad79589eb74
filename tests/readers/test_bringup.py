"""`ansim-reader bringup` against a virtual module whose program really runs: the file says what the module is."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from readers.bringup import ROUNDS
from readers.build import FIRMWARE
from sim.reader.flash import prepare_flash
from sim.reader.process import ReaderProcess
from sim.reader.switches import Switches, read
from sim.xbee.module import Factory, VirtualXBee, install_code
from tests.readers.bed import EUI64, Bench, Lab

NEVER_MEASURED = {"heap_b", "flash_b", "interrupt_every_s", "interrupt_at_step", "stdin_b_s", "transmit_pct"}
"""heap_b: words of 64 bits; the others are what happens to a module, or belong to a switch that is off."""


def test_a_whole_bringup_gives_the_emulators_own_switches_and_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    result = lab.measure("--lamp", "D2", "--buzzer", "d3", "--bell", "D4")
    assert result.exit_code == 0, result.output
    found = lab.found()
    assert (found["ended"], found["before"], found["notes"]) == (True, None, [])
    assert set(found["measured"]) == {"boot", *(step for steps in ROUNDS for step in steps)}
    assert not [step for step, told in found["measured"].items() if "error" in told]
    own, switches = asdict(Switches()), found["switches"]
    assert switches.pop("boot_ms") > 0
    assert switches.pop("transmit_ms") == 30, "what a frame takes to the stick"
    assert set(own) - set(switches) == NEVER_MEASURED | {"boot_ms", "transmit_ms", "receive_queue"}
    assert {name: own[name] for name in switches} == switches
    assert lab.files() == {}
    assert {name: lab.module.settings[name] for name in ("PS", "AP", "BT", "BD")} == {
        "PS": 0,
        "AP": 0,
        "BT": 0,
        "BD": 3,
    }
    assert not lab.module.running
    assert lab.program.levels == {"D2": 0, "D3": 0}
    heard = {key: told[0] for key, told in found["measured"]["count"].items() if key.startswith("in_")}
    assert heard["in_40_ms_40"] > 90, "the phone advertises about every 105 ms"
    assert 0.1 < heard["in_20_ms_5"] / heard["in_40_ms_40"] < 0.5


def test_what_has_no_switch_is_in_the_file_too(tmp_path: Path) -> None:
    measured = Lab(tmp_path).only(
        "runtime", "errors", "codes", "clock", "stack", "nest", "modules", "interrupt", "reset", "watchdog"
    )["measured"]
    assert measured["runtime"]["mpy"] & 0xFF == 6
    assert measured["errors"]["EAGAIN"] == 7011
    assert (measured["codes"]["code_x"], measured["codes"]["code_d"]) == (["ValueError"], 8)
    assert (measured["clock"]["ticks_period"], measured["clock"]["sleep_20_50_times_ms"]) == (1 << 30, 1000)
    assert any(text.startswith("stack: ") for text in measured["stack"]["printed"])
    assert measured["stack"]["calls"] > 10
    assert measured["nest"]["depth"] == [f"probe_nest{n}" for n in range(4)]
    used = measured["nest"]["stack_b"]
    assert used == sorted(used)
    assert used[0] < used[-1]
    assert measured["modules"]["loaded"][-1] == "loop"
    assert len(measured["modules"]["free_b"]) == 1 + len(measured["modules"]["loaded"])
    assert (measured["interrupt"]["plain"], measured["interrupt"]["kbd_intr"]) == (True, False)
    assert (measured["reset"]["reset_cause"], measured["watchdog"]["reset_cause"]) == (3, 5)


CASES: dict[str, tuple[Switches, list[str], dict[str, Any]]] = {
    "another module": (
        Switches(gc_threshold=True, kbd_intr=False, watchdog=False, atcmd="bytes", pins_refused="D10,P1"),
        ["names", "pins", "atcmd"],
        {},
    ),
    "raises": (Switches(atcmd="raises", gap_advertise="EINVAL"), ["atcmd", "count"], {}),
    "none": (Switches(atcmd="none", gap_advertise="raises"), ["atcmd", "count"], {}),
    "text": (Switches(atcmd="str"), ["atcmd"], {}),
    "bluetooth is on": (
        Switches(ble_off=False, stop_late_ms=0, scan_queue=7),
        ["cold", "scan", "stop", "count", "queue"],
        {},
    ),
    "a late stop": (Switches(stop_late_ms=120), ["stop"], {}),
    "no scan": (Switches(gap_scan="ENODEV"), ["scan", "cold"], {}),
    "no scan for another reason": (Switches(gap_scan="raises"), ["scan"], {}),
    "one scan": (Switches(gap_scan_again="EALREADY"), ["scan"], {"gap_scan": "works"}),
    "a flash that keeps what it gave": (Switches(flash="never_frees"), ["flash", "wear"], {}),
    "a full flash": (Switches(flash="full"), ["flash", "wear"], {}),
    "a flash without replace": (Switches(flash="no_replace", call_ms=5), ["flash", "wear"], {}),
    "a flash without sync": (Switches(flash="no_sync"), ["flash"], {}),
    "an unreadable flash": (Switches(flash="unreadable"), ["flash"], {}),
    "a mesh that fails": (Switches(transmit="ETIMEDOUT", transmit_ms=5000), ["transmit"], {"transmit_pct": 100}),
    "a short queue": (Switches(receive_queue=3), ["receive"], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_shows_what_the_switches_were(case: str, tmp_path: Path) -> None:
    switches, steps, more = CASES[case]
    lab = Lab(tmp_path, switches, speed=60)
    told = lab.only(*steps)["switches"]
    changed = {name: value for name, value in asdict(switches).items() if value != getattr(Switches(), name)}
    assert told.items() >= changed.items() | more.items()
    assert lab.files() == {}
    if switches.flash == "never_frees":
        assert "for good" in lab.found()["measured"]["wear"]["skipped"], "a full flash could never be flashed again"
    elif "wear" in steps and switches.flash != "full":
        assert lab.found()["measured"]["wear"]["saved"][-1][0] == 300


def test_the_firmware_is_loaded_as_its_own_main_does() -> None:
    probe, main = ((FIRMWARE / name).read_text() for name in ("probe.py", "main.py"))
    [order] = re.findall(r'"(config [a-z ]+)"\.split', probe)
    assert f'"{order}".split()' in main


def test_shares_of_advertisements_without_payload_or_address(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Switches(payload_none_pct=20, address_none_pct=50), speed=60)
    assert lab.measure("--only", "count", "--seconds", "60").exit_code == 0
    told = lab.found()["switches"]
    assert 12 < told["payload_none_pct"] < 30
    assert 38 < told["address_none_pct"] < 62


def test_the_file_makes_an_emulated_reader(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Switches(gc_threshold=True, ble_off=False, stop_late_ms=90))
    lab.only("names", "cold", "scan", "stop")
    switches = read(lab.out)
    assert (switches.gc_threshold, switches.ble_off, switches.stop_late_ms) == (True, False, 90)
    sent: list[bytes] = []

    def on_transmit(reader: ReaderProcess, now_ms: float, payload: bytes, endpoints: object) -> None:
        sent.append(payload)
        reader.transmit_done(now_ms)

    world = SimpleNamespace(on_log=print, on_pin=lambda *_: None, on_transmit=on_transmit)
    prepare_flash(tmp_path / "reader", 7, bytes(16))
    reader = ReaderProcess(7, tmp_path / "reader", radio=world, switches=switches, wall_limit_s=30)
    reader.start(0)
    while reader.wake_at_ms < 20_000:
        reader.run(reader.wake_at_ms)
    assert reader.heartbeat is not None
    assert reader.heartbeat["faults"] == 0
    reader.stop()
    assert sent


def test_a_step_measured_alone_joins_what_the_file_has(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.only("names")
    lab.program.switches = replace(lab.program.switches, transmit="EIO")
    found = lab.only("outage")
    assert {"names", "outage"} <= set(found["measured"])
    assert len(found["measured"]["outage"]["sent"]) == 20
    assert found["measured"]["outage"]["sent"][0][1] == ["OSError", 7005]
    assert "transmit" not in found["switches"], "an outage is no property of the module"


def test_sends_while_it_scans_are_measured_for_each_duty(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    found = lab.only("duty")
    told = {key: value for key, value in found["measured"]["duty"].items() if key.startswith("in_")}
    assert list(told) == ["in_20_ms_0", "in_20_ms_5", "in_16_ms_7", "in_10_ms_5", "in_20_ms_10", "in_20_ms_20"]
    assert all(failed == 0 and mean_ms <= slowest_ms for failed, mean_ms, slowest_ms in told.values())
    assert "duty" not in {step for steps in ROUNDS for step in steps}, "it needs a network"


def test_a_module_outside_any_network_says_so_and_sets_no_switch_of_sending(tmp_path: Path) -> None:
    found = Lab(tmp_path, joined=False).only("transmit")
    assert found["measured"]["transmit"]["sent"][0][1] == ["OSError", 7107]
    assert "transmit" not in found["switches"]
    assert found["module"]["at"]["AI"] == "22"


def test_no_secret_is_in_the_file_or_shown(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    result = lab.measure("--only", "names")
    code = install_code(bytes.fromhex(EUI64)).hex()
    shown = (result.output + lab.out.read_text() + lab.log.read_text()).lower()
    assert EUI64 in shown
    assert code[:32] not in shown


def test_a_flashed_reader_stays_the_reader_it_was(flashed: Bench) -> None:
    """Its program is stopped, nothing of it is changed, and it runs again."""
    before, settings = flashed.on_module(), dict(flashed.module.settings)
    lab = Lab(flashed.folder)
    (lab.flash / "main.py").write_text("import app")
    result = lab.measure("--only", "names", "--only", "modules", "--firmware", str(flashed.firmware))
    assert result.exit_code == 0, result.output
    assert lab.found()["measured"]["modules"]["error"] == ["ImportError"], "the bench's program is none of ours"
    assert lab.files() == before | {"main.py": b"import app"}
    assert lab.module.settings == settings
    assert lab.module.running


def test_a_module_with_another_program_keeps_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (lab.flash / "wire.mpy").write_bytes(b"older")
    found = lab.only("modules", "names")
    assert found["measured"]["modules"]["skipped"] == "the module has another wire.mpy"
    assert "modules: not measured: the module has another wire.mpy" in found["notes"]
    assert lab.files() == {"wire.mpy": b"older"}


def test_the_time_from_power_to_the_program(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Switches(boot_ms=1200), speed=1)
    lab.only("runtime", "modules")  # two starts; in the first, this machine compiles the stand-ins
    assert 1150 < lab.found()["switches"]["boot_ms"] < 2500


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "everything"], "there is no step 'everything'"),
        (["--lamp", "D8"], "lamp pin 'D8'"),
        (["--saves", "99999"], "saves 99999: give 10 to 5000"),
    ],
)
def test_a_wrong_option_touches_nothing(options: list[str], words: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    result = lab.measure(*options)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert lab.module.counts["WR"] == 0


def test_a_file_of_another_module_is_not_overwritten(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    rows = {"module": {"eui64": "0" * 16}, "before": None, "measured": {}, "boot_s": None}
    for text, words in ((json.dumps(rows), "is of module 0000000000000000"), ("{}", "is no file of a bring-up")):
        lab.out.write_text(text)
        result = lab.measure("--only", "names")
        assert result.exit_code == 2
        assert words in " ".join(result.output.replace("│", " ").split())
        assert lab.out.read_text() == text


def test_a_module_with_other_firmware_is_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.module = VirtualXBee(tmp_path / "module", Factory(vr=0x2014), guard_s=0.02)
    result = lab.measure()
    assert result.exit_code == 4
    assert not lab.out.exists()
