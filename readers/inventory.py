"""The folder of enrolled readers: what a gateway needs to admit them, and their keys.

    readers.json       {"<number>": {number, name, eui64, install_code, firmware, ...}}   mode 0600 (install codes)
    reader_keys.json   {"<number>": "<32 hexadecimal digits>"}                            mode 0600 (keys)
    update_key.pem     the private key that signs file system updates of all these readers mode 0600

Each is written completely to a new file, synced, then renamed. A lock file lets in one writer at a time. The folder is
the enrolment record: back it up, hand it to the gateway over a safe path, keep it out of any repository.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from readers import files
from readers.provision import KEY_SIZE, PUBLIC_KEY_SIZE, READER_MAX, BadPin, WantedReader, install_code_valid

RECORDS = "readers.json"
KEYS = "reader_keys.json"
UPDATE_KEY = "update_key.pem"
P256_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""What stands before the point of a P-256 public key in DER (RFC 5480)."""


_NUMBER, _HEX = re.compile(r"[1-9][0-9]{0,4}"), re.compile(r"(?:[0-9A-Fa-f]{2})+")


class InventoryError(Exception):
    """The inventory cannot be read, written or extended as asked. The text names the file and the next step."""


class InventoryUnusable(InventoryError):
    """This machine cannot write the inventory, or lacks what is needed for it. Its content is not in question."""


class DuplicateReader(InventoryError):
    """The number or the module is already enrolled in another way. The text names both sides."""


class NumberTaken(InventoryError):
    """Somebody else flashes a reader of this number right now."""


@dataclass(frozen=True)
class Record:
    """One enrolled reader. eui64: 16 hexadecimal digits, MSB first. install_code: 36 hexadecimal digits, a secret."""

    number: int
    name: str
    eui64: str
    install_code: str | None
    firmware: str
    module_firmware: str
    key_file: str = KEYS
    ext_pan_id: str = "0"
    channel_mask: str = "7FFF"
    company_id: str = "FFFF"
    bells: tuple[str, ...] = ("D4",)
    lamp: str = "D2"
    buzzer: str = "D3"
    flashed_at: str = ""

    def reader(self, **changed: Any) -> WantedReader:
        """Return the wanted state that this record describes, except for what `changed` says. Raises as WantedReader.

        A record of an earlier version may have a pin that is refused now: it still loads, and raises BadPin here.
        """
        told = {
            "number": self.number,
            "name": self.name,
            "ext_pan_id": int(self.ext_pan_id, 16),
            "channel_mask": int(self.channel_mask, 16),
            "company_id": int(self.company_id, 16),
            "bells": tuple(self.bells),
            "lamp": self.lamp,
            "buzzer": self.buzzer,
        }
        return WantedReader(**{**told, **changed})


_NEEDED = {one.name for one in fields(Record) if one.default is MISSING}
_TEXTS = [one.name for one in fields(Record) if one.name not in ("number", "eui64", "install_code", "bells")]


