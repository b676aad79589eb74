"""Every file that `ansim-reader` reads, damaged in thousands of ways: it is read whole, or refused by its own error."""

import json
import random
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from readers.bringup import Before, Gathered, ReportFile
from readers.build import BuildError, read_build, read_manifest
from readers.files import BadFile, json_of
from readers.inventory import Inventory, InventoryError, Record
from readers.provision import Module
from tests.mutations import damaged, json_bytes, odd_paths, refused

SEED = 25
CODE = "83FED3407A939723A5C639B26916D505C3B5"
ROWS = {str(n): asdict(Record(n, f"pole {n}", f"0013a2004{n:07x}", CODE, "0123456789ab", "1014")) for n in (1, 2, 300)}
KEYS = {str(n): f"{n:032x}" for n in (1, 2, 300)}
NEW = Record(9, "new", "0013a20041a06eff", CODE, "0123456789ab", "1014")
MODULE = Module(hv=0x4247, vr=0x1014, eui64=bytes.fromhex("0013a20041a06e60"), install_code=bytes.fromhex(CODE), ai=0)
MEASURED = {
    "names": {"gc.threshold": False}, "boot": {"free_b": 30_000},
    "scan": {"first": None, "after_stop": ["OSError", 7019]},
    "stop": {"latest_ms": 30, "refused_of_100": 3}, "flash": {"skipped": "no room"}, "errors": {"EAGAIN": 7011},
}  # fmt: skip


def test_json_is_what_a_usual_parser_reads_or_refused() -> None:
    chance = random.Random(SEED)
    counts = [0, 0]
    for _ in range(2000):
        data = json_bytes(chance, ROWS)
        if refused(partial(json_of, data), BadFile):
            counts[0] += 1
            continue
        counts[1] += 1
        value = json_of(data)
        assert value == json.loads(data.decode("utf-8-sig"))
        assert json.loads(json.dumps(value)) == value
    assert min(counts) > 250


@pytest.mark.parametrize("name", ["readers.json", "reader_keys.json"])
def test_an_inventory_is_read_or_refused(tmp_path: Path, name: str) -> None:
    chance, store = random.Random(SEED), Inventory(tmp_path)
    (tmp_path / "readers.json").write_text(json.dumps(ROWS))
    (tmp_path / "reader_keys.json").write_text(json.dumps(KEYS))
    good = ROWS if name == "readers.json" else KEYS
    counts = [0, 0]
    for _ in range(1200):
        (tmp_path / name).write_bytes(json_bytes(chance, good))
        counts[refused(store.records if good is ROWS else partial(store.key, 2), InventoryError)] += 1
    assert min(counts) > 100


@pytest.mark.parametrize("name", ["readers.json", "reader_keys.json"])
def test_what_is_saved_over_a_changed_inventory_keeps_every_entry(tmp_path: Path, name: str) -> None:
    chance, store = random.Random(SEED), Inventory(tmp_path)
    path, good = tmp_path / name, ROWS if name == "readers.json" else KEYS
    kept = 0
    for _ in range(250):
        path.write_bytes(before := json_bytes(chance, good))
        if refused(lambda: store.save(NEW) if good is ROWS else store.make_key(9), InventoryError):
            assert path.read_bytes() == before
            continue
        kept += 1
        was, now = json.loads(before.decode("utf-8-sig")), json.loads(path.read_text())
        assert now.keys() == was.keys() | {"9"}
        if good is ROWS:
            for number in was.keys() - {"9"}:
                told = was[number] | {"eui64": now[number]["eui64"]}
                assert {key: now[number][key] for key in told} == told
        else:
            assert {number: now[number].lower() for number in was.keys() - {"9"}} == {
                number: key.lower() for number, key in was.items() if number != "9"
            }
    assert kept > 25


def test_a_file_of_a_bringup_is_read_or_refused(tmp_path: Path) -> None:
    chance, file = random.Random(SEED), ReportFile(tmp_path / "bringup.json", MODULE)
    before = Before({"AP": "4", "PS": "1"}, "desk", kept=True, sent=["main.mpy"])
    file.write(Gathered(told={"VR": "1014"}, measured=MEASURED, before=before, boot_s=1.6))
    good = json.loads(file.path.read_text())
    assert file.read(go_on=True).before == before
    counts = [0, 0]
    for n in range(1200):
        file.path.write_bytes(json_bytes(chance, good))
        counts[refused(lambda n=n: file.write(file.read(go_on=n % 2 == 0)), ValueError)] += 1
    assert min(counts) > 300


def test_a_build_and_its_list_are_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    (tmp_path / "main.mpy").write_bytes(b"M")
    (tmp_path / "main.py").write_bytes(b"x = 1\n")
    digest = "08f271887ce94707da822d5263bae19d5519cb3614e0daedc4c7ce5dab7473f1"
    sums, listed = f"{digest}  main.mpy\n".encode(), b"# the program\nmain.py\nmain.py\nconfig.py # of each reader\n"
    for _ in range(2000):
        (tmp_path / "SHA256SUMS").write_bytes(damaged(chance, sums))
        refused(partial(read_build, tmp_path), BuildError)
        (tmp_path / "manifest.txt").write_bytes(damaged(chance, listed))
        refused(partial(read_manifest, tmp_path), BuildError)


def test_no_odd_path_stops_the_program(tmp_path: Path) -> None:
    for name in ("readers.json", "reader_keys.json", "update_key.pem", "SHA256SUMS", "manifest.txt", "bringup.json"):
        (tmp_path / name).mkdir()
        for n, odd in enumerate(odd_paths(tmp_path / name)):
            folder = tmp_path / f"{name}{n}"
            folder.mkdir()
            (folder / name).symlink_to(odd)
            store, file = Inventory(folder), ReportFile(folder / "bringup.json", MODULE)
            refused(store.records, InventoryError)
            refused(partial(store.key, 1), InventoryError)
            assert refused(store.update_key, InventoryError)
            assert refused(partial(read_build, folder), BuildError)
            assert refused(partial(read_manifest, folder), BuildError)
            refused(partial(file.read, go_on=True), ValueError)
