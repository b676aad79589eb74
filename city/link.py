"""The seals between the city and its gateways: keys from a folder, and what came without a right one.

The broker is a postman. A message is believed only if a key of its gateway has sealed it, and every answer is sealed.
The folder has a file for each gateway, NAME.keys, made by `ansim-city gateway enrol`. A changed file is taken while the
city runs; one that cannot be used leaves the old keys in place. A file that was removed ends the trust in its gateway.

What is forged is counted and reported, never stored and never acted on. A forger chooses the names of gateways, so no
table here grows with them.
"""

import contextlib
import errno
import os
import secrets
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog

from gateway import uplink
from gateway.uplink import Ask, CityKeys, Forged, Lane, Status, TopicKind, UplinkError

CHECK_S = 1.0
QUIET_S = 600.0
"""Seconds after the last forged message, after which the page no longer reports it."""
BLAME_LOG_S = 60.0
"""Seconds between two log lines of the same misdeed of the broker: it chooses how often it does it."""
Blame = Literal["breach", "wrong_site", "bad_topic"]
GATEWAYS_MAX = 1000
"""Most key files. It is the city's limit of gateways."""
NAMED_MAX = 8
"""Most gateways that the report of forged messages names."""
FILE_MAX_B = 4096
SUFFIX = ".keys"
ASK_S = 30.0
"""Seconds between two questions to a gateway."""
ASK_AGAIN_S = 1.0
"""Seconds after which it is asked again at the earliest, when a status raises a doubt."""
ASKS_A_TURN_MAX = 50
SILENT_S = 95.0
"""A gateway that has answered nothing for so long, three questions, is shown as offline."""

log = structlog.get_logger()


class LinkError(RuntimeError):
    """A key file cannot be made, read or changed. The message says what to do."""


