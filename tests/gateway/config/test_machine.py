"""`check` looks at this machine too: the stick, the folders, the port. `run` does not: it waits and makes folders."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.config import machine
from gateway.config.findings import ConfigError
from gateway.config.load import load
from gateway.options import Installation
from tests.gateway.config.bed import GOOD, certificate, secret, written

PORT = "socket://127.0.0.1:6638"


def looked_at(folder: Path, text: str) -> Installation:
    """Return what `check` makes of a configuration that has no fault."""
    return load(written(folder, text), here=True)


def fault(folder: Path, text: str) -> str:
    """Return the one fault that `check` finds and `run` does not."""
    path = written(folder, text)
    load(path)
    with pytest.raises(ConfigError) as caught:
        load(path, here=True)
    [found] = caught.value.problems
    return str(found)


def test_a_folder_that_run_makes_is_no_fault_and_is_not_made(folder: Path) -> None:
    assert looked_at(folder, GOOD).notes == (f"store.folder: {folder}/outbox is not there yet; `run` makes it",)
    assert not (folder / "outbox").exists()
    (folder / "outbox").mkdir()
    assert looked_at(folder, GOOD).notes == ()


def test_a_stick_that_is_not_there_is_said_and_may_be_plugged_in_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "outbox").mkdir()
    other = folder / "by-id" / "usb-other"
    other.parent.mkdir()
    other.symlink_to("/dev/null")
    monkeypatch.setattr(machine, "BY_ID", folder / "by-id")
    port = folder / "by-id" / "usb-stick"
    text = GOOD.replace(PORT, str(port))
    [note] = looked_at(folder, text).notes
    assert note.startswith(f"radio.port: the stick is not there: {port}; the serial ports here are {other}")
    assert "`run`, which ends with code 3 without it" in note
    assert load(written(folder, text)).notes == (), "`run` says so itself, each time it tries"
    port.symlink_to("/dev/null")
    assert looked_at(folder, text).notes == ()


def test_what_is_no_serial_port_is_a_fault(folder: Path) -> None:
    (folder / "outbox").mkdir()
    secret(folder / "file", "x")
    assert fault(folder, GOOD.replace(PORT, f"{folder}/file")).startswith(
        f"line 5: radio.port: {folder}/file is a file"
    )
    assert "is a folder, not a serial port" in fault(folder, GOOD.replace(PORT, str(folder)))


def test_a_port_that_is_not_ours_is_said_with_the_group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "outbox").mkdir()
    right = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "/dev/null" and right(path, mode))
    [note] = looked_at(folder, GOOD.replace(PORT, "/dev/null")).notes
    assert "may not open /dev/null. The unit ansim-gateway.service adds the group dialout" in note


def test_a_folder_that_nobody_makes_is_a_fault(folder: Path) -> None:
    secret(folder / "outbox", "x")
    found = fault(folder, GOOD)
    assert found == f"line 9: store.folder: {folder}/outbox is a file, not a folder; remove it, or name another folder"
    (folder / "outbox").unlink()
    text = GOOD.replace("channel = 20", 'channel = 20\ndatabase = "nowhere/zigbee.db"')
    assert f"line 7: radio.database: there is no folder {folder}/nowhere; do: sudo install -d" in fault(folder, text)
    assert looked_at(folder, text.replace("nowhere", "outbox")), "`run` makes that one"
    (folder / "zigbee.db").mkdir()
    assert "zigbee.db is a folder; name a file in it" in fault(folder, GOOD)


def test_a_folder_that_may_not_be_written_is_a_fault_unless_the_unit_makes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "closed"
    closed.mkdir()
    right = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and right(path, mode))
    text = GOOD.replace('"outbox"', '"closed/outbox"')
    assert "line 9: store.folder: " in fault(folder, text)
    assert f"may not make it in {closed}; do: sudo install -d -o ansim" in fault(folder, text)
    monkeypatch.setattr(machine, "STATE_FOLDER", closed / "outbox")
    [note] = looked_at(folder, text).notes
    assert "is not there yet; the unit ansim-gateway.service makes it" in note
    assert "closed may not be written by " in fault(folder, GOOD.replace('"outbox"', '"closed"'))


def test_a_port_that_does_not_fit_tls_is_a_fault(folder: Path) -> None:
    secret(folder / "ca.pem", certificate()[0])
    text = GOOD.replace("port = 1883", 'port = 1883\nca_file = "ca.pem"')
    assert fault(folder, text).startswith(
        "line 13: mqtt.port: TLS (ca_file) on port 1883, where most brokers have no TLS"
    )
    looked_at(folder, text.replace("port = 1883", "port = 8883"))
    assert "port 8883 is usually for TLS, and there is no ca_file" in fault(folder, GOOD.replace("1883", "8883"))


def test_figures_on_the_brokers_port_are_noted(folder: Path) -> None:
    (folder / "outbox").mkdir()
    [note] = looked_at(folder, GOOD.replace("[settings]", "[metrics]\nport = 1883\n[settings]")).notes
    assert note.startswith("metrics.port: 1883 is the broker's port on this machine too")
    elsewhere = GOOD.replace("[settings]", "[metrics]\nport = 1883\n[settings]").replace("127.0.0.1", "10.0.0.9")
    assert not [note for note in looked_at(folder, elsewhere).notes if note.startswith("metrics")]


def test_a_stick_that_may_only_be_read_is_not_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "outbox").mkdir()
    right = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (str(path) == "/dev/null" and mode & os.W_OK) and right(path, mode)
    )
    [note] = looked_at(folder, GOOD.replace(PORT, "/dev/null")).notes
    assert "may not open /dev/null" in note


def test_a_name_that_another_device_may_get_is_noted_with_the_permanent_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "outbox").mkdir()
    (folder / "by-id").mkdir()
    (folder / "by-id" / "usb-stick").symlink_to("/dev/null")
    monkeypatch.setattr(machine, "BY_ID", folder / "by-id")
    monkeypatch.setattr(machine, "Path", lambda path: Path(str(path).replace("/dev/ttyUSB0", "/dev/null")))
    [note] = looked_at(folder, GOOD.replace(PORT, "/dev/ttyUSB0")).notes
    assert note.endswith(f"another device may get this name at the next start; better is {folder}/by-id/usb-stick")


@pytest.mark.parametrize("closed", ["zigbee.db", "closed"])
def test_a_network_that_could_not_be_kept_is_a_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Without its database a gateway would form another network at each start, and lose its readers."""
    (folder / "outbox").mkdir()
    (folder / "zigbee.db").touch()
    (folder / "closed").mkdir()
    right = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (Path(path) == folder / closed and mode & os.W_OK) and right(path, mode)
    )
    database = "zigbee.db" if closed == "zigbee.db" else "closed/zigbee.db"
    text = GOOD.replace("channel = 20", f'channel = 20\ndatabase = "{database}"')
    assert f"line 7: radio.database: {folder}/{closed} may not be written by " in fault(folder, text)


def test_a_disk_with_less_room_than_the_outbox_may_take_is_noted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "outbox").mkdir()
    text = GOOD.replace('folder = "outbox"', 'folder = "outbox"\nbulk_max_mb = 64')
    for free_b, said in ((63_999_999, ["63 MB are free"]), (64_000_000, [])):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, free_b=free_b: SimpleNamespace(free=free_b))
        assert [note.partition(" on the disk")[0] for note in looked_at(folder, text).notes] == said
