"""A folder with the three key files that a good configuration names."""

from pathlib import Path

import pytest

from tests.gateway.config.bed import LINK_KEYS, READER_KEYS, TAG_KEYS, secret


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    secret(tmp_path / "reader_keys.json", READER_KEYS)
    secret(tmp_path / "tag_keys.json", TAG_KEYS)
    secret(tmp_path / "city.keys", LINK_KEYS)
    return tmp_path
