"""`ansim-gateway` as a process: reports to systemd's socket, is stopped, killed at the worst moment, started twice."""

import asyncio
import configparser
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.box.daemon import BEAT_MAX_S, END_MAX_S, EXIT_MAX_S
from gateway.box.systemd import notify, watchdog_s
from gateway.events import Sos
from readers import wire
from tests.gateway.box.bed import plugged, rows, write_config
from tests.gateway.core.bed import Pole, advertisement
from tests.roots import ROOT
from tests.waiting import LIMIT_S, run, until

GATEWAY = [sys.executable, "-m", "gateway"]


class Process:
    """A gateway's process, and the records that it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.records: list[dict[str, Any]] = []
        self.errors = b""

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [r for r in self.records if r["event"] == event and fields.items() <= r.items()]

    async def follow(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.records.append(json.loads(line))

    async def ends(self) -> int:
        async with asyncio.timeout(LIMIT_S):
            return await self.process.wait()


@asynccontextmanager
async def started(config_file: Path, **environment: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *GATEWAY, "run", str(config_file), cwd=ROOT, env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    gateway = Process(process)
    reading = asyncio.create_task(gateway.follow())
    try:
        yield gateway
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


async def once(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *GATEWAY, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


class Systemd:
    """The service manager's end of sd_notify, inside a running loop."""

    def __init__(self, path: Path) -> None:
        self.path, self.words = str(path), list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.path)
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:  # such a socket queues at most ten messages
                self.words.append(self._socket.recv(4096).decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


def test_a_service_from_its_start_to_its_end(tmp_path: Path) -> None:
    async def story() -> None:
        box = tmp_path / "box"
        config_file = write_config(box, tmp_path / "stick")
        with Systemd(tmp_path / "notify") as systemd:
            await lives(systemd, box, config_file)

    async def lives(systemd: Systemd, box: Path, config_file: Path) -> None:
        environment = {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "300000"}
        async with plugged(tmp_path) as stick, started(config_file, **environment) as gateway:
            await until(lambda: "READY=1" in systemd.words, "READY")
            await until(lambda: systemd.words.count("WATCHDOG=1") >= 3, "signs of life")
            await until(lambda: gateway.of("health", what="radio", ok=True), "the network")

            second, _, said = await once("run", str(config_file))
            assert second == 5
            assert f"in use by another gateway (process {gateway.process.pid})" in said

            pole = Pole(2)
            stick.hear(pole.bell())
            await until(lambda: stick.stages(pole), "the lamp's stage")
            shown, text, _ = await once("outbox", str(box / "outbox"))
            assert shown == 0
            assert "sos: 1 rows wait" in text
            assert '"event": "bell"' in text
            [record] = gateway.of("committed")
            assert (record["kind"], record["lane"], record["seq"]) == ("bell", "sos", 1)
            assert abs(record["at"] - time.time()) < LIMIT_S

            began_s = time.monotonic()
            gateway.process.terminate()
            assert await gateway.ends() == 0
            assert time.monotonic() - began_s < 5
            await until(lambda: "STOPPING=1" in systemd.words, "STOPPING")
            assert systemd.words[0] == "READY=1"
            for secret in (box / "zigbee.db", box / "outbox" / "sos.db"):
                assert secret.stat().st_mode & 0o077 == 0, secret

    run(story)


def test_killed_between_the_commit_and_the_answer_it_answers_the_repetition_and_keeps_one_alarm(tmp_path: Path) -> None:
    async def story() -> None:
        box = tmp_path / "box"
        config_file = write_config(box, tmp_path / "stick")
        pole = Pole(1)
        cry = advertisement(flags=wire.FLAG_SOS, press=3, utc_s=time.time())
        async with plugged(tmp_path) as stick:
            async with started(config_file) as gateway:
                await until(lambda: gateway.of("health", what="radio", ok=True), "the network")
                stick.line.faults.deaf = True  # from here on, nothing that the gateway sends gets out
                stick.hear(pole.sos(cry))
                await until(lambda: gateway.of("committed", kind="sos"), "the commit")
                gateway.process.send_signal(signal.SIGKILL)
                await gateway.ends()
            assert not stick.unicasts, "the reader was told nothing"
            [kept] = rows(box / "outbox", "sos")
            stick.line.faults.deaf = False
            async with started(config_file) as gateway:
                await until(lambda: gateway.of("health", what="radio", ok=True), "the network")
                stick.hear(pole.sos(cry, age_ms=5000))
                await until(lambda: stick.stages(pole), "the lamp's stage")
                assert stick.stages(pole)[0] == (1, wire.RECEIVED)
                assert not gateway.of("committed", kind="sos"), "it is the same press"
                cries = [event for event in rows(box / "outbox", "sos") if isinstance(event, Sos)]
                assert [event.alarm for event in cries if event.revision == 0] == [kept.alarm]
                assert {event.alarm for event in cries} == {kept.alarm}

    run(story)


def test_check_says_good_and_what_it_means(tmp_path: Path) -> None:
    config_file = write_config(tmp_path, Path("/dev/ttyUSB0"))
    before = sorted(path.name for path in tmp_path.iterdir())
    done = CliRunner().invoke(app, ["check", str(config_file)])
    assert done.exit_code == 0
    assert "site testsite, gateway gw1" in done.output
    assert "3 readers, 1 bells, 30 tags" in done.output
    assert done.output.splitlines()[-1] == "good"
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing is started or changed"


def test_check_lists_every_fault_with_its_line(tmp_path: Path) -> None:
    config_file = write_config(tmp_path, Path("/dev/ttyUSB0"))
    text = config_file.read_text().replace("number = 2", "number = 0").replace("[clock]", "[radio.extra]\n[clock]")
    config_file.write_text(text)
    done = CliRunner().invoke(app, ["check", str(config_file)])
    assert done.exit_code == 1
    lines = text.splitlines()
    for line, fault in (("[radio.extra]", "radio.extra: unknown key"), ("number = 0", "readers[1].number: ")):
        assert f"{config_file}:{lines.index(line) + 1}: {fault}" in done.stderr
    assert "2 faults. Mend them, then: ansim-gateway check" in done.stderr
    assert CliRunner().invoke(app, ["run", str(config_file)]).exit_code == 1, "a wrong file starts nothing"
    missing = CliRunner().invoke(app, ["check", str(tmp_path / "none.toml")])
    assert (missing.exit_code, "cannot be read" in missing.stderr) == (1, True)


def test_a_start_that_fails_is_a_fault_and_no_wrong_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, *, here: bool) -> None:
        raise ImportError("a library of another Python")

    monkeypatch.setattr("gateway.__main__.load", broken)
    done = CliRunner().invoke(app, ["run", str(write_config(tmp_path, tmp_path / "stick"))])
    assert done.exit_code == 6, "with 1 the service manager would wait for another file"
    assert "a library of another Python" in done.stderr


