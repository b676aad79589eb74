"""A new thing is whole: what the city gets is shown, what can be set is used, what a broker must pass on is allowed."""

import ast
import re
from collections.abc import Iterator
from typing import get_args

import msgspec
import pytest

from city import config
from gateway import events, options, uplink
from readers import wire
from sim.demo import scenario
from tests.roots import ROOT

FOR_PEOPLE = {"pole"}
"""Settings that only people read."""
OWN_ADDRESSES = {"/logout", "/map.geojson", "/static/{file}"}
"""What the console fetches for itself."""
CONSOLE = "\n".join((ROOT / "city/pages" / name).read_text(encoding="utf-8") for name in ("console.js", "phrases.js"))


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [*events.EMERGENCY_TYPES, *events.ROUTINE_TYPES], ids=lambda kind: kind.__name__)
def test_the_console_has_words_for_every_event(kind: type[msgspec.Struct]) -> None:
    tag = str(kind.__struct_config__.tag)
    assert re.search(rf"\b{tag}\b", CONSOLE), f"operators never see {tag}: city/pages/phrases.js"


def settings(cls: type[msgspec.Struct]) -> Iterator[str]:
    """Yield the names of all keys of a table and of the tables in it, those of lists apart."""
    for field in msgspec.structs.fields(cls):
        inner = [each for each in (field.type, *get_args(field.type)) if isinstance(each, type)]
        tables = [each for each in inner if issubclass(each, msgspec.Struct)]
        if not tables:
            yield field.name
        for each in tables:
            yield from settings(each)


def read_names(package: str) -> set[str]:
    """Return every name that a package reads as an attribute, or by its text."""
    found: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


@pytest.mark.parametrize(("package", "kind"), [("gateway", options.GatewayConfig), ("city", config.CityConfig)])
def test_every_setting_is_used(package: str, kind: type[msgspec.Struct]) -> None:
    unused = set(settings(kind)) - read_names(package) - FOR_PEOPLE
    assert not unused, f"{package} takes these settings and does nothing with them: {', '.join(sorted(unused))}"


def test_the_sample_broker_lets_every_topic_pass_for_both_sides_and_no_other() -> None:
    found: dict[str, set[str]] = {}
    for line in (ROOT / "deploy/mosquitto/ansim.acl").read_text(encoding="utf-8").splitlines():
        if line.startswith("user "):
            allowed = found.setdefault(line.removeprefix("user "), set())
        elif line.startswith("topic "):
            _, access, topic = line.split()
            allowed.add(f"{access} {topic.rpartition('/')[2]}")
    down = set(get_args(uplink.TopicKind)) - set(uplink.UP_KINDS)
    assert found.pop("city") == {*(f"read {kind}" for kind in uplink.UP_KINDS), *(f"write {kind}" for kind in down)}
    assert found
    for gateway, allowed in found.items():
        wanted = {*(f"write {kind}" for kind in uplink.UP_KINDS), *(f"read {kind}" for kind in down)}
        assert allowed == wanted, gateway


def test_every_fault_of_the_demo_is_explained() -> None:
    missing = [kind for kind in scenario.KINDS if f"`{kind}@T`" not in page("SIMULATOR.md")]
    assert not missing, f"not in docs/SIMULATOR.md: {', '.join(missing)}"


def raised_places() -> set[int]:
    """Return the places in wire.FAULTS that the firmware reports, each by a constant of its file."""
    found: set[int] = set()
    for path in sorted((ROOT / "firmware").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        numbers = {
            node.targets[0].id: node.value.args[0].value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.args[0], ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "health.fault":
                found.add(int(str(numbers[ast.unparse(node.args[0])])))
    return found


def test_every_fault_of_a_reader_is_reported_by_its_firmware() -> None:
    assert raised_places() == set(range(len(wire.FAULTS)))


def addresses() -> set[str]:
    """Return the addresses of the city, each up to what changes in it."""
    found: set[str] = set()
    for path in sorted((ROOT / "city/pages").glob("*.py")):
        found |= set(re.findall(r"@app\.(?:get|post)\(\s*\"([^\"]+)\"", path.read_text(encoding="utf-8")))
    return {address.partition("/{")[0] for address in found - OWN_ADDRESSES}


def test_every_address_of_the_city_is_documented() -> None:
    assert {"/", "/login", "/api/state", "/calls"} <= addresses()
    missing = [each for each in sorted(addresses()) if not re.search(rf"{each}(?![\w.])", page("CITY.md"))]
    assert not missing, f"not in docs/CITY.md: {', '.join(missing)}"
