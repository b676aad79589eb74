"""Every command, option, topic and setting is documented. A new one that docs/ does not mention fails here."""

import re
from typing import Any, get_args

import click
import msgspec
import pytest
import typer.main

from city import config
from gateway import events, options, uplink
from readers import wire
from tests.roots import ROOT

DOCS = "\n".join(
    path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
)


def apps() -> dict[str, Any]:
    import city.__main__
    import gateway.__main__
    import readers.__main__
    import sim.__main__

    return {
        "ansim-gateway": gateway.__main__.app,
        "ansim-city": city.__main__.app,
        "ansim-sim": sim.__main__.app,
        "ansim-reader": readers.__main__.app,
    }


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []

    def walk(name: str, command: Any) -> None:
        if hasattr(command, "commands"):
            for sub, child in command.commands.items():
                walk(f"{name} {sub}", child)
        else:
            found.append((name, command))

    for name, app in apps().items():
        walk(name, typer.main.get_command(app))
    return found


def test_every_command_and_option_is_documented() -> None:
    missing = []
    for name, command in commands():
        if not re.search(rf"{name}(?![\w-])", DOCS):
            missing.append(name)
        for parameter in command.params:
            for option in parameter.opts:
                own = option.startswith("--") and option not in ("--help", "--install-completion", "--show-completion")
                if own and not re.search(rf"(?<![\w-]){option}(?![\w-])", DOCS):
                    missing.append(f"{name} {option}")
    assert not missing, "not in README.md or docs/: " + ", ".join(missing)


def test_every_command_has_help_a_technician_understands() -> None:
    for name, command in commands():
        assert len(command.help or "") > 20, f"{name} has no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts[0]} has no help"


@pytest.mark.parametrize("kind", get_args(uplink.TopicKind))
def test_every_topic_is_documented(kind: str) -> None:
    assert f"ansim/v2/{{site}}/gw/{{gateway}}/{kind}" in DOCS


def test_every_event_and_field_is_documented() -> None:
    missing = []
    for cls in (*events.EMERGENCY_TYPES, *events.ROUTINE_TYPES, uplink.Watermark, uplink.StageNotice, uplink.Status):
        tag = cls.__struct_config__.tag
        missing += [f"{cls.__name__}.{field}" for field in cls.__struct_fields__ if f"`{field}`" not in DOCS]
        if tag and f"`{tag}`" not in DOCS:
            missing.append(str(tag))
    assert not missing, f"not in docs/: {', '.join(missing)}"


def _settings(cls: type[msgspec.Struct]) -> list[str]:
    names = []
    for field in msgspec.structs.fields(cls):
        names.append(field.encode_name)
        for kind in (field.type, *get_args(field.type)):
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                names += _settings(kind)
    return names


@pytest.mark.parametrize("package", ["gateway", "city"])
def test_every_setting_is_documented(package: str) -> None:
    kind = {"gateway": options.GatewayConfig, "city": config.CityConfig}[package]
    page = (ROOT / "docs" / f"{package.upper()}.md").read_text(encoding="utf-8")
    missing = [name for name in _settings(kind) if f"`{name}`" not in page and f"{name} =" not in page]
    assert not missing, f"settings without a word in docs/{package.upper()}.md: {', '.join(missing)}"


def test_every_counter_of_the_core_is_documented_and_none_that_is_gone() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "gateway").rglob("*.py")))
    page = (ROOT / "docs" / "GATEWAY.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`core_([a-zN_0-9]+)`", page))
    counted = set(re.findall(r'counts\["([a-z_0-9]+)"\]', source))
    assert counted
    assert not counted - documented, "counters without a word in docs/GATEWAY.md"
    strings = set(re.findall(r'"([a-z_0-9]+(?:\{[^}"]*\}[a-z_0-9]*)*)"', source))
    made = re.compile("|".join(re.sub(r"\\\{.*?\\\}", r"\\w+", re.escape(each)) for each in strings))
    assert not [name for name in sorted(documented) if not made.fullmatch(name)], "no code counts these"


def test_every_field_of_the_wire_is_documented() -> None:
    page = (ROOT / "docs" / "FIRMWARE.md").read_text(encoding="utf-8")
    missing = [name for name in (*wire.HEARTBEAT_FIELDS, *wire.SETTINGS_FIELDS) if f"`{name}`" not in page]
    assert not missing, f"not in docs/FIRMWARE.md: {', '.join(missing)}"


def test_every_make_target_is_in_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    phony = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    assert set(shown) == set(phony), "each target has a line of help, and each is phony"
    assert not [t for t in shown if not re.search(rf"make {t}(?![\w-])", readme)]
    named = {name for text in (readme, DOCS) for name in re.findall(r"`make ([a-z-]+)", text)}
    assert named <= set(shown), "pages name a target that is gone"


def test_each_test_that_examined_names_is_there() -> None:
    named = re.findall(r"`(?:(tests/[^`:]+\.py))?::(\w+)", (ROOT / "docs/EXAMINED.md").read_text())
    path = ""
    assert len(named) > 10
    for own_path, name in named:
        path = own_path or path
        assert re.search(rf"^def {name}", (ROOT / path).read_text(), re.MULTILINE), (path, name)
