"""The virtual XBee by itself: command mode, settings, files. No pty and no sleep; the clock is a number."""

import binascii
import json
import os
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
import serial

from sim.xbee.module import Factory, Faults, Pty, VirtualXBee, install_code
from sim.xbee.ymodem import ACK, CAN, EOT, NAK, SETTLE_S, SOH, STX
from tests.roots import ROOT


class Host:
    """Drives a module as a terminal would, with its own clock."""

    def __init__(self, module: VirtualXBee) -> None:
        self.module, self.now_s = module, 100.0

    def send(self, data: bytes) -> bytes:
        self.now_s += 0.001
        return self.module.receive_data(data, self.now_s) + self.module.on_tick(self.now_s)

    def wait(self, seconds: float) -> bytes:
        self.now_s += seconds
        return self.module.on_tick(self.now_s)

    def enter(self) -> "Host":
        self.wait(1.1)
        self.send(b"+++")
        assert self.wait(1.1) == b"OK\r"
        return self

    def at(self, command: str) -> str:
        return self.send(f"AT{command}\r".encode()).decode()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(VirtualXBee(tmp_path)).enter()


def block(sequence: int, data: bytes, size: int = 128) -> bytes:
    """A YMODEM block, made with the standard library's CRC and not by the code under test."""
    body = data.ljust(size, b"\x1a" if sequence else b"\0")
    head = bytes((SOH if size == 128 else STX, sequence & 0xFF, 255 - (sequence & 0xFF)))
    return head + body + binascii.crc_hqx(body, 0).to_bytes(2, "big")


def put(host: Host, name: str, content: bytes) -> bytes:
    """Send a file and return everything that the module answered after its prompt."""
    assert host.at(f"FS PUT {name}").endswith("C")
    answer = host.send(block(0, b"x\0" + str(len(content)).encode()))
    for index in range(0, len(content), 1024):
        answer += host.send(block(index // 1024 + 1, content[index : index + 1024], 1024))
    answer += host.send(bytes((EOT,)))
    return answer + host.send(block(0, b""))


def test_command_mode_needs_silence_before_and_after(tmp_path: Path) -> None:
    host = Host(VirtualXBee(tmp_path))
    host.send(b"x")
    host.wait(0.5)
    host.send(b"+++")
    assert host.wait(2.0) == b"", "no silence before"
    host.send(b"+++")
    host.wait(0.5)
    host.send(b"x")
    assert host.wait(2.0) == b"", "no silence after"
    for piece in (b"+", b"+", b"+"):
        host.send(piece)
    assert host.wait(0.99) == b""
    assert host.wait(0.01) == b"OK\r"


def test_four_plus_signs_are_not_three(tmp_path: Path) -> None:
    host = Host(VirtualXBee(tmp_path))
    host.wait(2)
    host.send(b"++++")
    assert host.wait(2) == b""


def test_command_mode_ends_after_ct_of_silence(host: Host) -> None:
    assert host.at("") == "OK\r"
    host.wait(9.9)
    assert host.at("") == "OK\r"
    host.wait(10.1)
    assert host.at("") == ""


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("VR", "1014\r"), ("HV", "4247\r"), ("SH", "13A200\r"), ("SL", "41A06E60\r"), ("ID", "0\r"), ("ZZ", "ERROR\r"),
        ("ID 12345678ABCDEF01", "OK\r"), ("ID 123456789ABCDEF012", "ERROR\r"), ("VR 1015", "ERROR\r"),
        ("PS 2", "ERROR\r"),
        ("NH", "1E\r"), ("D0", "1\r"), ("D4", "0\r"), ("P0", "1\r"), ("SA", "0\r"), ("$S", "0\r"), ("IC", "0\r"),
        ("PR", "7FFF\r"), ("*V", "0\r"), ("D0 0", "OK\r"), ("P0 4", "OK\r"), ("D2 9", "ERROR\r"), ("SA 20", "ERROR\r"),
        ("$S 123456789", "ERROR\r"), ("*Y " + "F" * 64, "OK\r"), ("*Y " + "F" * 65, "ERROR\r"), ("P5", "ERROR\r"),
        ("FK", "ERROR\r"), ("FK1", "ERROR\r"), ("FK0", "OK\r"), ("FK 04", "ERROR\r"), ("FK 3", "ERROR\r"),
        ("FK 02" + "11" * 64, "ERROR\r"), ("FK 04" + "zz" * 64, "ERROR\r"), ("PYX", "ERROR\r"),
        ("NI ansim-1", "OK\r"), ("NI " + "x" * 21, "ERROR\r"), ("SC zz", "ERROR\r"), ("FS", None), ("PY^", "OK\r"),
    ],
)  # fmt: skip
def test_commands_answer_as_the_manual_says(host: Host, command: str, answer: str | None) -> None:
    if answer is None:
        assert host.at(command).startswith("ATFS commands: ")
    else:
        assert host.at(command) == answer