class Link:
    """The keys of all gateways, and the counts of what no key has sealed. Used from every thread of the city."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        """Read the folder; it may be missing. now returns seconds of any clock that never steps back."""
        self.folder = folder
        self.forged: Counter[str] = Counter()
        """Messages that were not believed: `KIND.REASON` -> how many."""
        self._now = now
        self._lock = threading.Lock()
        self._keys: dict[str, CityKeys] = {}
        self._answers: dict[str, int] = {}
        """Gateway -> number of the key of its last message: it surely has that one, so the city answers with it."""
        self._asked: dict[str, tuple[float, tuple[str, ...]]] = {}
        """Gateway -> (when it was last asked, the words of the newest two questions)."""
        self._seen: dict[str, tuple[int, ...]] = {}
        self._broken: dict[str, str] = {}
        self._checked_at = float("-inf")
        self._suspects: dict[str, tuple[float, str]] = {}
        """Gateway -> (when a message in its name was last refused, why). At most NAMED_MAX."""
        self._blamed: dict[tuple[Lane, Blame], tuple[float, float, str]] = {}
        """What the broker itself does -> (when last, when it was last logged, why)."""

    def seal(self, gateway: str, topic: str, body: bytes) -> bytes | None:
        """Return the sealed message, or None if this gateway has no key."""
        with self._lock:
            keys = self._current().get(gateway, ())
            number = self._answers.get(gateway)
        chosen = next((key for key in keys if key.number == number), keys[0] if keys else None)
        return None if chosen is None else uplink.seal((chosen,), topic, body)

    def unseal(self, gateway: str, kind: TopicKind, topic: str, data: bytes) -> bytes:
        """Return the body of a gateway's message. Raise Forged, after counting, if none of its keys has sealed it."""
        with self._lock:
            keys = self._current().get(gateway, ())
            try:
                body = uplink.unseal(keys, topic, data)
            except Forged as forged:
                self._suspect(gateway, kind, forged, enrolled=bool(keys))
                raise
            self._answers[gateway] = uplink.sealed_with(data)
            return body

    def ask(self, gateway: str) -> Ask | None:
        """Return a question with a new word, or None if this gateway has no key or was just asked.

        The word before stays good: its answer may be on the way.
        """
        with self._lock:
            now_s = self._now()
            asked_s, words = self._asked.get(gateway, (float("-inf"), ()))
            if gateway not in self._current() or now_s - asked_s < ASK_AGAIN_S:
                return None
            ask = Ask(word=secrets.token_hex(8))
            self._asked[gateway] = (now_s, (ask.word, *words[:1]))
            return ask

    def due(self) -> list[str]:
        """Return the gateways to ask now, the longest unasked first, at most ASKS_A_TURN_MAX."""
        with self._lock:
            now_s = self._now()
            waits = {name: now_s - self._asked.get(name, (float("-inf"), ()))[0] for name in self._current()}
        due = sorted((name for name, wait_s in waits.items() if wait_s >= ASK_S), key=lambda name: -waits[name])
        return due[:ASKS_A_TURN_MAX]

    def believes(self, status: Status) -> bool:
        """Return whether this status is of now: "offline" always, "online" only as the answer to a question.

        After "offline" only a new question counts: no status from before it brings the gateway back.
        """
        with self._lock:
            asked_s, words = self._asked.get(status.gateway, (float("-inf"), ()))
            if not status.online and words:
                self._asked[status.gateway] = (asked_s, ())
            return not status.online or status.echo in words

    def blame(self, lane: Lane, reason: Blame, why: str) -> None:
        """Count what the broker itself did wrong, and report it like a forged message. Logged once in BLAME_LOG_S."""
        with self._lock:
            self.forged[f"{lane}.{reason}"] += 1
            now_s = self._now()
            _, logged_s, _ = self._blamed.get((lane, reason), (0.0, float("-inf"), ""))
            if now_s - logged_s >= BLAME_LOG_S:
                logged_s = now_s
                log.warning(reason, lane=lane, so_far=self.forged[f"{lane}.{reason}"], detail=why)
            self._blamed[lane, reason] = (now_s, logged_s, why)

    def problems(self) -> list[str]:
        """Return what the operators should know about keys and forged messages, each with the next step."""
        with self._lock:
            self._current()
            found = [f"{name}: {why}" for name, why in sorted(self._broken.items())[:NAMED_MAX]]
            now_s = self._now()
            for gateway, (at_s, why) in sorted(self._suspects.items()):
                if now_s - at_s > QUIET_S:
                    del self._suspects[gateway]
                else:
                    found.append(f"messages in the name of gateway {gateway} are refused: {why}")
            for (lane, _), (at_s, _, why) in self._blamed.items():
                if now_s - at_s <= QUIET_S:
                    found.append(f"lane {lane}: {why}")
            return found

    # ---- inside: call with the lock ----------------------------------------------------------------------------------

    def _suspect(self, gateway: str, kind: TopicKind, forged: Forged, *, enrolled: bool) -> None:
        self.forged[f"{kind}.{forged.reason if enrolled else 'unknown_gateway'}"] += 1
        now_s = self._now()
        known = gateway in self._suspects
        if not known and len(self._suspects) >= NAMED_MAX:
            oldest = min(self._suspects, key=lambda name: self._suspects[name][0])
            if now_s - self._suspects[oldest][0] <= QUIET_S and not enrolled:
                return  # names that a forger may have invented do not push out each other, and are not logged
            del self._suspects[oldest]
        if enrolled:
            step = f"{forged}. Somebody forges, or the box has other keys than {self.folder / (gateway + SUFFIX)}"
        else:
            step = "it has no key here. If it is ours: ansim-city gateway enrol, and carry the file to the box"
        self._suspects[gateway] = (now_s, step)
        if not known:
            log.warning("forged", gateway=gateway, kind=kind, detail=step)

    def _current(self) -> dict[str, CityKeys]:
        now_s = self._now()
        if now_s - self._checked_at >= CHECK_S:
            self._checked_at = now_s
            self._scan()
        return self._keys

    def _scan(self) -> None:
        try:
            with os.scandir(self.folder) as entries:
                found = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX))
        except FileNotFoundError:
            found = []
        except OSError as error:
            self._say(self.folder.name, f"the folder cannot be read ({error.strerror}); the old keys stay")
            return
        self._broken.pop(self.folder.name, None)
        for name in found[:GATEWAYS_MAX]:
            self._look(name)
        for name in set(self._seen) - set(found):
            del self._seen[name]
            self._broken.pop(name, None)
            self._answers.pop(name.removesuffix(SUFFIX), None)
            self._asked.pop(name.removesuffix(SUFFIX), None)
            if self._keys.pop(name.removesuffix(SUFFIX), None):
                log.warning("keys_removed", gateway=name.removesuffix(SUFFIX))

    def _look(self, name: str) -> None:
        path = self.folder / name
        try:
            of = path.stat()
            seen = (of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns)
            if self._seen.get(name) == seen:
                return
            self._seen[name] = seen
            keys = read_keys(path)
        except (OSError, LinkError) as error:
            self._say(name, f"{error}; the old keys stay" if name.removesuffix(SUFFIX) in self._keys else str(error))
            return
        self._broken.pop(name, None)
        self._keys[name.removesuffix(SUFFIX)] = keys
        log.info("keys", gateway=name.removesuffix(SUFFIX), keys=[key.number for key in keys])

    def _say(self, name: str, why: str) -> None:
        if self._broken.get(name) != why:
            self._broken[name] = why
            log.error("keys_unusable", file=name, detail=why)


# ---- key files ------------------------------------------------------------------------------------------------------


