"""`ansim-gateway tag`: makes the keys of tags, in the file `keys.tags` of a gateway. No key is ever printed."""

import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from readers.advertisement import KEY_SIZE
from readers.files import BadFile, bytes_of, table_of
from readers.terminal import Exit, exits, fail, say

app = typer.Typer(
    no_args_is_help=True, help="The keys of the tags: made here, carried onto the tag and to its gateways."
)
TagName = Annotated[
    str, typer.Argument(metavar="TAG", help="The tag's pseudonym: letters, digits, _ and -. Never a child's name.")
]
File = Annotated[Path, typer.Option("--file", metavar="FILE", help="The gateway's keys.tags, usually tag_keys.json.")]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEY = re.compile(rf"[0-9a-fA-F]{{{2 * KEY_SIZE}}}")


class TagFileError(ValueError):
    """The keys cannot be read, or what was asked would lose some. The message says what, where, and the next step."""


@app.command(epilog=exits(Exit.NO))
def new(tag: TagName, file: File) -> None:
    """Draw two new keys for a tag and add them to the file, which is made if it is missing. Prints no key."""
    _do(lambda: make(tag, file), f"{file}: {tag} is enrolled; `ansim-gateway tag copy` writes its keys for its maker")


@app.command(epilog=exits(Exit.NO))
def copy(
    tag: TagName,
    file: File,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Add them to this file; made if it is missing.")],
) -> None:
    """Copy a tag's keys to another file of the same form: for who programs the tag, or for a second gateway."""
    _do(lambda: hand_over(tag, file, to), f"{to}: the keys of {tag} are there; carry it safely, and delete copies")


@app.command(epilog=exits(Exit.NO))
def remove(tag: TagName, file: File) -> None:
    """Take a lost tag out of the file. Its keys are never used again."""
    _do(lambda: drop(tag, file), f"{file}: {tag} is removed; start its gateways again, so that they forget it")


def make(tag: str, path: Path) -> None:
    """Add a tag with new keys. Raises TagFileError if it has keys already, for a tag on a child would become deaf."""
    if not _NAME.fullmatch(tag):
        raise TagFileError(f"{tag!r} is no pseudonym; take 1-64 letters, digits, _ and -, like tag-001")
    rows = read(path) if path.exists() else {}
    if tag in rows:
        raise TagFileError(f"{path}: {tag} has keys already; a lost tag gets another pseudonym, nothing was changed")
    write(path, rows | {tag: {name: secrets.token_hex(KEY_SIZE) for name in ("k_id", "k_mic")}})


def hand_over(tag: str, path: Path, to: Path) -> None:
    """Copy the keys of a tag. The same keys twice are done already; other keys for the tag are a TagFileError."""
    rows = _with(tag, path)
    there = read(to) if to.exists() else {}
    if there.get(tag, rows[tag]) != rows[tag]:
        raise TagFileError(f"{to}: {tag} has other keys there; find out which are on the tag, nothing was changed")
    write(to, there | {tag: rows[tag]})


def drop(tag: str, path: Path) -> None:
    """Remove a tag. Raises TagFileError if it is not there."""
    rows = _with(tag, path)
    del rows[tag]
    write(path, rows)


def read(path: Path) -> dict[str, dict[str, str]]:
    """Return pseudonym -> its two keys. Raises TagFileError for anything else: what is not understood is not lost."""
    try:
        rows: dict[str, Any] = table_of(bytes_of(path))
    except OSError as error:
        raise TagFileError(f"{path}: {error.strerror}; name the gateway's keys.tags") from None
    except BadFile as error:
        raise TagFileError(f"{path}: {error}") from None
    for place, (tag, row) in enumerate(rows.items(), 1):
        keys = isinstance(row, dict) and row.keys() == {"k_id", "k_mic"} and all(map(_is_key, row.values()))
        if not keys or not _NAME.fullmatch(tag):
            raise TagFileError(f"{path}, entry {place}: not a pseudonym and its two keys; is it another file?")
    return rows


def write(path: Path, rows: dict[str, dict[str, str]]) -> None:
    """Replace the file whole, mode 0600. An old one's owner stays, so that root can add a tag for the gateway's user.

    Raises TagFileError; the old file is untouched then.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                if path.exists():
                    os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
                file.write(json.dumps(rows, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise TagFileError(f"{path}: {error.strerror}; as which user is its folder writable?") from None


def _with(tag: str, path: Path) -> dict[str, dict[str, str]]:
    rows = read(path)
    if tag not in rows:
        raise TagFileError(f"{path}: {tag} is not there; it has {len(rows)} tags, nothing was changed")
    return rows


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def _do(work: Callable[[], None], done: str) -> None:
    try:
        work()
    except TagFileError as error:
        fail(str(error), Exit.NO)
    say(done, "good")
