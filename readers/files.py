"""Files that people bring: read whole, or refused in words. JSON in which nothing is lost; addresses, names of hosts.

A parser of JSON keeps one of two entries with the same key and drops the other silently: a child's tag, a reader. Here
such a file is refused. A byte order mark, which editors of Windows write, is left out.
"""

import ipaddress
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
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SAVE = "save it as UTF-8 (in Notepad: Save as, Encoding: UTF-8)"
_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")
TLS_PORT, PLAIN_PORT = 8883, 1883
"""The ports that a broker of MQTT usually has: with TLS, and without."""
_QUOTES = tuple("“”„‟«»″‘’‚‛′'")
"""What editors and chats make of the quotes of JSON."""
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
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise BadFile(f"{path} is {what}, not a file; give the path of a file")
    with path.open("rb") as file:
        data = file.read(size_max_b + 1)
    if len(data) > size_max_b:
        raise BadFile(f"over {size_max_b} bytes; is it another file?")
    return data


def text_of(data: bytes) -> str:
    """Return the text of a file's bytes, without a byte order mark of UTF-8, which does no harm.

    Raises BadFile for another mark, which belongs to UTF-16, and for text that is not UTF-8.
    """
    if data.startswith(_MARKS) or b"\0" in data[:2]:
        mark = "begins with a byte-order mark (BOM) of UTF-16" if data.startswith(_MARKS) else "is UTF-16"
        raise BadFile(f"{mark}, not UTF-8 text; {_SAVE}", 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadFile(f"not UTF-8 text; {_SAVE}", line) from None


def json_of(data: bytes) -> Any:
    """Return the value of a JSON file.

    Raises BadFile, also for a key that is given twice, a number that is not finite, and text that cannot be written.
    """
    text = text_of(data)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        why = f"not JSON ({error.msg}, column {error.colno}){_json_hint(text, error.pos)}"
        raise BadFile(why, error.lineno) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, very deep brackets
        _check(text)
        raise BadFile("no parser of JSON can take this; is it another file?") from None
    _check(text)
    return value


def _json_hint(text: str, at: int) -> str:
    """Return what people usually do wrong at such a place; empty if nothing is known."""
    if not text.strip():
        return "; it is empty"
    before, here = text[:at].rstrip(), text[at : at + 1]
    if (here in ("}", "]") and before.endswith(",")) or here == ",":
        return "; is there a comma too many before a bracket?"
    if here in _QUOTES:
        return '; write plain quotes: "'
    if here in ('"', "{") and before.endswith(('"', "}", "]")):
        return "; is a comma missing before it?"
    return ""


def table_of(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON file. Raises BadFile as `json_of`, and if it is something else."""
    value = json_of(data)
    if not isinstance(value, dict):
        raise BadFile("not a JSON object; it must begin with {", 1)
    return value


def entry_lines(data: bytes) -> list[int]:
    """Return the line, from 1, of each entry of a JSON object that `table_of` has taken, in the order of the file."""
    found: list[int] = []
    line, depth, last_line = 1, 0, 1
    for token in _TOKEN.findall(text_of(data)):
        if token == "\n":
            line += 1
        elif token in ("{", "["):
            depth += 1
        elif token in ("}", "]"):
            depth -= 1
        elif token == ":" and depth == 1:
            found.append(last_line)
        elif token != ",":
            last_line = line
    return found


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

    Capital letters, 0x in front, and spaces, colons, dots and hyphens between the digits are taken as they are meant.
    All else raises ValueError, which says what would be right: no digit is guessed.
    """
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__}, not text; write the 16 digits of the module in quotes")
    text = re.sub(r"[\s:.\-\u2010-\u2015\u2212]", "", value).lower()
    if len(text) == 18:
        text = text.removeprefix("0x")
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


def host_fault(text: str) -> str | None:
    """Return what is wrong with the name of a host, and how it is written; None if it is the name or address of one.

    A scheme, a user, a port, a path and brackets have no place in it. Names of hosts may have letters of any language.
    """
    if _is_host(text):
        return None
    parts = re.fullmatch(
        r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/+|(mqtts?|https?|tcp|ssl|tls|wss?):)?(?P<user>[^/]*@)?"
        r"(?P<name>\[[^\]]*\]|[^/:]*)(?P<port>:\d*)?(?P<path>[/?#].*)?",
        text.strip(),
        re.IGNORECASE,
    )
    seen = repr(printable(re.sub(r"[^/]*@", "...@", text), 80))
    if parts is None or not _is_host(name := parts["name"].strip("[]")):
        return f'{seen} is no name and no address of a host; write it like host = "mqtt.example.org"'
    words = {"scheme": "a scheme", "user": "a user", "port": "a port", "path": "a slash or a path"}
    found = [word for part, word in words.items() if parts[part]] or ["blanks or brackets"]
    right = f'host = "{name}"'
    if parts["port"] and parts["port"][1:]:
        right += f" and port = {parts['port'][1:]}"
    if parts["user"]:
        right += ", and the user at its own key"
    return f"{seen} is more than the name of a host: it has {', '.join(found)}; write {right}"


def is_local(host: str) -> bool:
    """Return whether what goes to this host stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def tls_note(port: int, ca_file: str | None) -> str | None:
    """Return what is odd about the port of a broker and TLS; None if they go together as usual.

    It is no fault: a broker may listen where its owner likes.
    """
    if ca_file and port == PLAIN_PORT:
        usual = f"most brokers have TLS on {TLS_PORT}: is port = {TLS_PORT} meant?"
        return f"TLS (ca_file) on port {PLAIN_PORT}, where most brokers have no TLS; {usual}"
    if not ca_file and port == TLS_PORT:
        usual = f"name the file of the broker's CA there, or give port = {PLAIN_PORT}"
        return f"port {TLS_PORT} is usually for TLS, and there is no ca_file; {usual}"
    return None


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.removesuffix(".").split(".")
        return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    return True


def printable(text: str, most: int) -> str:
    """Return a text as a message may show it: cut, without control characters, and without what looks like a key."""
    short = _SECRET.sub(lambda found: found[0][:4] + "...", text)[:most]
    return "".join(c if c.isprintable() else "?" for c in short)