class Inventory:
    """A folder of records and keys. It is made at the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def records(self) -> dict[int, Record]:
        """Return all records by number. Raises InventoryError if the file is not what this program writes.

        One module under two numbers is refused as well: nobody could say which of the two its reader is.
        """
        path = self.folder / RECORDS
        records: dict[int, Record] = {}
        modules: dict[str, int] = {}
        for number, row in _read(path).items():
            try:
                record = _record(number, row)
                if record.eui64 in modules:
                    raise ValueError(f"module {record.eui64} is reader {modules[record.eui64]} already; remove one")
            except ValueError as error:
                raise InventoryError(
                    f"{path}, entry {files.printable(number, 40)!r}: {error}; repair it, or put back a backup of it"
                ) from error
            records[record.number], modules[record.eui64] = record, record.number
        return records

    def by_eui64(self, eui64: bytes) -> Record | None:
        """Return the record of this module, or None."""
        return next((record for record in self.records().values() if record.eui64 == eui64.hex()), None)

    def next_number(self) -> int:
        """Return the lowest number above all enrolled ones."""
        return max([0, *self.records()]) + 1

    def last_ext_pan_id(self) -> str:
        """Return the extended PAN id of the reader flashed last that has one, or "" if there is none."""
        flashed = sorted(self.records().values(), key=lambda record: record.flashed_at)
        return next(
            (record.ext_pan_id.zfill(16).lower() for record in reversed(flashed) if record.ext_pan_id != "0"), ""
        )

    def check(self, number: int, eui64: bytes, *, replace: bool = False) -> None:
        """Raise DuplicateReader if `number` belongs to another module or the module has another number.

        `replace`: the number may move to this module (the old one is broken and gone).
        """
        records = self.records()
        holder = records.get(number)
        if holder is not None and holder.eui64 != eui64.hex() and not replace:
            raise DuplicateReader(
                f"number {number} belongs to module {holder.eui64} ({holder.name or 'no name'}), "
                f"this is {eui64.hex()}; "
                f"give --number {max(records) + 1}, or --replace if the old module is gone for good"
            )
        for other in records.values():
            if other.eui64 == eui64.hex() and other.number != number:
                raise DuplicateReader(
                    f"module {eui64.hex()} is already reader {other.number} ({other.name or 'no name'}), not {number}; "
                    f"leave --number out, or `ansim-reader forget --number {other.number}` first"
                )

    @contextlib.contextmanager
    def claim(self, number: int) -> Iterator[None]:
        """Hold a number while its reader is flashed: two modules of one number would have one key.

        Raises NumberTaken. The lock is a byte of `.numbers`; it ends with the process, however that ends.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / ".numbers", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            os.close(lock)
            raise NumberTaken(
                f"reader {number} is being flashed by another run of this program with {self.folder}; wait for its "
                "end, or give another --number"
            ) from error
        try:
            yield
        finally:
            os.close(lock)

    def key(self, number: int) -> bytes | None:
        """Return the key of a reader, or None."""
        return self._keys().get(number)

    def make_key(self, number: int) -> bytes:
        """Make, save and return a new key from the operating system's random source. It replaces the old one."""
        if not 1 <= number <= READER_MAX:
            raise ValueError(f"reader number {number}: give one from 1 to {READER_MAX}")
        key = secrets.token_bytes(KEY_SIZE)
        with self._writing():
            _write(self.folder / KEYS, {each: known.hex() for each, known in {**self._keys(), number: key}.items()})
        return key

    def _keys(self) -> dict[int, bytes]:
        path = self.folder / KEYS
        keys: dict[int, bytes] = {}
        for place, (number, text) in enumerate(_read(path).items(), 1):
            if not _NUMBER.fullmatch(number):  # not shown: it may be a key
                raise InventoryError(f"{path}, entry {place}: not the number of a reader; put back a backup of it")
            if not isinstance(text, str) or not _HEX.fullmatch(text) or len(text) != 2 * KEY_SIZE:
                raise InventoryError(
                    f"{path}: the key of reader {number} is not {2 * KEY_SIZE} hexadecimal digits; put back a backup"
                )
            keys[int(number)] = bytes.fromhex(text)
        return keys

    def update_key(self) -> bytes:
        """Return the public key of file system updates, a point of P-256. Raises InventoryError if there is none."""
        path = self.folder / UPDATE_KEY
        try:
            pem = files.bytes_of(path)
            der = _openssl("ec", "-pubout", "-conv_form", "uncompressed", "-outform", "DER", given=pem)
        except FileNotFoundError as error:
            why = "flash a reader, which makes it, or put back a backup of it"
            raise InventoryError(f"there is no {path}; {why}") from error
        except (OSError, files.BadFile) as error:
            raise InventoryError(f"cannot read {path}: {error}; put back a backup of it") from error
        except subprocess.CalledProcessError as error:
            raise InventoryError(f"{path} is no key that openssl can read; put back a backup of it") from error
        head, point = der[:-PUBLIC_KEY_SIZE], der[-PUBLIC_KEY_SIZE:]
        if head != P256_HEAD:
            raise InventoryError(f"{path} is no key of the curve P-256; put back a backup of it")
        return point

    def make_update_key(self) -> bytes:
        """Make and save the key of file system updates unless there is one. Return its public part."""
        path = self.folder / UPDATE_KEY
        with self._writing():
            if not path.exists():
                try:
                    pem = _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
                except subprocess.CalledProcessError as error:
                    raise InventoryError("openssl cannot make a key of the curve P-256; install a newer one") from error
                _replace(path, pem)
        return self.update_key()

    def save(self, record: Record, *, replace: bool = False) -> None:
        """Add or replace a record. Raises DuplicateReader as `check` does."""
        record.reader()
        with self._writing():
            self.check(record.number, bytes.fromhex(record.eui64), replace=replace)
            _write(self.folder / RECORDS, _rows({**self.records(), record.number: record}))

    def forget(self, number: int) -> None:
        """Remove a reader and its key. Raises InventoryError if there is none."""
        with self._writing():
            records, keys = self.records(), self._keys()
            if number not in records and number not in keys:
                raise InventoryError(f"no reader {number} in {self.folder}; `ansim-reader list` shows all")
            records.pop(number, None)
            keys.pop(number, None)
            _write(self.folder / RECORDS, _rows(records))
            _write(self.folder / KEYS, {each: key.hex() for each, key in keys.items()})

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise InventoryUnusable(
                f"cannot write to the inventory {self.folder}: {error.strerror}; free space, or get the right to write"
            ) from error
        finally:
            os.close(lock)


