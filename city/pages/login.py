"""The login: operators with a passcode, sessions that can be ended, and a brake on guessing.

A passcode is made by `ansim-city operator`, shown once, and kept only as a scrypt hash. A session is an opaque cookie.
Its hash is in the store, so nobody needs a passcode again if the city restarts in the middle of an incident.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections import OrderedDict
from pathlib import Path

import msgspec
from sqlalchemy import delete, func, select, update

from city import tables as t
from city.store import Store, UnixClock

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1  # 32 MiB and about 80 ms for a guess
SESSION_MAX_S = 12 * 3600.0
"""Seconds: one shift. A session ends this long after it began, whether it is used or not."""
SESSIONS_MAX = 1000
TOUCH_S = 60.0
FAILURES_MAX = 8
FAILURES_ADDRESS_MAX = 40
HASHING_MAX = 4
"""Passcodes checked at a time. More are refused at once, so that guessing takes no thread from an acknowledgement."""
FAILURES_S = 300.0
NAMES_MAX = 4096
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without l, i, o, 0, 1, which look alike on paper


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
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Operator])
    except (OSError, msgspec.MsgspecError) as error:
        raise OperatorsError(f"{path}: {error}; make it with: ansim-city operator NAME --file {path}") from None


def add_operator(path: Path, name: str) -> str:
    """Give a new or known operator a new passcode, write the file (0600), and return it. Raises OperatorsError."""
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
        json.dump({n: msgspec.to_builtins(o) for n, o in operators.items()}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return passcode


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
            waits = [0.0]
            for key, most in self._keys(name, address):
                recent = [at for at in self._failures.get(key, ()) if now_s - at < FAILURES_S]
                if len(recent) >= most:
                    waits.append(FAILURES_S - (now_s - recent[0]))
            return max(waits)

    def failed(self, name: str, address: str) -> None:
        """Count a failed login."""
        with self._lock:
            for key, most in self._keys(name, address):
                self._failures[key] = [*self._failures.get(key, [])[-most + 1 :], self._clock()]
                self._failures.move_to_end(key)
                while len(self._failures) > NAMES_MAX:
                    self._failures.popitem(last=False)

    @staticmethod
    def _keys(name: str, address: str) -> tuple[tuple[str, int], ...]:
        return (f"{address} {name}", FAILURES_MAX), (address, FAILURES_ADDRESS_MAX)


class Login:
    """Checks passcodes and the token of programs, opens and ends sessions."""

    def __init__(self, store: Store, clock: UnixClock, operators_file: Path, token: str | None) -> None:
        """Read the operators' file. Raises OperatorsError."""
        self._store, self._clock, self._path = store, clock, operators_file
        self._token = token
        self._operators = read_operators(operators_file)
        self._changed_at = operators_file.stat().st_mtime_ns
        self._lock = threading.Lock()
        self._hashing = threading.BoundedSemaphore(HASHING_MAX)
        self.brake = Brake(clock)

    def operators(self) -> dict[str, Operator]:
        """Return who may log in, from the file as it is now, or as last read if it cannot be read now."""
        with self._lock:
            try:
                changed_at = self._path.stat().st_mtime_ns
                if changed_at != self._changed_at:
                    self._operators, self._changed_at = read_operators(self._path), changed_at
            except (OSError, OperatorsError):
                pass
            return self._operators

    def check(self, name: str, passcode: str) -> bool:
        """Return whether the passcode is the operator's. An unknown name takes as long as a known one. Raises Busy."""
        known = self.operators().get(name)
        against = known or Operator(salt=_text(bytes(16)), hash=_text(bytes(64)))
        if not self._hashing.acquire(blocking=False):
            raise Busy
        try:
            given = _scrypt(against, passcode[:256])
        finally:
            self._hashing.release()
        return hmac.compare_digest(given, base64.b64decode(against.hash)) and known is not None

    def open(self, name: str) -> str:
        """Open a session and return its cookie."""
        cookie, now_s = secrets.token_urlsafe(32), self._clock()
        with self._store.write() as c:
            c.execute(delete(t.session).where(t.session.c.created_at < now_s - SESSION_MAX_S))
            count = c.execute(select(func.count()).select_from(t.session)).scalar_one()
            if count >= SESSIONS_MAX:
                oldest = select(t.session.c.digest).order_by(t.session.c.used_at).limit(1).scalar_subquery()
                c.execute(delete(t.session).where(t.session.c.digest == oldest))
            c.execute(t.session.insert().values(digest=_digest(cookie), operator=name, created_at=now_s, used_at=now_s))
        return cookie

    def who(self, cookie: str | None) -> str | None:
        """Return the operator of this session, None if there is no session, it has ended, or its operator is gone."""
        if not cookie or len(cookie) > 128:
            return None
        digest, now_s = _digest(cookie), self._clock()
        with self._store.read() as c:
            row = c.execute(select(t.session).where(t.session.c.digest == digest)).mappings().one_or_none()
        if row is None or now_s - row["created_at"] > SESSION_MAX_S or row["operator"] not in self.operators():
            return None
        if now_s - row["used_at"] > TOUCH_S:
            with self._store.write() as c:
                c.execute(update(t.session).where(t.session.c.digest == digest).values(used_at=now_s))
        return str(row["operator"])

    def end(self, cookie: str) -> None:
        """End a session."""
        with self._store.write() as c:
            c.execute(delete(t.session).where(t.session.c.digest == _digest(cookie)))

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
