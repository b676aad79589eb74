"""The login: operators with a passcode, sessions that can be ended, and a limit on wrong passcodes.

A passcode is made by `ansim-city operator`, shown once, and kept only as a scrypt hash. A session is an opaque cookie.
Its hash is in the store, so nobody needs a passcode again if the city restarts in the middle of an incident.

A passcode has 99 bits and is never guessed. The brake saves work, so it must not cost more than it saves: it holds one
name at one address, never a whole address, which may be a control room behind one router. A browser from which the
operator has logged in before carries a second cookie that says so. It is never held, and its passcode is checked on a
place of its own, whatever strangers do meanwhile. An answer takes one hash or none, by rules in which it plays no role
whether the name exists.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from city import tables as t
from city.pages.connections import network_of
from city.store import Store, UnixClock, is_transient

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1  # 32 MiB and about 80 ms for a guess
SESSION_MAX_S = 12 * 3600.0
"""Seconds: one shift. A session ends this long after it began, whether it is used or not."""
SESSIONS_MAX = 1000
TOUCH_S = 60.0
FAILURES_MAX = 8
HASHING_MAX = 2
"""Passcodes of strangers that are checked at a time, one for an address. More are refused at once: guessing takes no
thread from an acknowledgement, and at most two processors."""
HASHING_KNOWN_MAX = 2
"""Passcodes from known browsers that are checked at a time, beside those."""
KNOWN_S = 180 * 86400.0
"""Seconds for which a browser stays known after a login."""
HELD_MAX = 64
"""Sessions kept in memory because the store could not be written."""
FAILURES_S = 300.0
NAMES_MAX = 4096
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without l, i, o, 0, 1, which look alike on paper


log = structlog.get_logger()


class OperatorsError(ValueError):
    """The operators' file cannot be used. The message says what to do."""


class Busy(RuntimeError):
    """Too many passcodes are being checked at this moment. Transient."""


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the operators' file."""

    salt: str
    hash: str
    n: int = SCRYPT_N
    r: int = SCRYPT_R
    p: int = SCRYPT_P


def new_passcode() -> str:
    """Return a passcode of 20 letters and digits in groups of five: 99 bits."""
    letters = [secrets.choice(ALPHABET) for _ in range(20)]
    return "-".join("".join(letters[i : i + 5]) for i in range(0, 20, 5))