def test_a_line_that_is_no_command_is_an_error_and_does_not_stay(host: Host) -> None:
    assert host.send(b"hello\r") == b"ERROR\r"
    assert host.send(b"\x00\x01\x02ATPS\r") == b"0\r", "noise is dropped, the command is understood"
    assert host.send(b"A" * 5000 + b"\r") == b"ERROR\r"
    assert host.at("PS") == "0\r"


def test_only_written_settings_survive_a_reset(host: Host, tmp_path: Path) -> None:
    host.at("PS1"), host.at("NI kept"), host.at("WR"), host.at("SC 1")
    assert host.at("FR") == "OK\r"
    host.enter()
    assert (host.at("PS"), host.at("NI"), host.at("SC")) == ("1\r", "kept\r", "7FFF\r")
    assert Host(VirtualXBee(tmp_path)).enter().at("NI") == "kept\r", "and a power cycle"
    assert json.loads((tmp_path / "settings.json").read_text())["PS"] == 1


def test_the_program_starts_only_with_ps_and_a_main(host: Host) -> None:
    module = host.module
    host.at("PS1"), host.at("WR"), host.at("FR")
    assert not module.running, "no main.py"
    put(host.enter(), "main.py", b"pass")
    host.at("FR")
    assert module.running
    host.enter().at("PY^")
    assert not module.running


def test_the_file_system_key_is_returned_in_two_parts_until_it_is_cleared(host: Host) -> None:
    digits = "04" + "AB" * 47 + "00" + "CD" * 16
    assert host.at(f"FK {digits}") == "OK\r"
    assert host.at("FK1") == "4" + "AB" * 47 + "\r", "48 bytes"
    assert host.at("FK 2") == "CD" * 16 + "\r", "17 bytes, printed as a number"
    host.at("WR"), host.at("FR")
    assert host.enter().at("FK2") == "CD" * 16 + "\r"
    assert host.at("FK 0") == "OK\r"
    assert host.at("FK1") == "ERROR\r"


def test_bundled_code_outlives_formatting_and_a_reset_until_it_is_erased(host: Host, tmp_path: Path) -> None:
    empty = "bytecode: 0 bytes (hash=0x00000000)\rcompiled: 2000-01-01T00:00:00\r"
    assert host.at("PYB") == empty
    host.module.bundle.write_bytes(b"abc")
    assert host.at("FS FORMAT CONFIRM") == "OK\r"
    host.at("FR")
    assert Host(VirtualXBee(tmp_path)).enter().at("PYB") == empty.replace(
        "0 bytes (hash=0x00000000", "3 bytes (hash=0x352441C2"
    )
    put(host.enter(), "main.py", b"pass")
    host.at("PS1"), host.at("PY^")
    assert not host.module.running
    assert host.at("PYE") == "OK\r"
    assert host.at("PYB") == empty
    assert host.module.running, "the erasing starts MicroPython again"


def test_a_command_that_a_module_does_not_know_is_an_error(tmp_path: Path) -> None:
    host = Host(VirtualXBee(tmp_path, faults=Faults(unknown=frozenset({"NH", "FK", "PYB"})))).enter()
    assert [host.at(command) for command in ("NH", "NH A", "FK1", "PYB")] == ["ERROR\r"] * 4
    assert (host.at("PYV"), host.at("D0")) == ("MicroPython v1.20\r", "1\r")


