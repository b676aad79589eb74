"""The values of a TOML file -> `GatewayConfig`. Each table is checked by its type; every fault in it is reported."""

import difflib
import functools
from typing import Any

import msgspec

from gateway.config.findings import Findings, short
from gateway.options import LISTS, REQUIRED, TABLES, GatewayConfig, Text
from readers.files import eui64_of

_fields = functools.cache(msgspec.structs.fields)
"""The fields of a type; msgspec works them out anew at every call."""
_TYPES = {one.name: one.type for one in msgspec.structs.fields(GatewayConfig)}


def convert(findings: Findings, raw: dict[str, Any]) -> GatewayConfig:
    """Return the typed values. `findings` then holds every fault in them.

    What is wrong is left out, so that the rest can be checked in the same run: a value is the default or "" (ask
    `findings.right`), an entry of a list is missing (`findings.kept` has the places of those that are there).
    """
    known = GatewayConfig.__struct_fields__
    values: dict[str, Any] = {name: "" for name in REQUIRED if name not in TABLES and name not in LISTS}
    for key in [key for key in raw if key not in known]:
        findings.say(key, _unknown(key, known))
    for key in known:
        if key not in raw:
            if key in REQUIRED:
                findings.say(key, "missing")
        elif key not in TABLES and key not in LISTS:
            try:
                values[key] = msgspec.convert(raw[key], _TYPES[key])
            except msgspec.ValidationError as error:
                findings.say(key, f"{error} (it is {short(raw[key])})")
    for key, kind in TABLES.items():
        if key in raw:
            values[key] = _table(findings, kind, raw[key], key)
        elif key in REQUIRED:
            values[key] = _made(kind, {})
    kept: dict[str, list[int]] = {}
    for key, kind in LISTS.items():
        values[key], kept[key] = _list(findings, kind, raw.get(key, []), key)
    if "readers" in raw and not raw["readers"] and findings.right("readers"):
        findings.say("readers", "is empty")
    findings.kept = kept
    return GatewayConfig(**values)


def _list(
    findings: Findings, kind: type[msgspec.Struct], value: Any, key: str
) -> tuple[tuple[msgspec.Struct, ...], list[int]]:
    if not isinstance(value, list):
        findings.say(key, f"must be written as [[{key}]] tables")
        return (), []
    items: list[msgspec.Struct] = []
    places: list[int] = []
    for i, item in enumerate(value):
        before = len(findings.problems)
        made = _table(findings, kind, item, f"{key}[{i}]")
        if made is not None and len(findings.problems) == before:
            items.append(made)
            places.append(i)
    return tuple(items), places


def _table(findings: Findings, kind: type[msgspec.Struct], value: Any, key: str) -> msgspec.Struct | None:
    """Convert one table; report every fault in it. None: what is left without the wrong values is no such table."""
    if not isinstance(value, dict):
        findings.say(key, f"must be a table, got {type(value).__name__}")
        return _made(kind, {})
    for name in [name for name in value if name not in kind.__struct_fields__]:
        findings.say(f"{key}.{name}", _unknown(name, kind.__struct_fields__))
    good: dict[str, Any] = {}
    for one in _fields(kind):
        if one.name not in value:
            if one.required:
                findings.say(f"{key}.{one.name}", "missing")
            continue
        try:
            given = eui64_of(value["eui64"]) if one.name == "eui64" else value[one.name]
            good[one.name] = msgspec.convert(given, one.type)
        except msgspec.ValidationError as error:
            said, _, inner = str(error).partition(" - at `$")
            text = f"{said} (it is {short(value[one.name])}){_exchanged(said)}"
            findings.say(f"{key}.{one.name}{inner.rstrip('`')}", text)
        except ValueError as error:  # of an address
            findings.say(f"{key}.{one.name}", str(error))
    try:
        return _made(kind, good)
    except ValueError as error:  # two keys that do not fit together
        findings.say(key, str(error))
        return _made(kind, {})


def _made(kind: type[msgspec.Struct], good: dict[str, Any]) -> msgspec.Struct | None:
    """Make a table of the values that are right. A required text that is missing is "", and no other may be missing."""
    for one in _fields(kind):
        if one.required and one.name not in good:
            if one.type != Text:
                return None
            good = good | {one.name: ""}
    return kind(**good)


def _exchanged(said: str) -> str:
    """Return a question for a latitude that is a longitude: nowhere but there is 90 the most or the least."""
    return "; are lon and lat exchanged?" if "<= 90.0" in said or ">= -90.0" in said else ""


def _unknown(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return "unknown key; " + (f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}")