def read_operators(path: Path) -> dict[str, Operator]:
    """Return the operators of a file. Raises OperatorsError."""
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_once)
        operators = msgspec.convert(rows, dict[str, Operator])
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise OperatorsError(f"{path}: {error}; make it with: ansim-city operator NAME --file {path}") from None
    for name, one in operators.items():
        reason = _unusable(name, one)
        if reason:
            raise OperatorsError(
                f"{path}: {name!r}: {reason}; give a new passcode: ansim-city operator NAME --file {path}"
            )
    return operators


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A parser keeps one of two entries with the same name: somebody could not log in, for good once it is saved."""
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} is there twice; keep one")
    return dict(pairs)


def add_operator(path: Path, name: str) -> str:
    """Give a new or known operator a new passcode, write the file (0600), and return it.

    A file that is there keeps its owner. Raises OperatorsError and OSError.
    """
    if not NAME.fullmatch(name):
        raise OperatorsError(
            f"operator {name!r}: a name is 1-32 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
        )
    operators = read_operators(path) if path.exists() else {}
    passcode, salt = new_passcode(), secrets.token_bytes(16)
    fresh = Operator(salt=_text(salt), hash="")
    operators[name] = msgspec.structs.replace(fresh, hash=_text(_scrypt(fresh, passcode)))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        old = path.stat() if path.exists() else None
        if old is not None and old.st_uid != os.fstat(file.fileno()).st_uid:  # root gives a passcode: the city reads it
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
        json.dump({n: msgspec.to_builtins(o) for n, o in operators.items()}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return passcode


def _unusable(name: str, one: Operator) -> str | None:
    """Return why a login of this entry would fail by an error, None if it would not."""
    if not NAME.fullmatch(name):
        return "no name: 1-32 of A-Z a-z 0-9 . _ -"
    try:
        salt, digest = (base64.b64decode(text, validate=True) for text in (one.salt, one.hash))
    except (binascii.Error, ValueError):
        return "salt or hash is no base64"
    if len(salt) < 8 or len(digest) != 64:
        return "salt or hash has not its length"
    if one.n not in (2**14, 2**15, 2**16) or (one.r, one.p) != (SCRYPT_R, SCRYPT_P):
        return f"n, r and p are not {SCRYPT_N}, {SCRYPT_R} and {SCRYPT_P}"
    return None


class Brake:
    """Refuses logins for a time after too many failures. It is bounded; the oldest entry is dropped first.

    A name is blocked only together with an address, so guessing from another address cannot lock an operator out.
    """

    def __init__(self, clock: UnixClock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, name: str, address: str) -> float:
        """Return how many seconds this name must wait at this address, 0 if it need not."""
        now_s = self._clock()
        with self._lock:
            recent = [at for at in self._failures.get(self._key(name, address), ()) if now_s - at < FAILURES_S]
            return FAILURES_S - (now_s - recent[0]) if len(recent) >= FAILURES_MAX else 0.0

    def failed(self, name: str, address: str) -> None:
        """Count a failed login."""
        with self._lock:
            key = self._key(name, address)
            self._failures[key] = [*self._failures.get(key, [])[-FAILURES_MAX + 1 :], self._clock()]
            self._failures.move_to_end(key)
            while len(self._failures) > NAMES_MAX:
                self._failures.popitem(last=False)

    @staticmethod
    def _key(name: str, address: str) -> str:
        return f"{network_of(address)} {name}"


class _Places:
    """Passcodes that are being checked: HASHING_MAX of strangers, one an address, HASHING_KNOWN_MAX of the known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._networks: set[str] = set()
        self._known = 0

    @contextlib.contextmanager
    def take(self, address: str, *, known: bool) -> Iterator[None]:
        """Hold a place. Raises Busy if there is none."""
        network = network_of(address)
        with self._lock:
            if known:
                if self._known >= HASHING_KNOWN_MAX:
                    raise Busy
                self._known += 1
            else:
                if network in self._networks or len(self._networks) >= HASHING_MAX:
                    raise Busy
                self._networks.add(network)
        try:
            yield
        finally:
            with self._lock:
                if known:
                    self._known -= 1
                else:
                    self._networks.discard(network)


