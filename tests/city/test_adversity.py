"""A cry is shown and acknowledged while the city's disk is full, its store locked, or its log cannot be written.

The city runs as a process, over a real broker, and is asked over HTTP. The full disk is real: a small file system
(root), or the kernel's limit of file sizes for the process (anybody).
"""

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.city import postgres
from tests.city.bed import City, Gateway, position, sos, told, wait_for
from tests.city.small_disk import fill, small_disk

SHOWN_S = 10.0
"""An open SOS is on the page within this time, of any working path to the city."""


def cry_of(city: City, tag: str) -> dict[str, Any] | None:
    found = [one for one in city.get("/api/state")["incidents"] if one["subject"] == tag and one["state"] != "closed"]
    return found[-1] if found else None


def shown(city: City, tag: str) -> dict[str, Any]:
    return wait_for(f"the cry of {tag}", lambda: cry_of(city, tag), SHOWN_S)  # type: ignore[no-any-return]


def acknowledged(city: City, gateway: Gateway, incident: dict[str, Any]) -> dict[str, Any]:
    """Press Acknowledge; return the answer, after the lamp was told."""
    answer = city.post(f"/api/incidents/{incident['number']}/acknowledge")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    assert (view["state"], view["acknowledged_by"]) == ("acknowledged", "program")
    alarm = incident["alarms"][0]["alarm"]
    wait_for(f"the lamp of {alarm}", lambda: "acknowledged" in gateway.stages(alarm), SHOWN_S)
    return view


def in_store(city: City, tag: str) -> list[tuple[str, int]]:
    """Return (state, number) of the incidents of a tag, read from the file."""
    with contextlib.closing(sqlite3.connect(f"file:{city.folder / 'city.db'}?mode=ro", uri=True)) as db, db:
        return db.execute("SELECT state, number FROM incident WHERE subject = ?", (tag,)).fetchall()


def health(city: City) -> dict[str, Any]:
    return dict(httpx.get(f"{city.address}/healthz", timeout=5).json())


@pytest.fixture
def on_small_disk(broker_port: int, tmp_path: Path) -> Iterator[City]:
    """A city with all its files, its log too, on a disk of 96 MiB."""
    with small_disk(tmp_path / "disk", 96) as folder:
        city = City(folder, broker_port)
        try:
            yield city.start()
        finally:
            city.stop()
            shutil.copy(city.log, tmp_path / "city.log")  # for who looks at a failure


