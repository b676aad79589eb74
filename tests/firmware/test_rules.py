"""The firmware uses what an XBee 3 with MicroPython 1.20 has, and nests no deeper than its small stack allows.

The rules read the source (tests/firmware/rules.py). Each has snippets that it must refuse, and two of them are proven
on real MicroPython: how deep imports nest, and how much stack a chain of calls takes.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from readers import wire
from readers.provision import PINS, WantedReader, render_config
from sim.reader import flash
from sim.reader.switches import Switches
from tests.firmware import rules
from tests.firmware.test_device import run_on_device
from tests.roots import ROOT

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street
FIRMWARE = rules.firmware()
FRAMES_MAX = 8
"""The longest chain of calls, main.py's own frame among it. One module reported a stack of 3,584 bytes; nobody says
that each has so much, and 2,000 may be all. A frame of MicroPython 1.20 on a 32-bit ARM takes roughly 100 to 150 bytes
and its locals (an estimate): eight are about 1,200 bytes, on top of what runs main.py. Do not raise it: call less deep.
"""
SECTION = re.compile(r"^## What the module does\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def refused(source: str, module: str = "alarm", **others: str) -> str:
    """Return every complaint of the rules by reading about one module, with others of ours beside it."""
    trees = {name: rules.parse(text) for name, text in (others | {module: source}).items()}
    formats = rules.bad_formats(module, trees[module], rules.string_constants(trees))
    return "\n".join([*formats, *rules.unknown(module, trees[module], trees)])


def test_every_format_of_struct_is_one_that_micropython_1_20_reads() -> None:
    constants = rules.string_constants(FIRMWARE)
    assert {"wire.HEARTBEAT_FORMAT", "wire.SETTINGS_FORMAT"} <= set(constants)
    assert not [said for name in FIRMWARE for said in rules.bad_formats(name, FIRMWARE[name], constants)]


def test_every_name_that_the_firmware_uses_is_one_that_an_xbee_3_has() -> None:
    assert not [said for name in FIRMWARE for said in rules.unknown(name, FIRMWARE[name], FIRMWARE)]


def test_the_lists_hold_nothing_that_is_not_used() -> None:
    """Else they would allow what nobody has looked up."""
    used = {(use.kind, use.name) for name in FIRMWARE for use in rules.uses(FIRMWARE[name], FIRMWARE)}
    listed = {("builtin", name) for name in rules.BUILTINS} | {("value", name) for name in rules.VALUES}
    listed |= {("of", f"{module}.{name}") for module, names in rules.MODULES.items() for name in names}
    assert listed <= used, f"take these out of tests/firmware/rules.py: {sorted(listed - used)}"


def test_the_page_says_of_every_use_how_sure_it_is() -> None:
    found = SECTION.search((ROOT / "docs" / "FIRMWARE.md").read_text(encoding="utf-8"))
    assert found is not None
    words = set(re.findall(r"\w+", found[1]))
    uses = {use.name for name in FIRMWARE for use in rules.uses(FIRMWARE[name], FIRMWARE)}
    missing = sorted(name for name in uses if re.findall(r"\w+", name)[-1] not in words)
    assert not missing, f'not in docs/FIRMWARE.md, "What the module does": {", ".join(missing)}'
    for row in re.findall(r"^\| `.*\|$", found[1], re.MULTILINE):
        assert re.search(r"\b(documented|inferred|unknown)\b", row.split(" | ")[2]), row


def test_the_page_names_every_switch_of_the_emulator_with_its_default() -> None:
    found = SECTION.search((ROOT / "docs" / "FIRMWARE.md").read_text(encoding="utf-8"))
    assert found is not None
    for switch in dataclasses.fields(Switches):
        default = switch.default
        shown = (str(default).lower() or "none") if isinstance(default, bool | str) else f"{default:.0f}"
        assert re.search(rf"`{switch.name}` \({shown}\b", found[1]), f"`{switch.name}` ({shown})"


def test_the_page_has_a_row_for_every_fault() -> None:
    page = (ROOT / "docs" / "FIRMWARE.md").read_text(encoding="utf-8")
    assert not [name for bit, name in enumerate(wire.FAULTS) if f"| {bit} | `{name}` |" not in page]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ('import struct\nstruct.pack(">BHHHb7x", 1)', "'>BHHHb7x' has a code that MicroPython 1.20 lacks"),
        ('import struct\nstruct.calcsize(">?")', "'>?'"),
        ('import struct\nstruct.unpack(">I B", b"")', "'>I B'"),
        ('import struct\nstruct.pack(f">{1}B", 1)', "the format is no literal"),
        ("import struct\nF = 4 * 'B'\nstruct.pack(F, 1)", "the format is no literal"),
        ("import struct\nimport wire\nstruct.pack(wire.F, 1)", "'2x'"),
        ("import struct\npack = struct.pack", "the format is no literal"),
        ("from struct import pack", "import struct as a whole"),
        ("import socket", "socket is in no list"),
        ("import os\nos.statvfs('/')", "os.statvfs is in no list; if an XBee 3 has it, add it"),
        ("import machine\nmachine.Pin('D1', machine.Pin.PULL_DOWN)", "machine.Pin.PULL_DOWN"),
        ("import machine\nmachine.WDT(timeout_ms=1)", "keyword machine.WDT(timeout_ms)"),
        ("from digi import ble\nble.gap_scan(0, oldest=True)", "keyword digi.ble.gap_scan(oldest)"),
        ("from hashlib import md5", "hashlib.md5"),
        ("sum([1])", "builtin sum"),
        ("max([1], key=len)", "keyword max(key)"),
        ("b''.hex()", "a value's .hex"),
        ("import link\nlink.watchdog.deinit()", "a value's .deinit"),
        ("import config\ngetattr(config, 'SIREN', None)", "config.SIREN"),
        ("import os\ngetattr(os, 'sy' + 'nc')()", "only the running program knows"),
        ("import enum\nif TYPE_CHECKING:\n    import typing", "enum"),
    ],
)
def test_what_a_reader_has_not_is_refused(source: str, complaint: str) -> None:
    others = {"wire": "F = '2x'", "link": "watchdog = None"}
    assert complaint in refused(source, **others)


@pytest.mark.parametrize(
    "source",
    [
        'import struct\nimport wire\nstruct.pack_into(wire.F, bytearray(8), 0, 1)\nstruct.pack("<5BH", 1)',
        "import struct\nF = '19s3B'\nstruct.unpack_from(F, b'', 0)",
        "from digi import ble\nfor a in ble.gap_scan(0, interval_us=1, window_us=1):\n    pass",
        "import config\nBELLS = getattr(config, 'BELLS', ())\nmore: 'Unheard[Of]' = [config.KEY]",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import typing\ndef f(x: typing.Any) -> dict: return len(x)",
        "import link\nlink.watchdog.feed()\nlink.begin(kind=1)",
    ],
)
def test_what_a_reader_has_is_accepted(source: str) -> None:
    others = {"wire": "F = '>H'", "link": "watchdog = None\ndef begin(kind): return kind"}
    assert not refused(source, **others)


# ---- imports ----


def test_main_imports_every_module_itself_each_after_those_that_it_imports() -> None:
    order = rules.import_order(FIRMWARE["main"], {*FIRMWARE, "config"} - {"main"})
    print("main.py imports", ", ".join(order))
    assert not list(rules.nested_imports(FIRMWARE))


@pytest.mark.parametrize(
    ("main", "complaint"),
    [
        ("for name in 'config link loop'.split():\n    __import__(name)", ""),
        ("import config\nimport link\nimport loop", ""),
        ("try:\n    import config, loop, link\nfinally:\n    pass", "loop imports link, which main.py has not loaded"),
        ("import config\nimport link", "main.py does not import loop"),
        ("def run():\n    import loop\nimport config, link", "main.py does not import loop"),
    ],
)
def test_an_import_that_would_nest_is_refused(main: str, complaint: str) -> None:
    sources = {"main": main, "link": "import time\nimport config", "loop": "def f():\n    from link import g"}
    said = "\n".join(rules.nested_imports({name: rules.parse(text) for name, text in sources.items()}))
    assert complaint in said if complaint else not said


def imports(tmp_path: Path, start: str) -> dict[str, int]:
    """Return module of ours -> how many imports were under way when real MicroPython loaded it."""
    home = tmp_path / "bare"
    flash.prepare_flash(home, 7, bytes(16))
    (home / "main.mpy").rename(home / "start.mpy")
    done = run_on_device(
        tmp_path,
        f"""
        import sys
        builtins = sys.modules["_guard"].builtins
        real, ours, under_way = builtins.__import__, {[*FIRMWARE, "config", "start"]!r}, []
        def count(name, *more):
            if name not in ours or name in sys.modules:
                return real(name, *more)
            under_way.append(name)
            print("loads", name, len(under_way))
            try:
                return real(name, *more)
            finally:
                under_way.pop()
        builtins.__import__ = count
        {start}
        """,
        seconds=20,
    )
    return {line.split()[1]: int(line.split()[2]) for line in done.lines if line.startswith("loads")}


def test_on_real_micropython_no_import_of_ours_waits_inside_another(tmp_path: Path) -> None:
    depths = imports(tmp_path, "import start")
    print("imports under way:", depths)
    assert depths.pop("start") == 1  # main.py itself
    assert set(depths) == {*FIRMWARE, "config"} - {"main"}
    assert set(depths.values()) == {2}
    nested = imports(tmp_path / "nested", "import loop")
    print("without the list in main.py:", nested)
    assert max(nested.values()) >= 4


# ---- calls ----


def test_the_longest_chain_of_calls_is_no_longer_than_it_was() -> None:
    calls = rules.Calls(FIRMWARE)
    for start in ("main", "main.fail", "loop.run", "alarm"):
        chain = calls.deepest(start)
        print(f"{len(chain)} frames:", " > ".join(chain))
    assert len(calls.deepest()) <= FRAMES_MAX, " > ".join(calls.deepest())


def deepest(**sources: str) -> str:
    return " > ".join(rules.Calls({name: rules.parse(text) for name, text in sources.items()}).deepest())


@pytest.mark.parametrize(
    ("main", "a", "chain"),
    [
        ("import a\na.f()", "def f(): g()\ndef g(): h()\ndef h(): pass", "main > a.f > a.g > a.h"),
        ("from a import f\nf()", "def f(): g()\ndef g(): pass", "main > a.f > a.g"),
        ("import a\na.f(a.g)", "def f(call): call()\ndef g(): h()\ndef h(): pass", "main > a.f > a.g > a.h"),
        ("import a\na.f(call=a.g)", "def f(call): call()\ndef g(): pass", "main > a.f > a.g"),
        (
            "import a\na.hook = a.g\na.f()",
            "def hook(): 1\ndef f(): hook()\ndef g(): h()\ndef h(): 1",
            "main > a.f > a.g > a.h",
        ),
        ("import a\ndef g(): pass\na.hook = g\na.f()", "hook = None\ndef f(): hook()", "main > a.f > main.g"),
        ("for n in 'a'.split(): __import__(n)", "def f(): return 1\nx = f()", "main > a > a.f"),
        ("[f() for i in b'']\ndef f(): pass", "", "main > main.<comprehension in line 1> > main.f"),
        ("def f(): show = getattr(len, 'x'); show(); len(b'')\nf()", "", "main > main.f"),
    ],
)
def test_a_chain_of_calls_is_followed(main: str, a: str, chain: str) -> None:
    assert deepest(main=main, a=a) == chain


@pytest.mark.parametrize(
    ("main", "complaint"),
    [
        ("def f(): g()\ndef g(): f()\nf()", "main.f > main.g > main.f: recursion; use a loop"),
        ("def f(n): return n and f(n - 1)\nf(9)", "main.f > main.f: recursion"),
        ("t = [len]\nf = t[0]\nf(b'')", "main:3: nobody can see what f() runs"),
        ("import a\na.f()", "main:2: nobody can see what a.f() runs"),
        ("f = lambda: 1\nf()", "main:1: make it a plain function"),
        ("class A:\n    def f(self): pass", "main:1: make it a plain function"),
    ],
)
def test_recursion_and_calls_that_nobody_can_follow_are_refused(main: str, complaint: str) -> None:
    with pytest.raises(rules.Untraceable, match=re.escape(complaint)):
        deepest(main=main, a="f = None")


MEASURE = """
import micropython
deepest = {}