class Login:
    """Checks passcodes and the token of programs, opens and ends sessions."""

    def __init__(self, store: Store, clock: UnixClock, operators_file: Path, token: str | None) -> None:
        """Read the operators' file. Raises OperatorsError."""
        self._store, self._clock, self._path = store, clock, operators_file
        self._token = token
        self._operators = read_operators(operators_file)
        self._changed_at = operators_file.stat().st_mtime_ns
        self._lock = threading.Lock()
        self._places = _Places()
        self._held: OrderedDict[str, tuple[str, float] | None] = OrderedDict()
        """Sessions that the store could not take, by digest; None: it has ended, and the store could not delete it."""
        self._seen: OrderedDict[str, Any] = OrderedDict()
        """Sessions as they were last read, by digest, for when the store cannot be read. At most SESSIONS_MAX."""
        self._touch_failed_at = float("-inf")
        self._problem = ""
        self.brake = Brake(clock)

    def operators(self) -> dict[str, Operator]:
        """Return who may log in, from the file as it is now, or as last read if it cannot be read now."""
        with self._lock:
            try:
                changed_at = self._path.stat().st_mtime_ns
                if changed_at != self._changed_at:
                    self._operators, self._changed_at = read_operators(self._path), changed_at
            except (OSError, OperatorsError) as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    log.error("operators_unusable", detail=str(error)[:300], now="as last read")
            else:
                self._problem = ""
            return self._operators

    def check(self, name: str, passcode: str, address: str = "", *, known: bool = False) -> bool:
        """Return whether the passcode is the operator's. An unknown name takes as long as a known one.

        known: it comes from a browser that `is_known`. Raises Busy, before any work.
        """
        operator = self.operators().get(name)
        against = operator or Operator(salt=_text(bytes(16)), hash=_text(bytes(64)))
        with self._places.take(address, known=known):
            given = _scrypt(against, passcode[:256])
        return hmac.compare_digest(given, base64.b64decode(against.hash)) and operator is not None

    def browser_cookie(self, name: str) -> str:
        """Return what makes a browser known, for an operator who has just logged in. A new passcode ends it."""
        stamp = f"{name}:{self._clock():.0f}"
        return f"{stamp}:{self._sign(stamp, self.operators()[name])}"

    def is_known(self, name: str, cookie: str | None) -> bool:
        """Return whether this operator has logged in from the browser with this cookie in the last KNOWN_S."""
        stamp, _, signed = (cookie or "").rpartition(":")
        whose, _, at = stamp.rpartition(":")
        operator = self.operators().get(name)
        if operator is None or whose != name or not re.fullmatch(r"[0-9]{1,12}", at):
            return False
        right = hmac.compare_digest(signed.encode(), self._sign(stamp, operator).encode())
        return right and self._clock() - int(at) <= KNOWN_S

    @staticmethod
    def _sign(stamp: str, operator: Operator) -> str:
        return hmac.new(base64.b64decode(operator.hash), b"browser " + stamp.encode(), "sha256").hexdigest()

    def open(self, name: str) -> str:
        """Open a session and return its cookie."""
        cookie, now_s = secrets.token_urlsafe(32), self._clock()
        digest = _digest(cookie)
        try:
            with self._store.write() as c:
                c.execute(delete(t.session).where(t.session.c.created_at < now_s - SESSION_MAX_S))
                count = c.execute(select(func.count()).select_from(t.session)).scalar_one()
                if count >= SESSIONS_MAX:
                    oldest = select(t.session.c.digest).order_by(t.session.c.used_at).limit(1).scalar_subquery()
                    c.execute(delete(t.session).where(t.session.c.digest == oldest))
                c.execute(t.session.insert().values(digest=digest, operator=name, created_at=now_s, used_at=now_s))
        except SQLAlchemyError as error:
            self._hold(digest, (name, now_s), error)
        return cookie

    def who(self, cookie: str | None) -> str | None:
        """Return the operator of this session, None if there is no session, it has ended, or its operator is gone."""
        if not cookie or len(cookie) > 128:
            return None
        digest, now_s = _digest(cookie), self._clock()
        if digest in self._held:
            held = self._held[digest]
            good = held is not None and now_s - held[1] <= SESSION_MAX_S and held[0] in self.operators()
            return held[0] if held is not None and good else None
        try:
            with self._store.read() as c:
                row = c.execute(select(t.session).where(t.session.c.digest == digest)).mappings().one_or_none()
        except SQLAlchemyError:  # who was here a moment ago goes on working while the store cannot be read
            row = self._seen.get(digest)
            if row is None:
                raise
        if row is None or now_s - row["created_at"] > SESSION_MAX_S or row["operator"] not in self.operators():
            return None
        self._seen[digest] = row
        while len(self._seen) > SESSIONS_MAX:
            self._seen.popitem(last=False)
        if now_s - max(row["used_at"], self._touch_failed_at) > TOUCH_S:
            try:
                with self._store.write() as c:
                    c.execute(update(t.session).where(t.session.c.digest == digest).values(used_at=now_s))
            except SQLAlchemyError as error:  # `used_at` only chooses which session is dropped first
                if not is_transient(error):
                    raise
                self._touch_failed_at = now_s  # a locked store must not cost every request a second
        return str(row["operator"])

    def end(self, cookie: str) -> None:
        """End a session."""
        digest = _digest(cookie)
        self._held.pop(digest, None)
        self._seen.pop(digest, None)
        try:
            with self._store.write() as c:
                c.execute(delete(t.session).where(t.session.c.digest == digest))
        except SQLAlchemyError as error:
            self._hold(digest, None, error)

    def _hold(self, digest: str, session: tuple[str, float] | None, error: SQLAlchemyError) -> None:
        """Remember in memory what the store could not take: a full disk must not keep an operator out, or in."""
        if not is_transient(error):
            raise error
        log.error("session_held", detail=str(error)[:200], now="in memory, until the city is started again")
        self._held[digest] = session
        while len(self._held) > HELD_MAX:
            self._held.popitem(last=False)

    def is_token(self, given: str) -> bool:
        """Return whether this is the token of programs."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())


def _scrypt(operator: Operator, passcode: str) -> bytes:
    return hashlib.scrypt(
        passcode.strip().encode(),
        salt=base64.b64decode(operator.salt),
        n=operator.n,
        r=operator.r,
        p=operator.p,
        maxmem=128 * 1024 * 1024,
        dklen=64,
    )


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