def _unusable(folder: Path, error: OSError) -> InventoryUnusable:
    return InventoryUnusable(
        f"cannot write to the inventory {folder}: {error.strerror}; give another folder to --inventory"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return files.table_of(files.bytes_of(path))
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise InventoryError(f"{path.parent} is a file; give a folder to --inventory") from error
    except OSError as error:
        raise InventoryUnusable(
            f"cannot read {path}: {error.strerror}; it belongs to whoever flashed before"
        ) from error
    except files.BadFile as error:
        raise InventoryError(f"{path} is damaged: {error}; repair it there, or put back a backup of it") from error


def _record(number: str, row: Any) -> Record:
    """Raises ValueError for what this program does not write."""
    if not _NUMBER.fullmatch(number):
        raise ValueError("the entry's name is not a number, without zeros in front")
    if not isinstance(row, dict):
        raise ValueError("not a record in { }")
    if missing := _NEEDED - set(row):
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    if unknown := set(row) - {one.name for one in fields(Record)}:
        raise ValueError(
            f"it has {', '.join(files.printable(key, 40) for key in sorted(unknown))}, which no reader has"
        )
    for key in _TEXTS:
        if not isinstance(row.get(key, ""), str):
            raise ValueError(f"{key} is not text in quotes")
    bells, code = row.get("bells", []), row["install_code"]
    if not isinstance(bells, list) or any(not isinstance(value, str) for value in bells):
        raise ValueError('bells is not a list of pins, like ["D4"]')
    if type(row["number"]) is not int or row["number"] != int(number):
        raise ValueError(f"it says number {files.printable(repr(row['number']), 40)}")
    if code is not None and not (
        isinstance(code, str) and _HEX.fullmatch(code) and install_code_valid(bytes.fromhex(code))
    ):
        raise ValueError("the install code is not 16 bytes and their checksum, in hexadecimal")
    changed = {"bells": tuple(bells)} if "bells" in row else {}
    record = Record(**{**row, **changed, "eui64": files.eui64_of(row["eui64"])})
    with contextlib.suppress(BadPin):  # whoever flashes or verifies this reader is told
        record.reader()
    return record


def _rows(records: dict[int, Record]) -> dict[int, Any]:
    return {number: asdict(record) for number, record in records.items()}


def _openssl(*words: str, given: bytes = b"") -> bytes:
    """Run openssl and return what it prints. Who signs an update needs it anyway (90001539, page t_ota_process)."""
    try:
        return subprocess.run(("openssl", *words), input=given, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InventoryUnusable(f"cannot run openssl ({error}); run: sudo apt-get install openssl") from error


def _write(path: Path, rows: dict[int, Any]) -> None:
    _replace(path, json.dumps(dict(sorted(rows.items())), indent=1, ensure_ascii=False).encode() + b"\n")


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # a crash may have left one, with any mode
    fd = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
