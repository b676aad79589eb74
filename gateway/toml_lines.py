"""Where each key of a TOML text stands. The standard parser gives values without lines; a complaint needs the line."""

import re

_PART = re.compile(r'"([^"]*)"|\'([^\']*)\'|([A-Za-z0-9_-]+)')
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]\]?")
_KEY = re.compile(r"\s*((?:\"[^\"]*\"|'[^']*'|[A-Za-z0-9_.\s-])+?)\s*=")


def key_lines(text: str) -> dict[str, int]:
    """Return the line (from 1) of every table and key of a text `tomllib` has accepted.

    Keys are written as "radio.port" and "readers[2].lon"; what stands inside an inline table or an array is found
    under the key in front of it.
    """
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table, depth, until = "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        rest = line
        if not depth and not until:
            header = _HEADER.match(line)
            key = _KEY.match(line)
            if header:  # a key never begins with a bracket
                table = _dotted(header[2])
                if header[1] == "[[":
                    found.setdefault(table, number)
                    counts[table] = counts.get(table, -1) + 1
                    table = f"{table}[{counts[table]}]"
                found.setdefault(table, number)
                continue
            if key:
                name = _dotted(key[1])
                found.setdefault(f"{table}.{name}" if table else name, number)
                rest = line[key.end() :]
            else:
                continue  # blank, or a comment
        depth, until = _value(rest, depth, until)
    return found


def _dotted(text: str) -> str:
    return ".".join(a or b or c for a, b, c in _PART.findall(text))


def _value(text: str, depth: int, until: str) -> tuple[int, str]:
    """Walk over a line of a value; return how many brackets stay open and the quotes a long string still waits for."""
    i = 0
    while i < len(text):
        if until:
            if text[i] == "\\" and until[0] == '"':
                i += 2
                continue
            if text.startswith(until, i):
                i += len(until)
                until = ""
                continue
        elif text[i] in "\"'":
            until = text[i] * 3 if text.startswith(text[i] * 3, i) else text[i]
            i += len(until)
            continue
        elif text[i] == "#":
            break
        elif text[i] in "[{":
            depth += 1
        elif text[i] in "]}":
            depth -= 1
        i += 1
    return depth, until if len(until) == 3 else ""