def test_files_are_put_hashed_listed_moved_and_removed(host: Host) -> None:
    content = os.urandom(3000)
    assert put(host, "App.mpy", content).endswith(b"OK\r")
    assert host.at("FS HASH app.mpy") == f"sha256 {sha256(content).hexdigest()}\r", "names ignore case"
    assert host.at("FS MD lib") == "OK\r"
    assert host.at("FS MV App.mpy lib/b.mpy") == "OK\r"
    assert host.at("FS LS lib").split("\r")[2].strip() == "3000 b.mpy"
    assert host.at("FS RM lib").startswith("EACCES"), "not empty"
    assert host.at("FS CD lib") == "/flash/lib\r"
    assert host.at("FS RM b.mpy") == "OK\r"
    assert host.at("FS HASH b.mpy").startswith("ENOENT")
    assert host.at("FS CD ..") == "/flash\r"
    assert host.at("FS RM lib") == "OK\r"


@pytest.mark.parametrize(
    "command",
    ["PUT a", "MV b a", "MD a", "PUT x/y", "PUT /etc/passwd", "GET ../../../etc/passwd",
     "CD nowhere", "PUT b@d", "X", "MV a"],
)  # fmt: skip
def test_what_cannot_be_done_says_e_and_why(host: Host, command: str) -> None:
    put(host, "a", b"1"), put(host, "b", b"2")
    answer = host.at(f"FS {command}")
    assert answer.startswith("E")
    assert " " in answer
    assert answer.endswith("\r")


def test_a_full_flash_refuses_a_file(tmp_path: Path) -> None:
    host = Host(VirtualXBee(tmp_path, Factory(volume_b=4096))).enter()
    assert put(host, "a", bytes(4096)).endswith(b"OK\r")
    assert b"ENOSPC" in put(host, "b", b"1")
    assert host.at("FS INFO").split()[0::2] == ["4096", "0", "0", "4096"]
    assert host.at("FS FORMAT") == "EINVAL unknown or incomplete file system command\r"
    assert host.at("FS FORMAT CONFIRM") == "OK\r"
    assert put(host, "b", b"1").endswith(b"OK\r")


def test_a_damaged_block_is_asked_for_again_and_a_repeated_one_kept_once(host: Host) -> None:
    host.at("FS PUT a")
    host.send(block(0, b"a\x006"))
    good = block(1, b"abcdef")
    assert host.send(good[:40] + bytes((good[40] ^ 1,)) + good[41:]) == bytes((NAK,))
    assert host.send(good[:70]) == b"", "half a block waits"
    assert host.send(good[70:]) == bytes((ACK,))
    assert host.send(good) == bytes((ACK,))
    host.send(bytes((EOT,)))
    assert host.send(block(0, b"")).endswith(b"OK\r")
    assert host.at("FS HASH a") == f"sha256 {sha256(b'abcdef').hexdigest()}\r"


def test_a_transfer_ends_when_the_sender_cancels_or_falls_silent(host: Host) -> None:
    host.at("FS PUT a")
    assert b"ECANCELED" in host.send(bytes((CAN, CAN)))
    host.at("FS PUT a")
    host.send(block(0, b"a\x0099"))
    assert b"ECANCELED" in host.wait(10.1)
    assert host.at("FS HASH a").startswith("ENOENT")