def test_a_full_disk_stops_places_but_no_cry_and_then_memory_takes_over(on_small_disk: City, gateway: Gateway) -> None:
    city = on_small_disk
    gateway.status()
    gateway.urgent(1, sos("a1", tag="t-before"))
    wait_for("the cry before", lambda: gateway.upto("sos") == 1)
    before = shown(city, "t-before")
    filler = fill(city.folder)

    gateway.urgent(2, sos("a2", tag="t-ballast"))
    wait_for("the watermark: the ballast made room", lambda: gateway.upto("sos") == 2)
    assert not acknowledged(city, gateway, shown(city, "t-ballast"))["only_in_memory"]
    assert in_store(city, "t-ballast") == [("acknowledged", 2)]
    gateway.batch(1, [position("t-01")])
    assert "disk" in wait_for("the page is told", lambda: city.get("/api/state")["problems"])[0]
    assert health(city)["problems"] == ["disk"]

    fill(city.folder)  # what the ballast freed is used up as well, but for what the store's own files have free
    for seq in range(3, 600):
        gateway.urgent(seq, sos(f"a{seq}", tag=f"t-{seq}"))
        if shown(city, f"t-{seq}")["only_in_memory"]:
            break
    held = shown(city, f"t-{seq}")
    print(f"emergency {seq} found no room")
    for incident in (held, before):
        assert acknowledged(city, gateway, incident)["only_in_memory"]
    gateway.urgent(seq + 1, told("a1", "acknowledged"))  # the lamp's report is only in memory too
    wait_for("the lamp's report", lambda: shown(city, "t-before")["alarms"][0]["told"])
    assert "stored" not in gateway.stages(f"a{seq}"), "no lamp may say that it is stored"
    assert gateway.upto("sos") == seq - 1, "its gateway must keep it"
    assert in_store(city, f"t-{seq}") == []
    state = city.get("/api/state")
    assert any("kept in memory only" in problem for problem in state["problems"])
    assert not health(city)["store"]
    form = {"operator": "kim", "passcode": city.passcode}
    with httpx.Client(base_url=city.address, headers={"Origin": city.address}) as browser:
        assert browser.post("/login", data=form).status_code == 303, "an operator comes on duty"
        assert browser.get("/").status_code == 200
        assert browser.post(f"/api/incidents/{held['number']}/close").json()["closed_by"] == "kim"

    filler.unlink()
    wait_for("all is written", lambda: gateway.upto("sos") == seq + 1, 30)
    wait_for("healthy", city.healthy, 30)
    assert [state for state, _ in in_store(city, f"t-{seq}")] == ["closed"]
    assert in_store(city, "t-before") == [("acknowledged", 1)]
    gateway.batch(1, [position("t-01")])
    wait_for("places again", lambda: gateway.upto("events") == 1)
    (closed,) = [one for one in city.incidents() if one["subject"] == f"t-{seq}"]
    assert not closed["only_in_memory"]
    late = [line for line in closed["log"] if line["word"] == "written_late"]
    assert len(late) == 2
    assert closed["acknowledged_at"] < closed["closed_at"] < late[0]["at"]
    assert city.post(f"/api/incidents/{held['number']}/acknowledge").status_code == 409, "the old number is remembered"
    with contextlib.closing(sqlite3.connect(city.folder / "city.db")) as db, db:
        looks = {what for (what,) in db.execute("SELECT what FROM look WHERE who = 'kim'")}
    assert {"login", "page"} <= looks, "looks are held and written later"


