"""Puts the firmware and the settings on a reader over its serial port, reads both back, and compares.

    probe    which module is connected? (`refuse` then decides whether it can become a reader)
    flash    stop its program (PS=0, restart) -> send new files next to the old ones, check each by SHA-256 -> erase
             bundled code -> exchange the names -> check again -> settings -> PS=1, WR, restart
    verify   read every file's SHA-256, every setting and the size of bundled code from the restarted module
    (then `readers.joining`: has it joined its network?)

A file that is there already is not sent again. So a second run changes nothing, and an interrupted one continues where
it stopped. Until the names are exchanged the old program stays complete, and a failure starts it again unless it was
off before. A failure during the exchange, or after `full` erased the files, leaves the reader off (PS=0): no program is
better than parts of two. A failure after the exchange was checked starts the new program.
Bundled code is what somebody's os.bundle() stored in the module. MicroPython prefers it to files, and no upload and no
formatting touches it: an old one would run for ever.
The module is restarted to stop its program, not only interrupted, because an interrupted program no longer feeds its
watchdog, which would then reset the module in the middle of an upload.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from readers.build import PER_READER, START, Artifact
from readers.line import BAUDS, CommandRefused, LineError, SerialLine
from readers.provision import (
    XBEE3_HV,
    CommandUnknown,
    Module,
    WantedReader,
    join_text,
    leaves_network,
    plan,
    public_key_text,
    refuse,
    same,
    wanted_settings,
)
from readers.terminal import progress

ROOT = "/flash"
PUT_TRIES_MAX = 3
BLOCK_B = 2048  # space is counted in whole blocks; unverified for the module, a generous guess
TEMPORARY = ".new"

SayStep = Callable[[str, str], None]  # (step, what happens now)

logging.getLogger("digi").addHandler(logging.NullHandler())  # its tracebacks are not for a technician


class TransferFailed(Exception):
    """A file could not be sent to the reader, read, renamed or removed there."""


class VerifyFailed(Exception):
    """The reader differs from the wanted state. `differences` has one line for each difference."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__(f"{len(differences)} differences: {'; '.join(differences)}. Flash it again")
        self.differences = differences


class Files:
    """The reader's file system, through Digi's client (digi-xbee) on the port of the line, in command mode.

    Digi's client expects an XBee object in API mode, and would change the module to get one. It needs only six
    names of that object, so this class provides them.
    """

    is_open = False

    def __init__(self, line: SerialLine, module: Module) -> None:
        from digi.xbee.filesystem import FileSystemException, LocalXBeeFileSystemManager
        from digi.xbee.models.hw import HardwareVersion
        from digi.xbee.models.protocol import XBeeProtocol

        self.line = line
        self.serial_port = line.port
        self._error: type[Exception] = FileSystemException
        self._hardware = HardwareVersion.get(module.hv >> 8)
        self._firmware = module.vr.to_bytes(2, "big")
        self._protocol = XBeeProtocol.ZIGBEE
        self._client: Any = LocalXBeeFileSystemManager(self)
        with self._explained("open the file system"):
            self._client.connect()

    def get_hardware_version(self) -> Any:
        return self._hardware

    def get_firmware_version(self) -> bytes:
        return self._firmware

    def get_protocol(self) -> Any:
        return self._protocol

    def is_remote(self) -> bool:
        return False

    def names(self, folder: str) -> set[str]:
        """Return the names of the files in a folder, in lower case (the reader ignores case). No folder: empty."""
        try:
            return {entry.name.lower() for entry in self._client.list_directory(folder) if not entry.is_dir}
        except self._error as error:
            if "ENOENT" in str(error):
                return set()
            raise TransferFailed(f"cannot list {folder}: {error}") from error

    def sha256(self, path: str) -> str:
        with self._explained(f"read the SHA-256 of {path}"):
            return str(self._client.get_file_hash(path)).lower()

    def put(self, source: Path, path: str, on_percent: Callable[[float], None] | None = None) -> None:
        """Send a file. `on_percent` is told how much of it the module has, 0 to 100."""
        with self._explained(f"send {path}"):
            self._client.put_file(str(source), path, progress_callback=on_percent)

    def move(self, path: str, new_path: str) -> None:
        with self._explained(f"rename {path} to {new_path}"):
            self._client.move_element(path, new_path)

    def remove(self, path: str) -> None:
        with self._explained(f"remove {path}"):
            self._client.remove_element(path)

    def format(self) -> None:
        with self._explained("erase the file system"):
            self._client.format_filesystem()

    def free_b(self) -> int | None:
        """Return the free space in bytes, or None if the module does not report it."""
        with self._explained("read the free space"):
            info = self._client.get_usage_information()
        text = next((str(value) for name, value in info.items() if "free" in name.lower()), "")
        return int(text) if text.isdigit() else None

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (self._error, OSError) as error:
            raise TransferFailed(f"cannot {what}: {error}; run the same command again") from error


