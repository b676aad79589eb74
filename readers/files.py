"""Files that people bring: read whole, or refused in words. JSON in which nothing is lost, and addresses of modules.

A parser of JSON keeps one of two entries with the same key and drops the other silently: a child's tag, a reader. Here
such a file is refused. A byte order mark, which editors of Windows write, is left out.
"""

import json
import math
import re
import stat
from pathlib import Path
from typing import Any

FILE_MAX_B = 4 * 1024 * 1024
NESTING_MAX = 100
"""Brackets within brackets. No file of ours has more than ten; a parser's own limit is a few hundred."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,\n]|[^\s{}\[\]:,"]+')
_SECRET = re.compile(r"[0-9A-Fa-f]{24,}")


class BadFile(ValueError):
    """A file cannot be used as it is. Permanent until a person repairs it. line: from 1; 0 if no line is to blame."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {what}" if line else what)
        self.what, self.line = what, line


def bytes_of(path: Path, size_max_b: int = FILE_MAX_B) -> bytes:
    """Return the bytes of a file. Raises OSError, and BadFile for what is no ordinary file or is too long.

    A pipe or a device is not even opened: it could keep the program waiting for ever.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise BadFile(f"{path} is not a file; give the path of one")
    with path.open("rb") as file:
        data = file.read(size_max_b + 1)
    if len(data) > size_max_b:
        raise BadFile(f"over {size_max_b} bytes; is it another file?")
    return data


def text_of(data: bytes) -> str:
    """Return the text of a file's bytes, without a byte order mark. Raises BadFile if it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadFile("not UTF-8 text; save it as UTF-8", line) from None


def json_of(data: bytes) -> Any:
    """Return the value of a JSON file.

    Raises BadFile, also for a key that is given twice, a number that is not finite, and text that cannot be written.
    """
    text = text_of(data)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadFile(f"not JSON ({error.msg}, column {error.colno})", error.lineno) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, very deep brackets
        _check(text)
        raise BadFile("no parser of JSON can take this; is it another file?") from None
    _check(text)
    return value


def table_of(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON file. Raises BadFile as `json_of`, and if it is something else."""
    value = json_of(data)
    if not isinstance(value, dict):
        raise BadFile("not a JSON object; it must begin with {", 1)
    return value


def _check(text: str) -> None:
    """Look at what parsers let pass. text: JSON, at least up to the first fault of those that are looked for."""
    keys: list[dict[str, int]] = []
    line, last, last_line = 1, "", 1
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in ("{", "["):
            keys.append({})
            if len(keys) > NESTING_MAX:
                raise BadFile(f"over {NESTING_MAX} brackets within each other; is it another file?", line)
        elif token in ("}", "]"):
            keys.pop()
        elif token == ":":
            key = json.loads(last)
            if key in keys[-1]:
                first = keys[-1][key]
                raise BadFile(
                    f"the key {printable(key, 80)!r} is given twice (first in line {first}); keep one", last_line
                )
            keys[-1][key] = last_line
        elif token != ",":
            last, last_line = token, line
            _check_value(token, line)


def _check_value(token: str, line: int) -> None:
    if token[0] == '"':
        if "\\u" in token and not _encodable(json.loads(token)):
            raise BadFile("half a character (a lone \\ud800 to \\udfff); write the character itself", line)
    elif token not in ("true", "false", "null") and not (len(token) <= 400 and math.isfinite(float(token))):
        raise BadFile(f"{token[:20]} is no usable number; give a finite one, or null", line)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def eui64_of(value: Any) -> str:
    """Return the address of a module as 16 lower-case hexadecimal digits, MSB first.

    Capital letters, and spaces, colons, dots and hyphens between the digits, are taken as they are meant. All else
    raises ValueError, which says what would be right: no digit is guessed.
    """
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__}, not text; write the 16 digits of the module in quotes")
    text = re.sub(r"[\s:.-]", "", value).lower()
    seen = repr(printable(value, 40))
    if re.search(r"[0-9]e\+[0-9]+\Z", text):
        why = "is what a spreadsheet makes of an address, and digits are lost; format the column as text,"
        raise ValueError(f"{seen} {why} and copy the 16 digits from the module")
    if wrong := re.search(r"[^0-9a-f]", text):
        raise ValueError(f"{seen} has {printable(wrong[0], 1)!r}, no hexadecimal digit; copy it from the module")
    if len(text) != 16:
        zeros = 12 <= len(text) < 16
        guess = f"; were leading zeros lost, as in a spreadsheet? Then it is {text.rjust(16, '0')}" if zeros else ""
        raise ValueError(f"{seen} has {len(text)} digits, not 16{guess or '; copy it from the module'}")
    if text in ("0" * 16, "f" * 16):
        raise ValueError(f"{seen} is no module's address; copy it from the module")
    return text


def printable(text: str, most: int) -> str:
    """Return a text as a message may show it: cut, without control characters, and without what looks like a key."""
    short = _SECRET.sub(lambda found: found[0][:4] + "...", text)[:most]
    return "".join(c if c.isprintable() else "?" for c in short)
