"""Measures a module that has Digi's ZigBee firmware: `ansim-reader bringup`.

    prepare   stop its program; keep what it has of PS, AP, BT, BD and main.py; send the measuring programs
    rounds    write a plan and a starter, main.py; PS=1; restart; read what the program prints until it ends
    put back  remove all that was sent, its own main.py and settings again, restart

The starter removes itself, so after whatever happens the second restart is the module's own program again. Only lines
that the program prints are needed (AP=4 makes the serial line its output): neither a prompt nor a raw REPL.
A step that hangs or resets the module costs its own result; the module is restarted with the steps that are left.
What must be put back is in `Gathered.before`, which the caller keeps on disk from the first change on.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from readers.build import FIRMWARE, PER_READER, START, Artifact, compile_source
from readers.files import BadFile, bytes_of, printable, table_of
from readers.flash import BLOCK_B, PUT_TRIES_MAX, ROOT, Files, SayStep, TransferFailed, bundled_b
from readers.line import BAUDS, CommandRefused, LineError, SerialLine
from readers.provision import BAUD_115200, PINS, BadPin, CommandUnknown, Module
from readers.transcript import Transcript
from readers.verdict import lost_by_saving, notes, switches_of

STARTER = "main.py"
KEPT = "main.kept"  # the module's own main.py meanwhile
PLAN = "probe_plan.py"
NESTS = 4
OTHER_PINS = ("P5", "P6", "P7", "P8", "P9")  # said to be no pins of MicroPython: only their names are tried
STARTER_TEXT = b"""# Of `ansim-reader bringup`. It removes itself when it ends.
import gc
gc.collect()
free = gc.mem_free()
import probe
probe.begin(free)
"""
CONFIG_TEXT = b'READER = 0\nKEY = bytes(16)\nCOMPANY_ID = 0xFFFF\nBELLS = ()\nLAMP = BUZZER = ""\n'
"""For a module that is no reader: our program loads with it and drives no pin."""
AT_ASKED = ("VR", "HV", "%R", "PYV", "NI", "AI", "NP", "%V", "TP", "BL", "BT", "AP", "BD", "PS")
SETTINGS = {"AP": "4", "BT": "1", "BD": f"{BAUD_115200:X}"}
"""What the programs need; PS is written last."""
BD_9600 = "3"
FIRST_SAVES = 24
"""So many saves show whether flash gives space back; only then come the others."""

ROUNDS: tuple[tuple[str, ...], ...] = (
    ("runtime", "names", "errors", "codes", "pins", "wired", "atcmd", "clock", "stack"),
    ("scan", "stop", "count", "queue", "transmit"),
    ("cold", "nest", "interrupt"),
    ("modules",),
    ("flash",),
    ("wear",),
    ("reset",),
    ("watchdog",),
)
"""The steps of one start each. cold must be the first use of Bluetooth, modules has the heap for itself."""
BY_HAND = ("outage", "receive", "duty")
"""Steps that need a person at the stick, or a network: done only with `only`."""
ORDERS = {
    "outage": "the stick should be unplugged now",
    "receive": "send 12 frames to this module within 15 s",
    "wired": "lamp flickers, buzzer beeps; then press the bell a few times within 5 s",
}
PARTS = "probe_parts"
PLACES = {
    **dict.fromkeys(("scan", "stop", "count", "queue", "transmit", "cold", *BY_HAND), "probe_radio"),
    "modules": "probe",
    "nest": "probe",
}
"""The file of each step that is not in PARTS."""


class ProgramSilent(LineError):
    """The measuring program never said a word: PS=1 does not start main.py, or AP=4 does not print."""

    def __init__(self, port: str, quiet_s: float) -> None:
        super().__init__(
            f"the module on {port} answers commands, but no program spoke for {quiet_s:.0f} s after the restart; "
            "restart it by hand with a terminal open (docs/runbooks/first_reader.md) and report what it prints"
        )


@dataclass(frozen=True)
class Wishes:
    """What to measure and how long. Raises ValueError.

    only: these steps, empty: all but BY_HAND. lamp, buzzer, bell: pins that a person wired, "" for none; others are
    never driven. saves: writes of one record to flash. long: send one frame of 67 bytes too, which the mesh fragments.
    """

    only: tuple[str, ...] = ()
    seconds: int = 10
    saves: int = 300
    transmits: int = 5
    long: bool = False
    lamp: str = ""
    buzzer: str = ""
    bell: str = ""
    silence_s: float = 45.0

    def __post_init__(self) -> None:
        known = [step for steps in ROUNDS for step in steps] + list(BY_HAND)
        for step in self.only:
            if step not in known:
                raise ValueError(f"there is no step {step!r}; there are {', '.join(known)}")
        pads: list[str] = []
        for use, pin in (("lamp", self.lamp), ("buzzer", self.buzzer), ("bell", self.bell)):
            if pin and pin not in PINS:
                raise BadPin(use, pin)
            pads += [{"D10": "P0", "D11": "P1", "D12": "P2"}.get(pin, pin)] if pin else []
        if len(set(pads)) != len(pads):  # it would drive an output against a pressed button
            raise ValueError(f"pins {', '.join(pads)}: one pin, two uses (D10 is P0, D11 is P1, D12 is P2)")
        for name, low, high in (("seconds", 1, 600), ("saves", 10, 5000), ("transmits", 1, 100)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} {getattr(self, name)}: give {low} to {high}")

    def rounds(self) -> list[list[str]]:
        """Return the wanted steps of each start of the module."""
        usual = [step for steps in ROUNDS for step in steps if step != "wired" or self.lamp or self.buzzer or self.bell]
        chosen = self.only or usual
        wanted = [[step for step in steps if step in chosen] for steps in (*ROUNDS, *((step,) for step in BY_HAND))]
        return [steps for steps in wanted if steps]

    def steps(self) -> list[str]:
        return [step for steps in self.rounds() for step in steps]


@dataclass
class Before:
    """What the module was: its settings, its name, whether main.py is KEPT now, and the files that it got from us."""

    settings: dict[str, str] = field(default_factory=dict)
    name: str = ""
    kept: bool = False
    sent: list[str] = field(default_factory=list)


@dataclass
class Gathered:
    """What the file of a bring-up is made of. before: what must be put back. ended: all that was wanted is here."""

    told: dict[str, str | None] = field(default_factory=dict)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    before: Before | None = None
    boot_s: float | None = None
    ended: bool = False


class BringUp:
    """One module on one line, in command mode. `keep` is called whenever `gathered` changed."""

    def __init__(
        self,
        line: SerialLine,
        module: Module,
        wishes: Wishes,
        gathered: Gathered,
        say: SayStep,
        keep: Callable[[], None],
    ) -> None:
        self.line, self.module, self.wishes, self.gathered = line, module, wishes, gathered
        self.say, self.keep = say, keep
        self.files = Files(line, module)

    def run(self, artifacts: Sequence[Artifact]) -> None:
        """Measure, and put the module back. artifacts: the reader's program, for the step `modules`.

        Raises LineError, TransferFailed, ReaderRefused; `say` reports whether the module could be put back.
        """
        self._identify()
        try:
            self._prepare(artifacts)
            for steps in self.wishes.rounds():
                self._round(steps)
        except BaseException:
            self._put_back_or_say_how()
            raise
        self.gathered.ended = True
        self._put_back()

    # ---- before and after ----

    def _identify(self) -> None:
        for command in AT_ASKED:
            try:
                self.gathered.told[command] = self.line.ask(command)
            except CommandRefused:
                self.gathered.told[command] = None
        try:
            self.gathered.told["PYB"] = str(bundled_b(self.line, self.module))
        except CommandUnknown:
            self.gathered.told["PYB"] = None

    def _prepare(self, artifacts: Sequence[Artifact]) -> None:
        told, old = self.gathered.told, self.gathered.before
        before = Before({name: told[name] or "0" for name in (*SETTINGS, "PS")}, told["NI"] or "")
        same = old is not None and old.name == before.name
        if old is not None and same:
            self.say("bringup", "a bring-up of this module did not end: what it kept will be put back")
            before = old
        elif old is not None:  # flashed as a reader since, say: what it is now is what it must be again
            before.sent = [name for name in old.sent if _is_probe(name)]
        self.gathered.before = before
        self.keep()
        self._stop()
        names = self.files.names(ROOT)
        if KEPT in names and not before.kept:
            if old is None:
                raise TransferFailed(
                    f"{ROOT}/{KEPT} is the module's main.py from before a bring-up that did not end; give its file "
                    f"with --out, or remove it in a terminal: ATFS RM {ROOT}/{KEPT}"
                )
            self.files.remove(f"{ROOT}/{KEPT}")
        elif STARTER in names and not before.kept and not self._is_starter():
            before.kept = True
            self.keep()
            self.files.move(f"{ROOT}/{STARTER}", f"{ROOT}/{KEPT}")
        with TemporaryDirectory(prefix="ansim-") as folder:
            self._send_tools(Path(folder))
            if "modules" in self.wishes.steps():
                self._send_firmware(Path(folder), artifacts)
        for name, value in SETTINGS.items():
            self.line.ask(f"{name}{value}")
        self.line.ask("WR")
        self.line.restart(BAUDS[0])

    def _is_starter(self) -> bool:
        return self.files.sha256(f"{ROOT}/{STARTER}") == sha256(STARTER_TEXT).hexdigest()

    def _send_tools(self, folder: Path) -> None:
        self.say("bringup", "sending the measuring programs")
        steps = self.wishes.steps()
        for name in sorted({"probe", *(PLACES.get(step, PARTS) for step in steps)}):
            compile_source(FIRMWARE / f"{name}.py", folder / f"{name}.mpy", f"{name}.py")
            self._put(folder / f"{name}.mpy")
        if "nest" in steps:
            for n in range(NESTS):
                path = folder / f"probe_nest{n}.mpy"
                compile_source(FIRMWARE / "probe_nest.py", path, path.with_suffix(".py").name)
                self._put(path)

    def _send_firmware(self, folder: Path, artifacts: Sequence[Artifact]) -> None:
        """Send what of the reader's program is not there. A module with another program keeps it, unmeasured."""
        there = self.files.names(ROOT)
        wanted = [artifact for artifact in artifacts if artifact.name != START]
        stale = [
            artifact.name
            for artifact in wanted
            if artifact.name in there and self.files.sha256(f"{ROOT}/{artifact.name}") != artifact.sha256
        ]
        missing = [artifact.path for artifact in wanted if artifact.name not in there]
        need_b, free_b = sum(_blocks_b(path) for path in missing), self.files.free_b()
        why = f"the module has another {', '.join(stale)}" if stale else ""
        if free_b is not None and free_b < need_b + 8 * BLOCK_B:
            why = f"the flash has {free_b} bytes free, our program takes {need_b}"
        if why:
            self.gathered.measured["modules"] = {"skipped": why}
            return
        if PER_READER not in there:
            (folder / PER_READER).write_bytes(CONFIG_TEXT)
            missing.append(folder / PER_READER)
        if missing:
            self.say("bringup", f"sending {len(missing)} files of the reader's program, to see what they take")
        for path in missing:
            self._put(path)

    def _put(self, path: Path) -> None:
        """Send a file, next to nothing of the same name, and note that it is ours."""
        assert self.gathered.before is not None
        target, digest, why = f"{ROOT}/{path.name}", sha256(path.read_bytes()).hexdigest(), ""
        if path.name not in self.gathered.before.sent:
            self.gathered.before.sent.append(path.name)
            self.keep()
        for _ in range(PUT_TRIES_MAX):
            if path.name in self.files.names(ROOT):
                self.files.remove(target)
            try:
                self.files.put(path, target)
                if self.files.sha256(target) == digest:
                    return
                why = "its SHA-256 on the module is another"
            except TransferFailed as error:
                why = str(error)
                self.line.cancel()
        raise TransferFailed(f"{path.name} failed {PUT_TRIES_MAX} times: {why}; try another cable or USB port")

    def _put_back(self) -> None:
        before = self.gathered.before
        if before is None:
            return
        self.say("bringup", "putting the module back as it was")
        self._stop()
        there = self.files.names(ROOT)
        if STARTER in there and self._is_starter():
            self.files.remove(f"{ROOT}/{STARTER}")
        if KEPT in there and before.kept:
            self.files.move(f"{ROOT}/{KEPT}", f"{ROOT}/{STARTER}")
        for name, value in before.settings.items():
            self.line.ask(f"{name}{value}")
        self.line.ask("WR")
        # Files of the reader's program stay where there is a main.mpy: it may need them.
        ours = {PLAN, *(name for name in before.sent if _is_probe(name) or START not in there)}
        for name in sorted((ours - {STARTER}) & there):
            try:
                self.files.remove(f"{ROOT}/{name}")
            except TransferFailed as error:
                self.say("bringup", f"{name} stays on the module, where it does no harm: {error}")
        self.line.restart(BAUDS[1] if before.settings["BD"] == BD_9600 else BAUDS[0])
        self.line.leave()
        self.gathered.before = None
        self.keep()

    def _put_back_or_say_how(self) -> None:
        try:
            self.line.port.expect_silence()
            self.line.open()
            self._put_back()
            self.say("bringup", "stopped; the module is as it was")
        except (LineError, TransferFailed) as error:
            self.say("bringup", f"stopped, and the module could not be put back: {error}")
            self.say("bringup", "run the same command again: the file has what the module was; or flash it as a reader")

    # ---- a round: one start of the module ----

    def _round(self, steps: list[str]) -> None:
        measured = self.gathered.measured
        saves, saving = 0, next((step for step in ("flash", "wear") if step in steps), "")
        if saving == "flash":
            free_b = self.files.free_b()
            saves = FIRST_SAVES if free_b is None else max(min(FIRST_SAVES, free_b // BLOCK_B // 2 - 4), 1)
        if saving == "wear":
            saves = self.wishes.saves
            if why := self._wear_would_harm():
                measured["wear"] = {"skipped": why}
                return
        if steps == ["modules"] and "skipped" in measured.get("modules", {}):
            return
        while steps:
            self.say("bringup", f"measuring {', '.join(steps)}")
            free_before_b = self._load(steps, saves)
            steps = self._listen(steps)
            if saving in measured:
                measured[saving] |= {
                    "saves": saves,
                    "free_before_b": free_before_b,
                    "free_after_b": self.files.free_b(),
                }
            self.keep()

    def _wear_would_harm(self) -> str:
        """Return why many saves must not be done: the flash may be full afterwards, for good."""
        told = self.gathered.measured.get("flash", {})
        lost_b = lost_by_saving(self.gathered.measured)
        if lost_b is None:
            return "the module does not say how much flash is free"
        if "error" in told or "stopped" in told or told.get("write", 0) is not None:
            return "the flash refused a save"
        if lost_b > BLOCK_B * told["saves"] / 2:
            return f"{told['saves']} saves used up {lost_b} bytes of flash for good"
        return ""

    def _load(self, steps: list[str], saves: int) -> int | None:
        """Write plan and starter. Return the free space then."""
        wishes = self.wishes
        values = {
            "STEPS": " ".join(_place(step) for step in steps),
            "PINS": " ".join((*PINS, *OTHER_PINS)),
            "LAMP": wishes.lamp,
            "BUZZER": wishes.buzzer,
            "BELL": wishes.bell,
            "SECONDS": wishes.seconds,
            "SAVES": saves,
            "TRANSMITS": wishes.transmits,
            "LONG": wishes.long,
        }
        with TemporaryDirectory(prefix="ansim-") as folder:
            for name, content in (
                (PLAN, "".join(f"{key} = {value!r}\n" for key, value in values.items()).encode()),
                (STARTER, STARTER_TEXT),
            ):
                path = Path(folder) / name
                path.write_bytes(content)
                self._put(path)
        return self.files.free_b()

    def _listen(self, steps: list[str]) -> list[str]:
        """Start the module, and read what its program prints. Return the steps that are still to be done."""
        self.line.ask("PS1")
        self.line.ask("WR")
        self.line.ask("FR")
        self.line.port.expect_silence()
        transcript, quiet_s = Transcript(), self.wishes.silence_s + self.wishes.seconds
        started_s, heard_s = time.monotonic(), time.monotonic()
        clean = True
        while not transcript.ended:
            data = self.line.port.read(256)
            if data:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > quiet_s:
                clean = False
                break
            for key, value in transcript.receive_data(data):
                self._follow(transcript, key, value, started_s)
            if transcript.lost_to is not None and len(transcript.boots) > 2:
                clean = False  # it begins again and again: its plan could not be removed
                break
        self._take(transcript, steps, quiet_s)
        if not transcript.boots and "boot" not in self.gathered.measured:
            raise ProgramSilent(self.line.port.name, quiet_s)
        done = [step for step in steps if step in transcript.steps]
        self.line.port.expect_silence()
        self.line.open()
        if not clean:
            self._stop()
        return [step for step in steps if step not in done] if transcript.boots else []

    def _follow(self, transcript: Transcript, key: str, value: Any, started_s: float) -> None:
        if key == "boot" and len(transcript.boots) == 1:
            took_s = time.monotonic() - started_s
            self.gathered.boot_s = min(took_s, self.gathered.boot_s or took_s)
            cause, ticks_ms, free_b = value
            self.gathered.measured.setdefault("boot", {"reset_cause": cause, "ticks_ms": ticks_ms, "free_b": free_b})
        elif key == "step" and (order := ORDERS.get(str(value).rpartition(".")[2])):
            self.say("bringup", order)
        elif key == "ready":
            self.line.port.write(b"\x03")
            self.line.port.flush()
            self.line.port.expect_silence()
        self.line.log(f"{key} {value}")

    def _take(self, transcript: Transcript, steps: list[str], quiet_s: float) -> None:
        measured = self.gathered.measured
        if transcript.running and transcript.lost_to is None:
            transcript.steps[transcript.running]["lost_s"] = quiet_s
        for step in steps:
            if step in transcript.steps:
                measured[step] = transcript.steps[step]
            elif not transcript.boots:
                measured[step] = {"not_started": True}
        if "count" in transcript.steps:
            measured["count"]["seconds"] = self.wishes.seconds

    # ---- the module ----

    def _stop(self) -> None:
        """Restart the module without a program: what ran may have armed a watchdog."""
        self.line.ask("PS0")
        self.line.ask("WR")
        self.line.restart(self.line.baud)


def _place(step: str) -> str:
    """Return where the module finds a step: "file.function"."""
    return f"{PLACES.get(step, PARTS)}.{step}"


def _is_probe(name: str) -> bool:
    return name.startswith("probe")


def _blocks_b(path: Path) -> int:
    return -(-path.stat().st_size // BLOCK_B) * BLOCK_B


def _before(raw: Any) -> Before:
    """Raises TypeError or ValueError: by these values a module is put back."""
    before = Before(**raw)
    texts = [*before.settings, *before.settings.values(), *before.sent, before.name]
    if not (isinstance(before.sent, list) and type(before.kept) is bool and all(type(each) is str for each in texts)):
        raise ValueError("what the module was before is not in it")
    return before


class ReportFile:
    """The one file of a bring-up. It is written anew at every change, so that it says what must be put back."""

    def __init__(self, path: Path, module: Module) -> None:
        self.path, self.module = path, module

    def read(self, *, go_on: bool) -> Gathered:
        """Return what an earlier run left in the file: what must be put back, and if `go_on` its values too.

        Raises ValueError if the file is of another module, or none of a bring-up.
        """
        try:
            rows = table_of(bytes_of(self.path))
            eui64, before, measured = rows["module"]["eui64"], rows["before"], rows["measured"]
            found = Gathered(before=_before(before) if before else None, boot_s=rows["boot_s"] if go_on else None)
            list(notes(measured, {}))
            switches_of(measured, joined=False, boot_s=found.boot_s)
        except FileNotFoundError:
            return Gathered()
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError) as error:
            why = error if isinstance(error, BadFile) else repr(error)
            raise ValueError(
                f"{self.path} is no file of a bring-up ({printable(str(why), 200)}); give another --out"
            ) from error
        if eui64 != self.module.eui64.hex():
            said = printable(str(eui64), 40)
            raise ValueError(f"{self.path} is of module {said}, this is {self.module.eui64.hex()}; give another --out")
        found.measured = measured if go_on else {}
        return found

    def notes(self, gathered: Gathered) -> list[str]:
        return list(notes(gathered.measured, gathered.told))

    def write(self, gathered: Gathered) -> None:
        """Replace the file. It holds neither install code nor key."""
        joined = int(gathered.told.get("AI") or "FF", 16) == 0
        rows = {
            "module": {"eui64": self.module.eui64.hex(), "at": gathered.told},
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "ended": gathered.ended,
            "before": gathered.before and asdict(gathered.before),
            "boot_s": gathered.boot_s,
            "measured": gathered.measured,
            "switches": switches_of(gathered.measured, joined=joined, boot_s=gathered.boot_s),
            "notes": self.notes(gathered),
        }
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(json.dumps(rows, indent=1, default=lambda value: value.hex()) + "\n", "utf-8")
        os.replace(fresh, self.path)