def probe(line: SerialLine, say: SayStep) -> Module:
    """Open the line, read what the module is, report and return it. Raises LineError; refuses no module."""
    baud = line.open()
    hv, vr = int(line.ask("HV"), 16), int(line.ask("VR"), 16)
    eui64 = bytes.fromhex(line.ask("SH").zfill(8) + line.ask("SL").zfill(8))
    try:
        install_code = bytes.fromhex(line.ask("I?"))
    except (CommandRefused, ValueError):
        install_code = b""  # another product, or firmware too old; `refuse` reports it
    module = Module(hv, vr, eui64, install_code, int(line.ask("AI"), 16))
    kind = XBEE3_HV.get(hv >> 8, "not an XBee 3")
    say("probe", f"module {eui64.hex()}: {kind} (HV {hv:04X}), firmware {vr:04X}, {baud} baud, {join_text(module.ai)}")
    return module


def read_settings(line: SerialLine, module: Module, reader: WantedReader) -> Module:
    """Return `module` with those settings that a reader needs, read from it. Raises CommandUnknown, which names one."""
    return replace(module, settings={wish.name: _setting(line, module, wish.name) for wish in wanted_settings(reader)})


def _setting(line: SerialLine, module: Module, name: str) -> str:
    if name == "FK":  # it is read in two parts; a module without a key may refuse both
        parts = []
        for part in ("FK1", "FK2"):
            try:
                parts.append(line.ask(part))
            except CommandRefused:
                return "0"
        return public_key_text(*parts)
    return _asked(line, module, name)


def _asked(line: SerialLine, module: Module, command: str) -> str:
    try:
        return line.ask(command)
    except CommandRefused as error:
        raise CommandUnknown(module.vr, " ".join(map(_short, command.split()))) from error


def bundled_b(line: SerialLine, module: Module) -> int:
    """Return the size of bundled code in bytes, 0 for none. Raises CommandUnknown if the module does not report it.

    ATPYB answers `bytecode: 619 bytes (hash=0x0900DBCE)` and a line with the time (XBee 3 802.15.4 guide, p. 176).
    """
    try:
        answer = " ".join(line.ask_lines("PYB"))
    except CommandRefused as error:
        raise CommandUnknown(module.vr, "PYB") from error
    found = re.search(r"([0-9]+) bytes", answer)
    if found is None:
        raise CommandUnknown(module.vr, "PYB", answer[:60])
    return int(found[1])


def flash(
    line: SerialLine,
    module: Module,
    reader: WantedReader,
    artifacts: Sequence[Artifact],
    config: bytes,
    say: SayStep,
    *,
    full: bool = False,
) -> bool:
    """Make the module the wanted reader and verify it. Return False if it already was, and nothing was changed.

    `full` erases the file system first, and the reader's boot counter with it. The module stays in command mode, so
    that it can be asked whether it joins. Raises ReaderRefused, TransferFailed, VerifyFailed, LineError; `say` reports
    in which state the reader is left.
    """
    refuse(module)
    with with_config(artifacts, config) as wanted:
        files = Files(line, module)
        module = read_settings(line, module, reader)
        changes = plan(reader, module.settings)
        size_b = bundled_b(line, module)
        stale = wanted if full else _stale(files, wanted)
        if not stale and not changes and not size_b and not _hiding_files(files, wanted):
            say("flash", f"nothing to do: {len(wanted)} files and {len(wanted_settings(reader))} settings are right")
            return False
        _Session(line, files, module, reader, say).run(wanted, stale, full, size_b)
    return True


def verify(
    line: SerialLine, module: Module, reader: WantedReader, artifacts: Sequence[Artifact], config: bytes, say: SayStep
) -> None:
    """Compare files and settings with the wanted ones. Raises VerifyFailed, which names every difference.

    The module stays in command mode, as after `flash`.
    """
    with with_config(artifacts, config) as wanted:
        _compare(line, Files(line, module), module, reader, wanted, say)


@contextlib.contextmanager
def with_config(artifacts: Sequence[Artifact], config: bytes) -> Iterator[list[Artifact]]:
    """Yield the files and this reader's config.py, main.mpy last. config.py is on disk only inside the context."""
    with TemporaryDirectory(prefix="ansim-") as folder:  # mode 0700
        path = Path(folder) / PER_READER
        path.touch(mode=0o600)
        path.write_bytes(config)
        mine = Artifact(PER_READER, path, sha256(config).hexdigest())
        yield [*(a for a in artifacts if a.name != START), mine, *(a for a in artifacts if a.name == START)]