@pytest.mark.parametrize("size", [0, 1, 128, 129, 2500, 300 * 1024])
def test_a_file_comes_back_by_get_as_it_was_put(tmp_path: Path, size: int) -> None:
    host = Host(VirtualXBee(tmp_path, Factory(volume_b=1 << 20))).enter()
    content = sha256(b"seed").digest() * (size // 32 + 1)
    put(host, "a", content[:size])
    assert host.at("FS GET a").encode().endswith(bytes((NAK,)))
    host.send(b"C")
    got, head = b"", host.wait(SETTLE_S * 2)
    assert head[3:].startswith(b"a\0" + str(size).encode())
    while True:
        host.send(bytes((ACK,)))
        part = host.wait(SETTLE_S * 2)
        if part == bytes((EOT,)):
            break
        assert binascii.crc_hqx(part[3:], 0) == 0
        got += part[3:-2]
    assert got[:size] == content[:size]
    host.send(bytes((ACK,)))
    assert host.wait(SETTLE_S * 2)[:1] == bytes((SOH,)), "the empty block that ends a batch"
    host.send(bytes((ACK,)))
    assert host.wait(SETTLE_S * 2) == b"OK\r"


def test_a_power_cut_leaves_the_part_that_came_and_a_fresh_boot(tmp_path: Path) -> None:
    host = Host(VirtualXBee(tmp_path, faults=Faults(cut_power_after_put_b=1024))).enter()
    host.at("FS PUT a")
    host.send(block(0, b"a\x003000"))
    assert host.send(block(1, bytes(1024), 1024)) == b""
    assert host.module.counts["power cuts"] == 1
    assert host.send(b"ATVR\r") == b"", "it is no longer in command mode"
    host.enter()
    assert host.at("FS HASH a") == f"sha256 {sha256(bytes(1024)).hexdigest()}\r"


def test_faults_happen_as_often_as_asked_and_no_more(tmp_path: Path) -> None:
    host = Host(VirtualXBee(tmp_path, faults=Faults(wrong_hashes=1, corrupt_puts=1, wr_errors=1))).enter()
    right = f"sha256 {sha256(b'abc').hexdigest()}\r"
    put(host, "a", b"abc"), put(host, "b", b"abc")
    assert host.at("FS HASH b") != right
    assert host.at("FS HASH b") == right
    assert host.at("FS HASH a") != right
    assert (host.at("WR"), host.at("WR")) == ("ERROR\r", "OK\r")


def test_a_silent_module_never_answers(tmp_path: Path) -> None:
    host = Host(VirtualXBee(tmp_path, faults=Faults(silent=True)))
    host.wait(2)
    assert host.send(b"+++") + host.wait(2) + host.at("VR").encode() == b""


def test_install_codes_carry_the_zigbee_checksum() -> None:
    code = install_code(bytes(8))
    crc = binascii.crc_hqx(bytes(int(f"{byte:08b}"[::-1], 2) for byte in code[:16]), 0xFFFF) ^ 0xFFFF  # X-25, mirrored
    assert int(f"{crc:016b}"[::-1], 2) == int.from_bytes(code[16:], "little")


def test_random_bytes_never_break_it(tmp_path: Path) -> None:
    seed = 20240501
    print("seed", seed)
    rng = random.Random(seed)
    host = Host(VirtualXBee(tmp_path)).enter()
    words = [
        b"ATFS PUT a\r",
        b"ATFS GET a\r",
        b"+++",
        b"C",
        bytes((ACK,)),
        bytes((EOT,)),
        block(0, b"a\x009"),
        b"ATFS LS\r",
    ]
    for _ in range(3000):
        host.send(rng.choice(words) if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 40)))
        host.wait(rng.choice((0.0, 0.03, 1.2, 12.0)))
    host.wait(30)
    host.wait(30)
    host.enter()
    assert host.at("VR") == "1014\r"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_runs_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    link = tmp_path / "tty"
    program = "import typer; from sim.xbee.command import xbee_command; typer.run(xbee_command)"
    options = ["--pty", str(link), "--flash", str(tmp_path / "m"), "--vr", "1015", "--guard-ms", "20"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert "Ctrl-C ends it" in run.stdout.readline()
        with serial.Serial(str(link), 115200, timeout=5) as port:
            time.sleep(0.05)
            port.write(b"+++")
            assert port.read_until(b"\r") == b"OK\r"
            port.write(b"ATVR\r")
            assert port.read_until(b"\r") == b"1015\r"
        run.send_signal(number)
        assert "ended: " in run.stdout.read()
    assert run.returncode == 130, "ended by a signal"
    assert not link.exists()


def test_the_pty_comes_and_goes_and_stands_a_client_leaving(tmp_path: Path) -> None:
    link = tmp_path / "tty"
    with Pty(VirtualXBee(tmp_path / "m", guard_s=0.02), link):
        for _ in range(2):
            with serial.Serial(str(link), 115200, timeout=2) as port:
                time.sleep(0.05)
                port.write(b"+++")
                assert port.read_until(b"\r") == b"OK\r"
                port.write(b"ATCN\r")
                assert port.read_until(b"\r") == b"OK\r"
    assert not link.exists()
