"""docs/INSTALL.md, block by block, from three bare machines to the first event in a city. tests/deploy/page.py: how."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sim.air.mesh import Mesh
from sim.clock import Clock
from sim.demo.rig import BELL_PIN
from sim.demo.running_zone import PRESS_FOR_S
from sim.ncp.chip import Coordinator, PtyCoordinator
from sim.ncp.nvm import Nvm
from sim.reader.process import ReaderProcess
from sim.xbee.module import Factory, Pty, VirtualXBee
from tests import programs
from tests.city.bed import free_port, wait_for
from tests.deploy.page import MACHINES, PAGE, Block, Machines, blocks
from tests.waiting import until

EUI64 = bytes.fromhex("0013a20041f00d01")
STICK = bytes.fromhex("f4ce36a1b2c3d4e5")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path, broker_port=free_port(), web_port=free_port())
    yield made
    made.end()


@asynccontextmanager
async def stick(machines: Machines) -> AsyncIterator[tuple[Clock, Mesh, Coordinator]]:
    """Plug an emulated stick into the box."""
    clock, loop = Clock(1.0), asyncio.get_running_loop()
    coordinator = Coordinator(Nvm(STICK), seed=1, now=loop.time)
    coordinator.scan_speed = 20.0
    mesh = Mesh(clock, coordinator, 1)
    async with PtyCoordinator(coordinator, machines.folder / "box/dev/serial/by-id/usb-ITEAD_SONOFF-if00-port0"):
        yield clock, mesh, coordinator


async def first_event(machines: Machines, clock: Clock, mesh: Mesh, coordinator: Coordinator) -> None:
    """Give the reader that the page flashed power, wait for its first frame, and press its bell.

    Its program, key and settings are what `ansim-reader flash` left in the emulated module.
    """
    reader = ReaderProcess(1, machines.folder / "module" / "flash", radio=mesh, seed=1)
    mesh.add(reader, EUI64, (0.0, 0.0), (0.0, 0.0))
    frames: list[bytes] = []
    mesh.on_frame = lambda number, sent_s, payload, arrived: frames.append(payload)
    passing = asyncio.create_task(clock.run(float("inf")))
    try:
        mesh.power(1, True)
        await until(lambda: coordinator.ram.up, "the network")
        mesh.start_joining()
        await until(lambda: frames, "the reader's first frame", 40)
        reader.pin(BELL_PIN, 0)
        clock.after(PRESS_FOR_S, lambda: reader.pin(BELL_PIN, 1))
        await asyncio.to_thread(arrived, machines)
        await asyncio.to_thread(machines.run, "box", only("event"))
    finally:
        passing.cancel()
        reader.stop()


def only(kind: str) -> Block:
    [found] = [block for block in blocks() if kind in block.kinds]
    return found


def arrived(machines: Machines) -> None:
    """Wait until an operator, with the passcode that the page's command printed, sees the bell and the gateway."""
    [passcode] = [said.split()[-1] for commands, said in machines.said.items() if " operator kim " in commands]
    address = f"http://127.0.0.1:{machines.ports[8080]}"
    with httpx.Client(base_url=address, headers={"Origin": address}, timeout=10) as browser:
        assert browser.post("/login", data={"operator": "kim", "passcode": passcode}).status_code == 303
        wait_for("the bell in the city", lambda: told(browser), 40)


def told(browser: httpx.Client) -> dict[str, Any] | None:
    state: dict[str, Any] = browser.get("/api/state").json()
    calls = [call for call in state["incidents"] if "bell-1" in str(call)]
    online = [each for each in state["gateways"] if each.get("online")]
    return state if calls and online else None


def test_every_block_of_commands_names_its_machine() -> None:
    fences = re.findall(r"^```(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    starts = [fence for fence in fences if fence and fence != "text"]
    assert [fence.split()[1:] for fence in starts] == [list(block.kinds) for block in blocks()]
    for block in blocks():
        assert set(block.kinds) <= {"every", "names", *MACHINES, "until", "event"}
        assert set(block.kinds) & {"every", "names", *MACHINES}


@pytest.mark.mosquitto
@pytest.mark.story
@programs.needs("mosquitto")
@programs.needs("mosquitto_passwd")
@programs.needs("openssl")
def test_the_page_leads_from_bare_machines_to_the_first_event_in_a_city(machines: Machines) -> None:
    """The technician flashes the reader while the city is set up; otherwise everything is in the page's order."""

    async def desk(brought: asyncio.Event) -> None:
        for block in blocks():
            if set(block.kinds) & {"every", "desk"}:
                if "scp " in block.commands:
                    await brought.wait()
                await asyncio.to_thread(machines.run, "desk", block)

    async def story() -> None:
        brought = asyncio.Event()
        module = VirtualXBee(machines.folder / "module", Factory(eui64=EUI64), guard_s=0.03)
        async with stick(machines) as (clock, mesh, coordinator), asyncio.TaskGroup() as people:
            with Pty(module, machines.folder / "desk/dev/ttyUSB0"):
                technician = people.create_task(desk(brought))
                for block in blocks():
                    if "event" in block.kinds:
                        await first_event(machines, clock, mesh, coordinator)
                        continue
                    for machine in ("city", "box"):
                        if not set(block.kinds) & {"every", machine}:
                            continue
                        if machine == "box" and brought.is_set():
                            await technician
                        await asyncio.to_thread(machines.run, machine, block)
                        if "scp " in block.commands:
                            brought.set()

    asyncio.run(story())
    check_files(machines)


def check_files(machines: Machines) -> None:
    """The last blocks left a second gateway's lines and a copy of the store; nobody else reads the box's files."""
    acl = (machines.folder / "city" / "etc/mosquitto/ansim.acl").read_text(encoding="utf-8")
    assert acl.count("user gw1\n") == acl.count("user gw2\n") == 1
    assert (machines.folder / "city" / "var/lib/ansim-city/backup.db").stat().st_size > 10_000
    modes = {path: path.stat().st_mode & 0o077 for path in (machines.folder / "box/etc/ansim").iterdir()}
    assert len(modes) == 7
    assert not any(modes.values()), f"others can read {modes}"
