"""The enrolment record: secret, complete after any crash, and never two readers under one number."""

import json
import os
import stat
import subprocess
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from readers.inventory import DuplicateReader, Inventory, InventoryError, Record
from readers.provision import BadPin

A, B = "0013a20041a06e60", "0013a20041a06e61"
C = "00112233445566778899aabbccddeeff"


def record(number: int, eui64: str, name: str = "") -> Record:
    return Record(number, name, eui64, "83FED3407A939723A5C639B26916D505C3B5", "0123456789ab", "1014")


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    store = Inventory(tmp_path / "new" / "folder")
    store.save(record(7, A, "혜화로 17"))
    store.save(record(3, B))
    again = Inventory(tmp_path / "new" / "folder")
    assert again.records() == {7: record(7, A, "혜화로 17"), 3: record(3, B)}
    assert again.by_eui64(bytes.fromhex(A)) == record(7, A, "혜화로 17")
    assert again.by_eui64(bytes(8)) is None
    assert again.next_number() == 8
    assert record(7, A).reader().channel_mask == 0x7FFF


def test_files_are_for_the_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Inventory(tmp_path / "i")
        store.save(record(7, A))
        store.make_key(7)
        (tmp_path / "i" / "reader_keys.new").touch(0o666)  # left by a crash
        store.make_key(7)
    finally:
        os.umask(before)
    for path in (tmp_path / "i").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "i").stat().st_mode) == 0o700


def test_keys_are_random_and_kept_by_number(tmp_path: Path) -> None:
    store = Inventory(tmp_path)
    keys = [store.make_key(number) for number in (1, 2, 3)]
    assert len(set(keys)) == 3
    assert [store.key(number) for number in (1, 2, 3, 4)] == [*keys, None]
    assert json.loads((tmp_path / "reader_keys.json").read_text()) == {
        str(number): key.hex() for number, key in enumerate(keys, 1)
    }
    assert store.make_key(1) != keys[0]


def test_one_number_is_one_module_and_both_are_named(tmp_path: Path) -> None:
    store = Inventory(tmp_path)
    store.save(record(7, A, "gate"))
    with pytest.raises(DuplicateReader, match=rf"7 belongs to module {A} \(gate\), this is {B}; give --number 8"):
        store.save(record(7, B))
    with pytest.raises(DuplicateReader, match=rf"module {A} is already reader 7 \(gate\), not 9"):
        store.save(record(9, A))
    with pytest.raises(DuplicateReader):
        store.save(record(9, A), replace=True)
    store.save(record(7, A, "gate, north"))
    store.save(record(7, B), replace=True)
    assert store.records() == {7: record(7, B)}


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Inventory(tmp_path)
    store.save(record(7, A))

    def crash(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(InventoryError, match="No space left"):
        store.save(record(8, B))
    monkeypatch.undo()
    assert store.records() == {7: record(7, A)}
    store.save(record(8, B))
    assert set(store.records()) == {7, 8}


def test_two_technicians_at_once_lose_nothing(tmp_path: Path) -> None:
    def enrol(start: int) -> None:
        for number in range(start, start + 10):
            Inventory(tmp_path).make_key(number)
            Inventory(tmp_path).save(record(number, f"{number:016x}"))

    threads = [threading.Thread(target=enrol, args=(start,)) for start in (1, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Inventory(tmp_path).records()) == set(range(1, 21))
    assert all(Inventory(tmp_path).key(number) for number in range(1, 21))


def test_forget_takes_record_and_key(tmp_path: Path) -> None:
    store = Inventory(tmp_path)
    store.save(record(7, A))
    store.make_key(7)
    store.forget(7)
    assert (store.records(), store.key(7)) == ({}, None)
    with pytest.raises(InventoryError, match="no reader 7"):
        store.forget(7)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"7": {}}', '{"x": 1}', '{"7": {"number": 8}}', json.dumps({"70000": {**vars(record(70000, A))}})],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "readers.json").write_text(text)
    with pytest.raises(InventoryError, match=r"readers\.json.*backup"):
        Inventory(tmp_path).save(record(1, B))
    assert (tmp_path / "readers.json").read_text() == text


def test_a_damaged_key_is_named_but_not_shown(tmp_path: Path) -> None:
    (tmp_path / "reader_keys.json").write_text('{"7": "abcdef"}')
    with pytest.raises(InventoryError, match="key of reader 7") as caught:
        Inventory(tmp_path).key(7)
    assert "abcdef" not in str(caught.value)


def test_the_update_key_is_made_once_and_is_a_point_of_p256(tmp_path: Path) -> None:
    store = Inventory(tmp_path / "i")
    with pytest.raises(InventoryError, match=r"no .*update_key\.pem; flash a reader"):
        store.update_key()
    point = store.make_update_key()
    x, y = int.from_bytes(point[1:33]), int.from_bytes(point[33:])
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B  # FIPS 186-4, D.1.2.3
    assert (len(point), point[0]) == (65, 4)
    assert (y * y - (x**3 - 3 * x + b)) % prime == 0
    assert store.make_update_key() == point == Inventory(tmp_path / "i").update_key()
    assert stat.S_IMODE((tmp_path / "i" / "update_key.pem").stat().st_mode) == 0o600


def test_what_is_signed_with_the_update_key_is_proven_by_its_public_part(tmp_path: Path) -> None:
    point = Inventory(tmp_path).make_update_key()
    (tmp_path / "image").write_bytes(b"a file system")
    key = str(tmp_path / "update_key.pem")
    sign = ["openssl", "dgst", "-sha256", "-sign", key, "-out", str(tmp_path / "signature"), str(tmp_path / "image")]
    subprocess.run(sign, check=True)
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    public.verify((tmp_path / "signature").read_bytes(), b"a file system", ec.ECDSA(SHA256()))


def test_a_damaged_update_key_is_named_left_alone_and_not_shown(tmp_path: Path) -> None:
    store = Inventory(tmp_path)
    other = subprocess.run(
        ["openssl", "ecparam", "-name", "secp384r1", "-genkey", "-noout"], capture_output=True, check=True
    ).stdout
    for content, why in ((b"", "no key that openssl can read"), (b"secret", "no key that"), (other, "curve P-256")):
        (tmp_path / "update_key.pem").write_bytes(content)
        with pytest.raises(InventoryError, match=rf"update_key\.pem .*{why}.*backup") as caught:
            store.make_update_key()
        assert (tmp_path / "update_key.pem").read_bytes() == content
        assert "secret" not in str(caught.value)


def test_a_machine_without_openssl_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InventoryError, match=r"openssl.*sudo apt-get install openssl"):
        Inventory(tmp_path / "i").make_update_key()
    assert not (tmp_path / "i" / "update_key.pem").exists()


