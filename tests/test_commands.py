"""The four commands talk alike: exit codes, --version, metavariables, and a help that is never cut."""

import re
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from readers.terminal import MEANS, Exit, exits, fail, version
from tests.roots import ROOT
from tests.test_docs import apps, commands

COMMANDS = commands()
WIDTHS = (80, 160)


def helped(name: str, width: int) -> str:
    """Return what `NAME --help` prints in a terminal of this width."""
    program, *words = name.split()
    ran = CliRunner().invoke(
        apps()[program], [*words, "--help"], env={"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}
    )
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_exit_codes_are_told_in_one_way(name: str, command: click.Command) -> None:
    told = command.epilog or ""
    assert told.startswith("Exit codes: 0 "), f"{name}: epilog=exits(...) says which codes it has"
    numbers = [Exit(int(number)) for number in re.findall(r"(?:^Exit codes: |; )(\d+) ", told)]
    assert told == exits(*numbers)
    assert not re.search(r"[Ee]xit codes?[ :]", (command.help or "").replace(told, "")), f"{name} tells codes twice"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_a_value_has_one_word_in_capitals(name: str, command: click.Command) -> None:
    for parameter in command.params:
        flag = getattr(parameter, "is_flag", False) or getattr(parameter, "count", False)  # Typer's, not click's
        if not flag and parameter.name != "help":
            shown = parameter.metavar or ""
            assert re.fullmatch(r"[A-Z][A-Z0-9_]*([,=@:|][A-Z0-9_]+)*", shown), f"{name} {parameter.opts[0]}: {shown!r}"


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_help_is_cut_and_none_names_a_path_of_one_machine(name: str, width: int) -> None:
    text = helped(name, width)
    assert "…" not in text
    assert not re.search(r"<\w+>", text), "a Python type is no word for a technician"
    assert str(ROOT) not in text
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("program", sorted(apps()))
def test_each_program_says_its_version(program: str) -> None:
    app: Any = apps()[program]
    ran = CliRunner().invoke(app, ["--version"])
    assert ran.exit_code == 0
    assert ran.output.startswith(f"ansim {version()} (Python 3.")


def test_every_exit_code_is_documented_once() -> None:
    page = (ROOT / "docs" / "INSTALL.md").read_text(encoding="utf-8")
    for code, meaning in MEANS.items():
        assert page.count(f"| {code.value} | {meaning} |") == 1


def test_what_is_wrong_goes_to_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail("the stick is gone; plug it in", Exit.DEVICE)
    assert ended.value.exit_code == 3
    assert capsys.readouterr() == ("", "the stick is gone; plug it in\n")
