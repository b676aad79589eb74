"""The file with the keys of the city is part of a good configuration, and is never quoted."""

from pathlib import Path

import pytest

from gateway.config.load import load
from tests.gateway.config.bed import GOOD, LINK_KEYS, only, secret, written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# none\n", "0 keys; a key file has 1 to 4"),
        ("", "city.keys is empty; `ansim-city gateway enrol` makes it: copy it there"),
        (
            "\ufeff" + LINK_KEYS,
            "city.keys:1: begins with a byte-order mark (BOM), which Notepad writes; save it as UTF-8 w",
        ),
        (LINK_KEYS.replace("2 ", "2000 "), "line 1 is not a key number"),
        (LINK_KEYS.replace("cd", "ab"), "line 2 has the number or the key of another line"),
        (LINK_KEYS.replace("ab" * 32, "ab" * 31), "line 1 is not a key number"),
        ("\xe9", "not ASCII text"),
    ],
)
def test_a_wrong_key_file_is_told_and_not_quoted(folder: Path, text: str, said: str) -> None:
    secret(folder / "city.keys", text)
    problem = only(folder, GOOD)
    assert said in problem
    assert "mqtt.city_key_file" in problem
    assert "right is the file that `ansim-city gateway enrol` made" in problem
    assert "abab" not in problem


def test_a_key_file_that_others_can_read_or_that_is_missing_is_told(folder: Path) -> None:
    secret(folder / "city.keys", LINK_KEYS, 0o640)
    assert "chmod 600" in only(folder, GOOD)
    (folder / "city.keys").unlink()
    assert "city.keys cannot be read" in only(folder, GOOD)


def test_the_file_may_have_another_name(folder: Path) -> None:
    secret(folder / "other", LINK_KEYS)
    (folder / "city.keys").unlink()
    text = GOOD.replace("port = 1883", 'port = 1883\ncity_key_file = "other"')
    assert load(written(folder, text)).config.mqtt.city_key_file == "other"