def test_a_record_with_a_pin_that_is_refused_now_loads_and_hides_no_other(tmp_path: Path) -> None:
    store = Inventory(tmp_path)
    store.save(record(7, A))
    rows = json.loads((tmp_path / "readers.json").read_text())
    rows["7"]["bells"] = ["D5"]
    (tmp_path / "readers.json").write_text(json.dumps(rows))
    store.save(record(8, B))
    assert set(store.records()) == {7, 8}
    assert store.records()[7].bells == ("D5",)
    with pytest.raises(BadPin, match=r"bell pin 'D5'.*give --bell"):
        store.records()[7].reader()
    assert store.records()[7].reader(bells=("D4",)).bells == ("D4",)


def test_no_entry_that_is_there_twice_is_dropped(tmp_path: Path) -> None:
    store = Inventory(tmp_path)
    row = json.dumps(asdict(record(7, A, "gate")))
    (tmp_path / "readers.json").write_text(text := f'{{"7": {row},\n"8": {row},\n"7": {row}}}')
    with pytest.raises(InventoryError, match=r"readers\.json is damaged: line 3: the key '7' is given twice .*line 1"):
        store.save(record(9, B))
    assert (tmp_path / "readers.json").read_text() == text
    (tmp_path / "reader_keys.json").write_text(keys := f'{{"7": "{C}",\n"7": "{C[::-1]}"}}')
    with pytest.raises(InventoryError, match=r"reader_keys\.json is damaged: line 2: the key '7' is given twice"):
        store.make_key(8)
    assert (tmp_path / "reader_keys.json").read_text() == keys


@pytest.mark.parametrize(
    ("number", "change", "said"),
    [
        ("8", {"number": 8}, f"entry '8': module {A} is reader 7 already"),
        ("8", {"number": 8, "eui64": A.upper()}, f"entry '8': module {A} is reader 7 already"),
        ("8", {"number": 8, "eui64": "1.3A2E+15"}, "entry '8': '1.3A2E\\+15' is what a spreadsheet makes"),
        ("8", {"number": 8, "eui64": A[2:]}, f"were leading zeros lost, as in a spreadsheet. Then it is {A}"),
        ("07", {}, "entry '07': the entry's name is not a number, without zeros in front"),
        ("٨", {"number": 8, "eui64": B}, "the entry's name is not a number"),
        ("8", {"number": 8, "eui64": B, "bells": "D4"}, "bells is not a list of pins"),
        ("8", {"number": "8", "eui64": B}, "it says number '8'"),
        ("8", {"number": 8, "eui64": B, "pole": "x"}, "it has pole, which no reader has"),
        ("8", {"number": 8, "eui64": B, "name": 5}, "name is not text in quotes"),
        ("8", {"number": 8, "eui64": B, "install_code": "8.3FED34E+35"}, "the install code is not 16 bytes"),
    ],
)
def test_an_entry_that_somebody_changed_is_named_and_nothing_is_written(
    tmp_path: Path, number: str, change: dict[str, object], said: str
) -> None:
    rows = {"7": asdict(record(7, A)), number: asdict(record(7, A)) | change}
    (tmp_path / "readers.json").write_text(text := json.dumps(rows))
    with pytest.raises(InventoryError, match=said):
        Inventory(tmp_path).save(record(9, "0013a20041a06e62"))
    assert (tmp_path / "readers.json").read_text() == text


def test_a_module_enrolled_in_capital_letters_is_found_and_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "readers.json").write_text("\ufeff" + json.dumps({"7": asdict(record(7, A)) | {"eui64": A.upper()}}))
    found = Inventory(tmp_path).by_eui64(bytes.fromhex(A))
    assert found == record(7, A)


def test_keys_under_a_name_that_is_no_number_are_not_lost_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "reader_keys.json").write_text(text := json.dumps({"7": "00" * 16, "ab" * 16: "11" * 16}))
    with pytest.raises(InventoryError, match="entry 2: not the number of a reader") as caught:
        Inventory(tmp_path).make_key(8)
    assert (tmp_path / "reader_keys.json").read_text() == text
    assert "abab" not in str(caught.value)
