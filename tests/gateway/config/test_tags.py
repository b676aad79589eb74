"""`ansim-gateway tag`: two keys for a tag, in a file that only its owner reads; no keys that are on a tag are lost."""

import json
import os
from pathlib import Path

import pytest

from gateway.config import tags
from gateway.config.tags import TagFileError
from tests.gateway.config.bed import TAG_KEYS, secret


def test_a_new_tag_has_two_keys_of_its_own_in_a_file_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "tag_keys.json"
    for tag in ("tag-001", "tag-002"):
        tags.make(tag, path)
    rows = json.loads(path.read_text())
    assert {tag: set(row) for tag, row in rows.items()} == {key: {"k_id", "k_mic"} for key in ("tag-001", "tag-002")}
    keys = [key for row in rows.values() for key in row.values()]
    assert len(set(keys)) == 4
    assert {len(bytes.fromhex(key)) for key in keys} == {16}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_keys_that_may_be_on_a_tag_are_never_replaced(folder: Path) -> None:
    path, other = folder / "tag_keys.json", folder / "other.json"
    with pytest.raises(TagFileError, match="t-01 has keys already"):
        tags.make("t-01", path)
    tags.hand_over("t-01", path, other)
    tags.hand_over("t-01", path, other)
    assert json.loads(other.read_text()) == {"t-01": TAG_KEYS["t-01"]}
    secret(other, {"t-01": TAG_KEYS["t-02"]})
    with pytest.raises(TagFileError, match="t-01 has other keys there"):
        tags.hand_over("t-01", path, other)
    assert json.loads(other.read_text()) == {"t-01": TAG_KEYS["t-02"]}
    assert json.loads(path.read_text()) == TAG_KEYS


def test_a_tag_is_removed_alone_and_one_that_is_not_there_changes_nothing(folder: Path) -> None:
    path = folder / "tag_keys.json"
    before = path.read_bytes()
    for work in (lambda: tags.drop("t-09", path), lambda: tags.hand_over("t-09", path, folder / "other.json")):
        with pytest.raises(TagFileError, match="t-09 is not there; it has 2 tags"):
            work()
    assert path.read_bytes() == before
    assert not (folder / "other.json").exists()
    tags.drop("t-01", path)
    assert json.loads(path.read_text()) == {"t-02": TAG_KEYS["t-02"]}


@pytest.mark.parametrize("tag", ["", "Kim Min-jun", "-x", "x" * 65, "tag/1", "김"])
def test_a_name_that_is_no_pseudonym_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(TagFileError, match="is no pseudonym"):
        tags.make(tag, tmp_path / "tag_keys.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", [{"t-01": {"k_id": "01" * 16}}, {"t-01": {"k_id": "01" * 16, "k_mic": "0"}}, {"t 01": TAG_KEYS["t-01"]}]
)
def test_a_file_of_something_else_is_not_written_over(tmp_path: Path, value: object) -> None:
    path = secret(tmp_path / "tag_keys.json", value)
    before = path.read_bytes()
    with pytest.raises(TagFileError, match="entry 1: not a pseudonym and its two keys"):
        tags.make("t-03", path)
    assert path.read_bytes() == before


def test_a_crash_leaves_the_old_file_and_the_owner_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "tag_keys.json"
    owned: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, user, group: owned.append((user, group)))

    def fails(_: object, __: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "replace", fails)
        with pytest.raises(TagFileError, match="No space left on device"):
            tags.make("t-03", path)
    assert json.loads(path.read_text()) == TAG_KEYS
    assert not list(folder.glob(".tag_keys*"))
    tags.make("t-03", path)
    assert owned[-1] == (path.stat().st_uid, path.stat().st_gid), "root adds a tag, and the gateway's user reads on"