def nest(n):
    return nest(n - 1) if n else micropython.stack_use()


def measure(op):
    used = micropython.stack_use()
    if used > deepest.get(op, 0):
        deepest[op] = used
        print("stack", chr(op), used)


print("stack frame", (nest(9) - nest(1)) // 8)
"""


def test_on_real_micropython_running_takes_no_more_stack_than_the_source_says(
    street: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of 64-bit MicroPython, told by the stand-ins at each call of the module."""
    device = tmp_path / "device"
    shutil.copytree(ROOT / "sim" / "reader" / "device", device)
    host, head = device / "_host.py", 'def tell(op, a=0, data=b""):\n'
    assert head in host.read_text()
    host.write_text(host.read_text().replace(head, f"{head}    measure(op)\n") + MEASURE)
    monkeypatch.setattr(flash, "_DEVICE", device)
    s = street(switches=Switches(heap_b=64 * 1024))  # what measures takes heap as well
    tags = s.add_tags(5, period_ms=300)
    s.start()
    s.run(20)
    s.cry(tags[0])
    s.reader.pin("D4", 0)
    s.error = lambda sent: "EIO"
    s.run(20)
    s.error = lambda sent: None
    s.run(30)
    s.reader.stop()
    assert s.reader.boots == 1, s.log
    assert s.heartbeats()[-1]["faults"] == 0
    lines = [line.split()[1:] for line in s.log if line.startswith("stack")]
    used = {what: int(number) for what, number in lines}  # the last of each is its most
    frame_b = used.pop("frame")
    # W: main.py arms the watchdog; above it 2 frames of stand-ins. Of the others 3: transmit, ask, tell.
    running = {op: used[op] - used["W"] for op in "TFUCGEVRAS"}
    print(f"a frame: {frame_b} B; above main.py, by call of the module:", running)
    assert 4 * frame_b < max(running.values()) <= FRAMES_MAX * frame_b


# ---- pins ----


@pytest.mark.parametrize("first", range(len(PINS)), ids=PINS)
def test_bell_lamp_and_buzzer_work_on_every_pin_that_provisioning_allows(street: Make, first: int) -> None:
    bell, lamp, buzzer = (PINS[(first + k) % len(PINS)] for k in range(3))
    reader = WantedReader(7, bells=(bell,), lamp=lamp, buzzer=buzzer)
    s = street(config=render_config(reader, bytes(range(100, 116))).decode(), auto_stage=wire.ACKNOWLEDGED)
    s.start()
    s.run(5)
    assert s.bells() == []
    s.reader.pin(bell, 0)
    s.run(3)
    assert {(alarm, place) for _, alarm, _, _, place, _ in s.bells()} == {(1, 0)}
    assert {(name, level) for _, name, level in s.pins} == {(lamp, 0), (lamp, 1), (buzzer, 0), (buzzer, 1)}
    assert (s.heartbeats()[-1]["faults"], s.log) == (0, [])


def test_a_pin_that_the_module_refuses_is_a_fault_and_stays_untouched(street: Make) -> None:
    s = street(config='LAMP = "D5"\n', auto_stage=wire.ACKNOWLEDGED)
    s.start()
    s.run(5)
    s.reader.pin("D4", 0)
    s.run(3)
    assert "D5" not in {name for _, name, _ in s.pins}
    assert s.bells()
    assert s.heartbeats()[-1]["faults"] == 1 << wire.FAULTS.index("pins")
