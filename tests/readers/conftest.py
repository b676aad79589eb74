"""Fixtures of the readers' tests: a bench with a new module, a bench with a flashed one, and short waits."""

import shutil
from pathlib import Path

import pytest

import readers.__main__ as command
from tests.readers.bed import FAST, Bench


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TIMING", FAST)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def flashed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flashed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "TIMING", FAST)
        assert Bench(folder).flash().exit_code == 0
    return folder


@pytest.fixture
def flashed(flashed_once: Path, tmp_path: Path) -> Bench:
    """A bench whose module is already reader 7: a copy of a bench that was flashed in full."""
    return Bench(shutil.copytree(flashed_once, tmp_path / "bench"))