def test_the_schema_is_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0
    assert {"Sos", "Watermark", "Status"} <= set(json.loads(done.stdout)["messages"])


def test_an_outbox_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["outbox", str(tmp_path)])
    assert done.exit_code == 1
    assert "is this the folder of a gateway?" in done.stderr
    assert not list(tmp_path.iterdir()), "looking makes no files"


def test_words_to_systemd_never_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    name = f"@ansim-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:])
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("WATCHDOG=1")
        assert listener.recv(100) == b"WATCHDOG=1"


def test_the_watchdogs_period_is_ours_only_if_it_names_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    for text, period_s in (("", None), ("soon", None), ("0", None), ("-5", None), ("60000000", 60.0)):
        monkeypatch.setenv("WATCHDOG_USEC", text)
        assert watchdog_s() == period_s
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_s() == 60.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_s() is None


def test_the_unit_is_one_systemd_knows_and_never_gives_up() -> None:
    path = ROOT / "deploy" / "ansim-gateway.service"
    unit = configparser.RawConfigParser(strict=False)
    unit.read_string(path.read_text())
    service = unit["Service"]
    assert (service["Type"], service["Restart"], unit["Unit"]["StartLimitIntervalSec"]) == ("notify", "always", "0")
    assert float(service["WatchdogSec"]) > 2 * max(BEAT_MAX_S["core"], 5.0)
    assert float(service["TimeoutStopSec"]) > END_MAX_S + EXIT_MAX_S
    assert "adjtimex clock_adjtime" in service["SystemCallFilter"], "else the clock is never good"
    if analyze := shutil.which("systemd-analyze"):
        done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, check=False, timeout=30)
        complaints = [line for line in done.stderr.splitlines() if path.name in line and "not executable" not in line]
        assert not complaints