def read_keys(path: Path) -> CityKeys:
    """Return the keys of a file. Raise LinkError; its text never quotes a key."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_MAX_B + 1)
    except OSError as error:
        step = "give it to the user of the service"
        if isinstance(error, FileNotFoundError):
            step = "`ansim-city gateway enrol` makes the first key of a gateway"
        raise LinkError(f"{path}: cannot be read ({error.strerror}); next: {step}") from None
    if not stat.S_ISREG(mode):
        raise LinkError(f"{path}: is no file; next: delete it, then `ansim-city gateway enrol`")
    if mode & 0o077:
        raise LinkError(f"others can read or write {path} (mode {mode & 0o777:04o}); next: chmod 600 {path}")
    try:
        return uplink.parse_keys(data[:FILE_MAX_B].decode("ascii"))
    except (UplinkError, UnicodeDecodeError) as error:
        why = str(error) if isinstance(error, UplinkError) else "not ASCII text"
        raise LinkError(f"{path}: {why}; make it with `ansim-city gateway enrol`") from None


def enrolled(folder: Path) -> list[str]:
    """Return the names of the gateways that have a key file."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))


def faults_of(folder: Path) -> list[str]:
    """Return what is wrong with the key files of a folder, for `check`; empty if all are good or there are none."""
    found = []
    for name in enrolled(folder):
        try:
            read_keys(folder / f"{name}{SUFFIX}")
        except LinkError as error:
            found.append(str(error))
    return found


def key_path(folder: Path, site: str, gateway: str) -> Path:
    """Return where a gateway's keys are. Raise LinkError if this is no name of a gateway."""
    try:
        uplink.topic(site, gateway, "ack")
    except UplinkError as error:
        raise LinkError(str(error)) from None
    return folder / f"{gateway}{SUFFIX}"


def enrol(path: Path, out: Path | None = None) -> list[int]:
    """Make the first key of a gateway, in a new file of mode 0600. Return its number. Raise LinkError.

    out, here and below: write the copy for the box there, too. If one of the two cannot be written, neither is changed.
    """
    if path.exists():
        raise LinkError(
            f"{path}: is there already. For its file once more: ansim-city gateway show; for a new key: ansim-city "
            "gateway rotate"
        )
    return _change(path, uplink.with_new_key((), secrets.token_bytes(uplink.KEY_B)), out)


def rotate(path: Path, out: Path | None = None, *, force: bool = False) -> list[int]:
    """Add a new key; return the numbers of all, the newest first. Raise LinkError.

    The city answers with the new key only after the gateway has used it: nothing is lost while the file is carried.
    A full file is refused, because its oldest key may be the only one that the box has. force drops that one.
    """
    keys = read_keys(path)
    if len(keys) >= uplink.KEYS_MAX and not force:
        raise LinkError(
            f"{path}: holds {len(keys)} keys, and a new one would push out key {keys[-1].number}, which the box may be "
            "using. Carry the newest file to the box (ansim-city gateway show GATEWAY --out FILE), then ansim-city "
            "gateway retire, then rotate. --force drops the oldest key anyway: a box that has no newer one is cut off"
        )
    return _change(path, uplink.with_new_key(keys, secrets.token_bytes(uplink.KEY_B)), out)


def retire(path: Path, out: Path | None = None) -> list[int]:
    """Drop every key but the newest; return its number. Raise LinkError."""
    return _change(path, read_keys(path)[:1], out)


def show(path: Path, out: Path) -> list[int]:
    """Write the present keys for the box once more; return their numbers. Nothing is changed. Raise LinkError."""
    keys = read_keys(path)
    _change(out, keys, None)
    return [key.number for key in keys]


def _change(path: Path, keys: CityKeys, out: Path | None) -> list[int]:
    """Write the city's file and the copy for the box: both, or none.

    Both are written beside their places first, where everything that can fail fails; then they are renamed. The city's
    goes last: a copy with a key that the city lacks opens nothing, and the next try replaces it.
    """
    if out is not None and path.resolve() == out.resolve():
        raise LinkError(f"{out}: is the city's own file; name another one for the copy to carry")
    waiting: list[tuple[Path, Path]] = []
    place = path
    try:
        for place in (path, *(() if out is None else (out,))):
            temporary = place.with_name(f".{place.name}.{os.getpid()}")
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if place.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            waiting.append((temporary, place))
            _write(temporary, keys, like=place if place.exists() or place != path else place.parent)
        for temporary, place in reversed(waiting):
            os.replace(temporary, place)
    except OSError as error:
        for temporary, _ in waiting:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise LinkError(
            f"{place}: cannot be written ({error.strerror}), no key was changed; check the folder and its owner"
        ) from None
    return [key.number for key in keys]


def _write(temporary: Path, keys: CityKeys, *, like: Path) -> None:
    """Write a new file on disk that only its owner reads, with the owner and mode of what it replaces.

    like: that file, or the folder of a new one: a file that root makes must be the city's, or it cannot read it.
    """
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        with contextlib.suppress(FileNotFoundError):
            old, own = like.stat(), os.fstat(file.fileno())
            if old.st_uid != own.st_uid:
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            if stat.S_ISREG(old.st_mode):
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode) & 0o700 | 0o400)
        file.write(uplink.format_keys(keys))
        file.flush()
        os.fsync(file.fileno())
