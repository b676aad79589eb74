"""Finds the line of each key of a TOML text. The standard parser gives no lines, but a problem report needs them."""

import re
import unicodedata

from gateway.options import LISTS

_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_NAME = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"(\[\[?)[ \t]*({_NAME})[ \t]*\]")
_KEY = re.compile(rf"({_NAME})[ \t]*=")


def key_lines(text: str) -> dict[str, int]:
    """Return the line (from 1) of every table and key of a text that `tomllib` has accepted.

    Keys are written as "radio.port" and "readers[2].lon". The content of an inline table or an array has no entry of
    its own, only the key in front of it. A table below an array of tables belongs to the last entry of that array.
    """
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table, depth, until = "", 0, ""
    for number, line in enumerate(text.split("\n"), 1):  # TOML has no other line end
        rest = line.strip()
        if not depth and not until:
            if header := _HEADER.match(rest):  # a key never starts with a bracket
                table = _dotted(header[2])
                if header[1] == "[[":
                    found.setdefault(table, number)
                    counts[table] = counts.get(table, -1) + 1
                    table = f"{table}[{counts[table]}]"
                elif (first := table.partition(".")[0]) in counts:
                    table = f"{first}[{counts[first]}]{table.removeprefix(first)}"
                found.setdefault(table, number)
                continue
            if not (key := _KEY.match(rest)):
                continue  # blank, or a comment
            name = _dotted(key[1])
            found.setdefault(f"{table}.{name}" if table else name, number)
            rest = rest[key.end() :]
        depth, until = _value(rest, depth, until)
    return found


def lookalike(text: str, line: int, column: int) -> str:
    """Return what to write instead of a character that only looks like one of TOML's; empty if there is none.

    Word processors and chats make them: quotes “”, blanks that do not break a line, dashes. line, column: from 1.
    """
    row = [*text.split("\n"), ""][line - 1]
    for place, c in [(column - 1, row[column - 1 : column]), *enumerate(row)]:
        plain = _LOOKALIKES.get(c) or unicodedata.normalize("NFKC", c)
        if c > "\x7f" and (plain <= "\x7f" or unicodedata.category(c) == "Cf"):
            name = unicodedata.name(c, "a control character").lower()
            right = f"write {'a blank' if plain == ' ' else plain}" if plain <= "\x7f" else "delete it"
            return f"; column {place + 1} is {name} (U+{ord(c):04X}): {right}"
    return ""


def meant(text: str, line: int, column: int, said: str) -> str:
    """Return what was probably meant where TOML ends to be TOML; empty if nothing is known. line, column: from 1.

    said: the words of the parser.
    """
    row = [*text.split("\n"), ""][line - 1].rstrip("\r")
    if twice := _HEADER.match(row.strip()) if "twice" in said or "overwrite" in said else None:
        name, rows = _dotted(twice[2]), text.split("\n")[: line - 1]
        first = next(
            (n for n, one in enumerate(rows, 1) if (h := _HEADER.match(one.strip())) and _dotted(h[2]) == name), 0
        )
        if name in LISTS:
            return f"; write [[{name}]] with two brackets for each, the first in line {first} too"
        return f"; there is [{name}] in line {first} already: put both together there" if first else ""
    key = _KEY.match(row.strip())
    if "overwrite" in said and key:
        return f"; {key[1]} stands in this table already: keep one of the two"
    if found := re.search(r"(?<![\w\"'])(-?\d+),(\d+)\s*(?:#.*)?\Z", row):
        return f"; a decimal point is meant? Write {found[1]}.{found[2]}"
    if "\\" in row and ("escape" in said.lower() or "hex" in said.lower()):
        return "; a backslash has a meaning in double quotes: write the text in single quotes"
    if re.match(rf"{_NAME}[ \t]*:", row.strip()):
        return "; write = between a key and its value"
    value = row.strip()[key.end() :].partition("#")[0].strip() if key else ""
    if value.lower() in ("true", "false", "yes", "no", "on", "off"):
        return f"; write {'true' if value.lower() in ('true', 'yes', 'on') else 'false'}, in small letters"
    if key and not value:
        return f"; a value is missing behind {key[1]} ="
    if key and re.match(r"[^\W\d]|[/~.]", value) and '"' not in value:
        return f'; text stands in quotes: {key[1]} = "..."'
    if value.count('"') % 2 or value.count("'") % 2:
        return "; a quote is missing at one end of the text"
    return ""


_LOOKALIKES = {c: plain for plain, chars in {'"': "“”„‟«»″", "'": "‘’‚‛′", "-": "‐‑‒–—−"}.items() for c in chars}


def monstrous(text: str) -> int:
    """Return the first line with a number of thousands of digits or over 100 brackets open; 0 if there is none."""
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        if re.search(r"[0-9A-Fa-f_]{2000}", line):
            return number
        for c in line:
            depth = max(0, depth + (c in "[{") - (c in "]}"))
            if depth > 100:
                return number
    return 0


def _dotted(text: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_PART, text))


def _value(text: str, depth: int, until: str) -> tuple[int, str]:
    """Scan one line of a value; return how many brackets stay open and the quotes that end an open long string."""
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
