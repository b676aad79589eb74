"""The values of a TOML file -> `GatewayConfig`. Each table is checked by its type; every fault in it is reported."""

import difflib
from typing import Any

import msgspec

from gateway.config.findings import Findings, short
from gateway.options import LISTS, REQUIRED, TABLES, GatewayConfig
from readers.files import eui64_of

_TYPES = {one.name: one.type for one in msgspec.structs.fields(GatewayConfig)}


def convert(findings: Findings, raw: dict[str, Any]) -> GatewayConfig | None:
    """Return the typed values. Return None when anything is wrong with them; `findings` then holds every fault."""
    known = GatewayConfig.__struct_fields__
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            findings.say(key, _unknown(key, known))
        elif key in TABLES:
            values[key] = _struct(findings, TABLES[key], value, key)
        elif key in LISTS:
            if isinstance(value, list):
                items = [_struct(findings, LISTS[key], item, f"{key}[{i}]") for i, item in enumerate(value)]
                values[key] = tuple(items)
            else:
                findings.say(key, f"must be written as [[{key}]] tables")
        else:
            try:
                values[key] = msgspec.convert(value, _TYPES[key])
            except msgspec.ValidationError as error:
                findings.say(key, f"{error} (it is {short(value)})")
    for key in REQUIRED:
        if key not in raw:
            findings.say(key, "missing")
    if "readers" in values and not values["readers"]:
        findings.say("readers", "is empty")
    return None if findings.problems else GatewayConfig(**values)


def _struct(findings: Findings, kind: type[msgspec.Struct], value: Any, key: str) -> msgspec.Struct | None:
    """Convert one table; report every fault in it, not only the first."""
    if not isinstance(value, dict):
        findings.say(key, f"must be a table, got {type(value).__name__}")
        return None
    before = len(findings.problems)
    for name in [name for name in value if name not in kind.__struct_fields__]:
        findings.say(f"{key}.{name}", _unknown(name, kind.__struct_fields__))
    for one in msgspec.structs.fields(kind):
        if one.name not in value:
            if one.required:
                findings.say(f"{key}.{one.name}", "missing")
            continue
        try:
            if one.name == "eui64":
                value = value | {"eui64": eui64_of(value["eui64"])}
            msgspec.convert(value[one.name], one.type)
        except msgspec.ValidationError as error:
            said, _, inner = str(error).partition(" - at `$")
            findings.say(f"{key}.{one.name}{inner.rstrip('`')}", f"{said} (it is {short(value[one.name])})")
        except ValueError as error:  # of an address
            findings.say(f"{key}.{one.name}", str(error))
    if len(findings.problems) > before:
        return None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:  # two keys that do not fit together
        findings.say(key, str(error))
        return None


def _unknown(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return "unknown key; " + (f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}")
