"""The fixture of the survey's tests: the folder of a recorded site."""

from pathlib import Path

import pytest

from gateway.survey import write
from tests.gateway.survey.bed import SITE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write.save_site(tmp_path, SITE)
    return tmp_path
