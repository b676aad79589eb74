"""Boot, watchdog, flash, power cuts; the stand-ins offer no more than the device; processes end with their parent."""

import ast
import inspect
import os
import random
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from readers import build, wire
from sim.reader.flash import compile_firmware
from sim.reader.process import ReaderProcess
from tests.roots import ROOT

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street
DEVICE = ROOT / "sim" / "reader" / "device"
TYPINGS = ROOT / "firmware" / "typings"


def test_the_firmware_is_type_checked_against_the_typings_and_micropythons_library() -> None:
    command = [sys.executable, "-m", "mypy", "--config-file", "firmware/mypy.ini"]
    library = ["--custom-typeshed-dir", sysconfig.get_path("purelib")]  # micropython-stdlib-stubs unpacks there
    assert (Path(library[1]) / "stdlib" / "builtins.pyi").exists()
    done = subprocess.run([*command, *library], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _shape(node: ast.FunctionDef | ast.ClassDef) -> object:
    if isinstance(node, ast.ClassDef):
        return {n.name: _shape(n) for n in node.body if isinstance(n, ast.FunctionDef)}
    a = node.args
    plain = len(a.posonlyargs) + len(a.args)
    # Keyword parameters are compared by name; positional ones by how many there are and how many may be left out.
    named = tuple(sorted(arg.arg for arg in a.kwonlyargs))
    return plain, plain - len(a.defaults), named, a.vararg is None


def _surface(path: Path) -> dict[str, object]:
    """Return name -> shape of what a module offers: functions, classes with methods, constants."""
    found: dict[str, object] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = _shape(node)
            if isinstance(node, ast.ClassDef):
                for n in node.body:
                    if isinstance(n, ast.Assign | ast.AnnAssign):
                        target = n.targets[0] if isinstance(n, ast.Assign) else n.target
                        found[f"{node.name}.{ast.unparse(target)}"] = "constant"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found[ast.unparse(target)] = "constant"
        elif isinstance(node, ast.ImportFrom) and node.module not in ("typing", "collections.abc"):
            found |= {alias.asname or alias.name: "imported" for alias in node.names}
    return {name: shape for name, shape in found.items() if not name.startswith("_") or name == "_gap_scan"}


@pytest.mark.parametrize("name", ["xbee", "digi/ble", "machine", "os", "time", "errno", "hashlib"])
def test_a_stand_in_has_what_its_typing_has_and_no_more(name: str) -> None:
    typed, standing = _surface(TYPINGS / f"{name}.pyi"), _surface(DEVICE / f"{name}.py")
    assert set(standing) == set(typed)
    for key, shape in typed.items():
        got = standing[key]
        if "imported" in (got, shape):
            continue  # MicroPython's own sha256
        if isinstance(shape, dict) and isinstance(got, dict):
            extra = set(got) - set(shape)
            assert extra <= {"__next__"}, key  # this method makes it an iterator
            overloaded = {"value"}
            assert {m: s for m, s in got.items() if m in shape and m not in overloaded} == {
                m: s for m, s in shape.items() if m not in overloaded
            }, key
        else:
            assert got == shape, key


def test_typed_dictionaries_are_what_the_stand_ins_hand_out() -> None:
    for name, function, typed in (("xbee", "receive", "_Message"), ("digi/ble", "__next__", "_Advertisement")):
        keys = {
            tuple(ast.literal_eval(key) for key in node.keys if key is not None)
            for node in ast.walk(ast.parse((DEVICE / f"{name}.py").read_text()))
            if isinstance(node, ast.Dict)
        }
        [declared] = [
            tuple(ast.unparse(n.target) for n in node.body if isinstance(n, ast.AnnAssign))
            for node in ast.parse((TYPINGS / f"{name}.pyi").read_text()).body
            if isinstance(node, ast.ClassDef) and node.name == typed
        ]
        assert keys == {declared}, function


def run_on_device(tmp_path: Path, source: str, *, seconds: float = 60, wall_limit_s: float = 5) -> SimpleNamespace:
    """Run a main.py of our own on the bare stand-ins; return its console and the reader."""
    flash = tmp_path / "bare"
    flash.mkdir(exist_ok=True)
    (flash / "main.py").write_text(inspect.cleandoc(source))
    lines: list[str] = []
    radio = SimpleNamespace(
        on_log=lambda reader, line: lines.append(line),
        on_pin=lambda *_: None,
        on_transmit=lambda reader, now_ms, *_: reader.transmit_done(now_ms),
    )
    reader = ReaderProcess(1, flash, radio=radio, wall_limit_s=wall_limit_s)
    reader.start(0)
    while reader.wake_at_ms <= seconds * 1000:
        reader.run(reader.wake_at_ms)
    reader.stop()
    return SimpleNamespace(lines=lines, reader=reader)


MASKED = """
cryptolib ucryptolib socket usocket ssl ussl tls _thread asyncio uasyncio _asyncio select uselect vfs uctypes termios
websocket deflate framebuf random urandom re ure math cmath collections ucollections heapq uheapq requests mip argparse
platform network bluetooth ffi _host _guard
"""


def test_nothing_that_an_xbee_lacks_can_be_imported(tmp_path: Path) -> None:
    masked = MASKED.split()
    done = run_on_device(
        tmp_path,
        f"""
        found = []
        for name in {masked!r}:
            try:
                __import__(name)
                found.append(name)
            except ImportError:
                pass
        print("found", found)
        import hashlib, uhashlib, os, uos, time, utime
        print([name for name in ("md5", "sha1") if hasattr(hashlib, name) or hasattr(uhashlib, name)])
        print(os is uos, time is utime, hasattr(uos, "system"), hasattr(os, "getenv"), hasattr(time, "time_ns"))
        for name in "xbee digi.ble machine ubinascii ustruct ujson uio micropython gc usys".split():
            __import__(name)
        try:
            exec("import socket")
        except ImportError:
            print("masked in exec too")
        """,
    )
    assert done.lines == ["found []", "[]", "True True False False False", "masked in exec too"]


def test_without_exchange_time_stands_and_with_it_it_wraps(tmp_path: Path) -> None:
    done = run_on_device(
        tmp_path,
        """
        import time
        a = time.ticks_ms()
        for _ in range(1000):
            pass
        print(time.ticks_ms() - a)
        time.sleep_ms(250)
        print(time.ticks_diff(time.ticks_ms(), a), time.ticks_diff(5, 2**30 - 5), time.ticks_add(2**30 - 1, 2))
        """,
    )
    assert done.lines == ["0", "250 10 1"]


def test_the_very_files_a_technician_flashes_are_what_runs_here(tmp_path: Path) -> None:
    sizes = compile_firmware(tmp_path / "flash")
    artifacts = {artifact.name: artifact.path.read_bytes() for artifact in build.build(tmp_path / "out")}
    assert {name: (tmp_path / "flash" / name).read_bytes() for name in sizes} == artifacts
    for name, data in artifacts.items():
        assert data[:4] == b"M\x06\x00\x1f", name  # .mpy v6, no native code, 31-bit integers
    print("bytes of .mpy:", sizes, "together", sum(sizes.values()))
    assert sum(sizes.values()) < 16_640


def test_in_32_kb_with_a_full_table_and_eight_alarms_there_is_room(street: Make) -> None:
    s = street()
    tags = s.add_tags(150, period_ms=500)
    s.start()
    s.run(40)
    for tag in tags[:20]:
        s.cry(tag, seconds=2)
    s.run(80)
    beat = s.heartbeats()[-1]
    print(
        f"heap: {beat['heap_used']} bytes used, {beat['heap_free']} free, {beat['tags']} tags, {beat['alarms']} alarms"
    )
    assert (beat["tags"], beat["alarms"]) == (128, 8)
    assert beat["heap_free"] > 3000
    assert s.reader.boots == 1
    assert s.log == []


def test_the_heap_does_not_grow_with_time(street: Make) -> None:
    s = street()
    s.add_tags(60, period_ms=400)
    s.start()
    s.run(600)
    used = [beat["heap_used"] for beat in s.heartbeats()][2:]
    assert max(used) - min(used) < 600, used


def test_the_watchdog_bites_when_the_scan_stalls(street: Make) -> None:
    s = street()
    s.add_tags(5)
    s.start()
    s.run(30)
    s.reader.scan_stalled = True
    stalled_ms = s.now_ms
    s.run(63)
    assert s.reader.causes == [4, 5]
    s.reader.scan_stalled = False
    s.run(160)  # after a watchdog's reset the scan starts two minutes later
    assert s.reader.boots == 2
    beat = next(sent for sent in s.frames(wire.HEARTBEAT) if sent.boot == 2)
    assert 60000 <= beat.at_ms - stalled_ms <= 66000
    assert s.heartbeats()[-1]["reset_cause"] == 5
    assert "watchdog: 60000 ms without progress" in s.log
    assert len(s.seen(since_ms=beat.at_ms)) == 5
    assert s.wrong == []


def test_the_watchdog_bites_when_transmit_never_returns(street: Make) -> None:
    s = street()
    s.start()
    s.run(10)
    s.latency_ms = 1e9
    s.run(180)
    assert s.reader.causes[:2] == [4, 5]


def test_a_hung_interpreter_is_found_by_the_wall_clock(tmp_path: Path) -> None:
    done = run_on_device(
        tmp_path,
        """
        import machine
        machine.WDT(timeout=60000, response=machine.HARD_RESET)
        while True:
            pass
        """,
        seconds=64,
        wall_limit_s=0.3,
    )
    assert done.reader.hangs == 2
    assert done.reader.causes[:2] == [4, 5]
    assert any("hang" in line for line in done.lines)


def test_power_cuts_at_every_step_of_flash_lose_nothing_and_count_every_boot(street: Make) -> None:
    """Power cuts at random steps of writing, with torn files: boot numbers only rise, settings are old or new."""
    s = street(seed=9)
    dice = random.Random(9)
    version, kept, last_boot = 0, 0, 0
    cuts = 0
    for _ in range(60):
        s.reader.cut_at_flash_step = dice.randrange(12)
        s.start()
        s.run(2)
        if s.reader.alive:
            version += 1
            s.downlink(wire.SETTINGS, s.settings(version))
            s.run(1)
        cuts += not s.reader.alive
        s.reader.kill()
        s.reader.cut_at_flash_step = None
        s.start()
        s.run(3)
        beat, sent = s.heartbeats()[-1], s.sent[-1]
        assert beat["settings_version"] in (kept, version), s.log
        kept = beat["settings_version"]
        assert sent.boot > last_boot
        last_boot = sent.boot
        s.reader.kill()
    assert cuts > 15
    assert s.log == []
    assert not list(s.flash_dir.glob("crash*"))


def test_a_crash_is_kept_and_repeated_crashes_burn_few_boots(street: Make) -> None:
    s = street(config="KEY = None\n")  # as if provisioning had failed
    s.start()
    s.run(3600)
    assert 8 <= s.reader.boots <= 16
    crash = (s.flash_dir / "crash").read_bytes()
    assert b"TypeError" in crash
    assert len(crash) < 260
    assert sum("Traceback" in line for line in s.log) == s.reader.boots - 1


ONCE = """import time
calls, sleep = [0], time.sleep_ms
def once(ms):
    calls[0] += 1
    if calls[0] == 9000:
        raise RuntimeError("once")
    sleep(ms)
time.sleep_ms = once
"""


def test_a_crash_after_minutes_costs_seconds(street: Make) -> None:
    s = street(config=ONCE)
    s.start()
    s.run(300)
    assert s.reader.boots == 2
    assert (s.flash_dir / "crash").read_bytes()[0] == 1
    assert any("RuntimeError: once" in line for line in s.log)
    crashed_ms = 1500 + 9000 * 20
    assert 3000 < next(sent.at_ms for sent in s.sent if sent.boot == 2) - crashed_ms < 5000
    assert s.heartbeats()[-1]["faults"] == 1 << wire.FAULTS.index("crash")
    assert s.reader.causes == [4, 3]


def test_thirty_two_thousand_boots_later_the_count_starts_again(street: Make) -> None:
    s = street()
    s.start()
    s.run(3)
    record = s.flash_dir / "boot"
    import binascii

    record.write_bytes(b"\x7f\xff" + binascii.crc32(b"\x7f\xff").to_bytes(4, "big"))
    s.reader.kill()
    s.start()
    s.run(3)
    assert s.sent[-1].boot == 1


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    program = f"""
import sys, time
sys.path[:0] = [{str(ROOT)!r}]
from pathlib import Path
from types import SimpleNamespace
from sim.reader.flash import prepare_flash
from sim.reader.process import ReaderProcess
flash = Path({str(tmp_path)!r}) / "flash"
prepare_flash(flash, 1, bytes(16))
radio = SimpleNamespace(on_log=print, on_pin=lambda *a: None, on_transmit=lambda *a: None)
reader = ReaderProcess(1, flash, radio=radio)
reader.start(0)
reader.run(1500)
print(reader._process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"process {child} outlived its parent")


def test_the_same_seed_gives_the_same_bytes(street: Make) -> None:
    def story() -> list[bytes]:
        s = street(seed=4)
        s.add_tags(20)
        s.start()
        s.run(40)
        return [sent.frame for sent in s.sent]

    assert story() == story()