class _Session:
    """One update of one reader. `stage`: how far it came; what a failure leaves behind depends on it.

    OLD: its files are as they were. MIXED: old and new files may both be in place, so its program must not start. NEW:
    the new files are in place and checked. SET: so are the settings, PS=1 among them, so its program starts by itself.
    """

    OLD, MIXED, NEW, SET = range(4)

    def __init__(self, line: SerialLine, files: Files, module: Module, reader: WantedReader, say: SayStep) -> None:
        self.line, self.files, self.module, self.reader, self.say = line, files, module, reader, say
        self.stage = self.OLD

    def run(self, wanted: list[Artifact], stale: list[Artifact], full: bool, size_b: int) -> None:
        was_on = self.module.settings["PS"] == "1"
        try:
            self._stop()
            if full:
                self.say("flash", "erasing the file system")
                self.stage = self.MIXED
                self.files.format()
            self._send(stale)
            self.stage = self.MIXED
            if size_b:
                self._erase_bundle(size_b)
            self._exchange(wanted, stale)
            self._set()
            _compare(self.line, self.files, self.module, self.reader, wanted, self.say)
        except BaseException:
            self._put_back(was_on)
            raise

    def _stop(self) -> None:
        self.say("flash", "stopping the reader's program")
        self.line.ask("PS0")
        self.line.ask("PY^")
        self.line.ask("WR")
        self.line.restart(self.line.baud)

    def _send(self, stale: list[Artifact]) -> None:
        self._make_room(stale)
        sizes_b = [artifact.path.stat().st_size for artifact in stale]
        with progress("sending", sum(sizes_b), in_bytes=True) as show:
            for count, (artifact, size_b) in enumerate(zip(stale, sizes_b, strict=True), 1):
                path = f"{ROOT}/{artifact.name}{TEMPORARY}"
                before_b = sum(sizes_b[: count - 1])
                if self._there(path) and self.files.sha256(path) == artifact.sha256:
                    self.say("flash", f"file {count} of {len(stale)}: {artifact.name} was sent before")
                else:
                    self.say("flash", f"file {count} of {len(stale)}: sending {artifact.name}, {size_b} bytes")
                    self._send_one(artifact, path, partial(_show_part, show, before_b, size_b))
                show(before_b + size_b)

    def _send_one(self, artifact: Artifact, path: str, on_percent: Callable[[float], None]) -> None:
        why = ""
        for _ in range(PUT_TRIES_MAX):
            if self._there(path):
                self.files.remove(path)
            try:
                self.files.put(artifact.path, path, on_percent)
                if self.files.sha256(path) == artifact.sha256:
                    return
                why = "its SHA-256 on the reader is another"
            except TransferFailed as error:
                why = str(error)
                self.line.cancel()
            self.say("flash", f"{artifact.name} did not arrive whole ({why})")
        raise TransferFailed(
            f"{artifact.name} failed {PUT_TRIES_MAX} times: {why}; try another cable or USB port, or --full"
        )

    def _make_room(self, stale: list[Artifact]) -> None:
        need_b = sum(-(-artifact.path.stat().st_size // BLOCK_B) * BLOCK_B for artifact in stale)
        free_b = self.files.free_b()
        if free_b is not None and free_b < need_b:
            raise TransferFailed(f"the reader has {free_b} bytes free and the update needs {need_b}; run with --full")

    def _exchange(self, wanted: list[Artifact], stale: list[Artifact]) -> None:
        self.say("flash", f"putting {len(stale)} files in place")
        for path in _hiding_files(self.files, wanted):
            self.say("flash", f"removing {path}, which would hide a new file")
            self.files.remove(path)
        for artifact in stale:
            path = f"{ROOT}/{artifact.name}"
            if self._there(path):
                self.files.remove(path)  # the module refuses to move to a name that exists
            self.files.move(path + TEMPORARY, path)
        wrong = [f"file {artifact.name}" for artifact in _stale(self.files, wanted)]
        if wrong:
            raise VerifyFailed(wrong)
        self.stage = self.NEW
        for folder in {_folder(artifact) for artifact in wanted}:
            for name in self.files.names(folder):
                # Sent by a run that did not finish. The program's own data may end in .new as well: it stays.
                if name.endswith((f".mpy{TEMPORARY}", f".py{TEMPORARY}")):
                    self.files.remove(f"{folder}/{name}")

    def _erase_bundle(self, size_b: int) -> None:
        self.say("flash", f"erasing {size_b} bytes of bundled code, which MicroPython would prefer to the new files")
        _asked(self.line, self.module, "PYE")
        if left_b := bundled_b(self.line, self.module):
            raise TransferFailed(f"{left_b} bytes of bundled code are left after ATPYE; run the same command again")

    def _set(self) -> None:
        changes = plan(self.reader, read_settings(self.line, self.module, self.reader).settings)
        self.say("flash", "settings: " + ", ".join(f"{change.name}={_short(change.value)}" for change in changes))
        if leaves_network(changes) and self.module.ai == 0:
            self.say("flash", "these make the reader leave its network; the gateway must admit it again")
        for change in changes:
            _asked(self.line, self.module, f"{change.name} {change.value}")
        self.line.ask("WR")
        self.stage = self.SET
        self.say("flash", "restarting the reader")
        self.line.restart(BAUDS[0])

    def _put_back(self, was_on: bool) -> None:
        try:
            self.line.cancel()
            self.say("flash", f"stopped; {self._left(was_on)}")
        except LineError as error:
            what = f"refuses AT{error.command}" if isinstance(error, CommandRefused) else "does not answer"
            self.say("flash", f"stopped, and the reader {what}: its program may be off until it has been flashed")

    def _left(self, was_on: bool) -> str:
        """Start the program again if it ran before and may run, and return in which state the reader is left."""
        if self.stage == self.MIXED:
            return "its files are incomplete or mixed: the reader's program stays off until it has been flashed"
        if self.stage == self.SET:
            self.line.ask("FR")
            return "files and settings were written, and the reader is started with them"
        if not was_on and self.stage == self.OLD:
            return "its files are as they were, and the reader's program stays off, as it was"
        if not was_on:
            return "the new files are in place, the settings are not: its program stays off until it has been flashed"
        for command in ("PS1", "WR", "FR"):
            self.line.ask(command)
        if self.stage == self.OLD:
            return "the reader is started again with the files it had"
        return "the reader is started with the new files, and some settings are still the old ones: flash it again"

    def _there(self, path: str) -> bool:
        folder, name = path.rsplit("/", 1)
        return name.lower() in self.files.names(folder)


def _compare(
    line: SerialLine, files: Files, module: Module, reader: WantedReader, wanted: list[Artifact], say: SayStep
) -> None:
    differences = [f"file {artifact.name} is missing or another" for artifact in _stale(files, wanted)]
    differences += [f"{path} hides a file of ours" for path in _hiding_files(files, wanted)]
    if size_b := bundled_b(line, module):
        differences.append(f"{size_b} bytes of bundled code hide files of ours")
    found = read_settings(line, module, reader).settings
    for wish in wanted_settings(reader):
        if not same(wish, found[wish.name]):
            differences.append(f"AT{wish.name} is {_short(found[wish.name])}, not {_short(wish.value)}")
    if differences:
        raise VerifyFailed(differences)
    say("verify", f"{len(wanted)} files and {len(found)} settings read back and right, no bundled code")


def _show_part(show: Callable[[float], None], before_b: int, size_b: int, percent: float) -> None:
    show(before_b + size_b * percent / 100)


def _short(value: str) -> str:
    return value if len(value) <= 16 else f"{value[:8]}..."


def _stale(files: Files, wanted: Sequence[Artifact]) -> list[Artifact]:
    there = {folder: files.names(folder) for folder in {_folder(artifact) for artifact in wanted}}
    return [
        artifact
        for artifact in wanted
        if artifact.name.rsplit("/", 1)[-1].lower() not in there[_folder(artifact)]
        or files.sha256(f"{ROOT}/{artifact.name}") != artifact.sha256
    ]


def _hiding_files(files: Files, wanted: Sequence[Artifact]) -> list[str]:
    """Return files that hide ours: an old x.py hides a new x.mpy from `import x`, main.py starts before main.mpy."""
    twins = {".py": ".mpy", ".mpy": ".py"}
    there = {folder: files.names(folder) for folder in {_folder(artifact) for artifact in wanted}}
    paths = []
    for artifact in wanted:
        stem, dot, suffix = artifact.name.rsplit("/", 1)[-1].rpartition(".")
        twin = stem + twins.get(dot + suffix, "/")  # "/" is never a name
        if twin.lower() in there[_folder(artifact)]:
            paths.append(f"{_folder(artifact)}/{twin}")
    return paths


def _folder(artifact: Artifact) -> str:
    return f"{ROOT}/{artifact.name}".rsplit("/", 1)[0]