def test_the_city_starts_on_a_full_disk(on_small_disk: City, gateway: Gateway) -> None:
    city = on_small_disk
    gateway.urgent(1, sos("a1", tag="t-1"))
    wait_for("the watermark", lambda: gateway.upto("sos") == 1)
    city.stop()
    fill(city.folder)
    city.process = subprocess.Popen(
        [sys.executable, "-m", "city", "run", str(city.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for("the page", lambda: _answers(city), 60)
    gateway.urgent(2, sos("a2", tag="t-2"))
    acknowledged(city, gateway, shown(city, "t-2"))
    acknowledged(city, gateway, shown(city, "t-1"))


def test_no_byte_can_be_written(city: City, gateway: Gateway) -> None:
    """The kernel lets the process write to no file: the store and the log fail, whatever the disk has."""
    gateway.status()
    assert city.process is not None
    resource.prlimit(city.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    cries = [sos(f"a{seq}", tag=f"t-{seq}") for seq in range(1, 41)]
    for seq, cry in enumerate(cries, 1):  # more than the broker has in flight, and the lamps report too
        gateway.urgent(seq, cry)
    for tag in ("t-1", "t-40"):
        assert acknowledged(city, gateway, shown(city, tag))["only_in_memory"]
    assert len(city.incidents()) == 40
    assert city.get("/api/stats")["held"]["cry"] == 40
    assert {"log", "store"} <= set(health(city)["problems"])
    resource.prlimit(city.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for("the watermark", lambda: gateway.upto("sos") == 40, 30)
    wait_for("the press too", lambda: [state for state, _ in in_store(city, "t-40")] == ["acknowledged"])
    gateway.urgent(40, cries[-1])  # the gateway had sent it again meanwhile
    wait_for("no duplicate", lambda: city.get("/api/stats")["duplicates"]["sos"] == 1)
    assert len(city.incidents()) == 40
    assert "log_lost" in city.log.read_text()


def test_a_locked_store(city: City, gateway: Gateway) -> None:
    gateway.status()
    gateway.urgent(1, sos("a1", tag="t-before"))
    wait_for("the cry before", lambda: gateway.upto("sos") == 1)
    other = sqlite3.connect(city.folder / "city.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        gateway.urgent(2, sos("a2", tag="t-locked"))
        incident = shown(city, "t-locked")
        assert acknowledged(city, gateway, incident)["only_in_memory"]
        assert acknowledged(city, gateway, shown(city, "t-before"))["only_in_memory"]
        assert "locked" in " ".join(city.get("/api/state")["problems"])
        assert gateway.upto("sos") == 1
    finally:
        other.execute("ROLLBACK")
        other.close()
    wait_for("the watermark", lambda: gateway.upto("sos") == 2)
    wait_for("healthy: all is written", city.healthy)
    assert [state for state, _ in in_store(city, "t-locked") + in_store(city, "t-before")] == ["acknowledged"] * 2


def test_a_database_server_that_is_away(
    server: postgres.Server, broker_port: int, gateway: Gateway, tmp_path: Path
) -> None:
    city = City(tmp_path, broker_port, url=server.database())
    try:
        city.start()
        gateway.status()
        gateway.urgent(1, sos("a1", tag="t-before"))
        wait_for("the cry before", lambda: gateway.upto("sos") == 1)
        shown(city, "t-before")
        browser = httpx.Client(base_url=city.address, headers={"Origin": city.address}, timeout=20)
        form = {"operator": "kim", "passcode": city.passcode}
        assert browser.post("/login", data=form).status_code == 303
        assert browser.get("/").status_code == 200
        server.stop()
        gateway.urgent(2, sos("a2", tag="t-away"))
        incident = shown(city, "t-away")
        assert acknowledged(city, gateway, incident)["only_in_memory"]
        assert acknowledged(city, gateway, shown(city, "t-before"))["only_in_memory"]
        state = browser.get("/api/state").json()  # who was logged in stays so
        assert any(problem.startswith("store: ") for problem in state["problems"])
        closed = browser.post(f"/api/incidents/{incident['number']}/close").json()
        assert (closed["state"], closed["closed_by"]) == ("closed", "kim")
        browser.close()
        server.start()
        wait_for("the watermark", lambda: gateway.upto("sos") == 2, 30)
        wait_for("healthy: all is written", city.healthy, 30)
        assert {one["subject"]: one["state"] for one in city.incidents()} == {
            "t-before": "acknowledged",
            "t-away": "closed",
        }
    finally:
        city.stop()


@pytest.mark.parametrize("where", ["full disk", "nobody reads", "closed"])
def test_a_log_that_cannot_be_written_ends_no_lane(city: City, gateway: Gateway, where: str) -> None:
    city.stop()
    command = [sys.executable, "-m", "city", "run", str(city.config)]
    if where == "full disk":
        with open("/dev/full", "wb") as full:
            city.process = subprocess.Popen(command, stdout=full, stderr=full)
    elif where == "nobody reads":
        reader, writer = os.pipe()
        os.close(reader)
        city.process = subprocess.Popen(command, stdout=writer, stderr=writer)
        os.close(writer)
    else:
        city.process = subprocess.Popen(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command])
    wait_for("the page", lambda: _answers(city), 60)
    gateway.send("sos", b"not an envelope")  # logged
    gateway.urgent(1, sos("a1", tag="t-1"))
    acknowledged(city, gateway, shown(city, "t-1"))
    wait_for("the watermark", lambda: gateway.upto("sos") == 1)
    lost = city.get("/api/stats")["log_lost"]
    assert health(city)["problems"] == ([] if where == "closed" else ["log"])
    assert (lost > 0) == (where != "closed")
    with contextlib.closing(sqlite3.connect(city.folder / "city.db")) as db, db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",), "no line went into it"


def _answers(city: City) -> bool:
    try:
        return bool(httpx.get(f"{city.address}/healthz", timeout=2).json()["lanes"]["sos"])
    except httpx.HTTPError:
        return False
