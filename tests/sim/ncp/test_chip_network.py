"""Unmodified zigpy forms a network, admits readers, and keeps the network when the stick restarts or is replaced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import zigpy.types as zt

from sim.ncp import ash_link, zdo
from sim.ncp.nvm import Nvm
from tests.sim.ncp.bed import EUI64, READER, READER_NWK, report, started, stick
from tests.waiting import run, until

KEY = bytes(range(16))
"""The link key of READER."""


def test_a_network_just_formed_needs_a_second_start_for_its_endpoints(tmp_path: Path) -> None:
    """bellows adds endpoints when it connects; forming resets the stick after that. `started` starts a second time."""

    async def story() -> None:
        async with stick() as (coordinator, line):
            async with started(line.device, tmp_path / "z.db", second_start=False):
                assert coordinator.ram.up
                assert not report(coordinator, b"unheard")
                assert coordinator.drop_counts["heard_unknown_endpoint"] == 1
            async with started(line.device, tmp_path / "z.db", second_start=False):
                assert report(coordinator, b"heard")

    run(story)


def test_only_the_reader_with_the_right_link_key_joins_and_is_interviewed(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, listener):
            xbee = zdo.xbee(READER, READER_NWK)
            assert not coordinator.join(READER, READER_NWK, link_key=KEY, node=xbee), "nobody permitted it"
            await app.permit_with_link_key(zt.EUI64(READER[::-1]), zt.KeyData(KEY), 60)
            stranger = bytes.fromhex("0013a20041f00d99")
            assert not coordinator.join(stranger, 0x1111), "the well-known key does not open an install-code window"
            assert not coordinator.join(READER, READER_NWK, link_key=bytes(16), node=xbee), "wrong install code"
            assert coordinator.join(READER, READER_NWK, link_key=KEY, node=xbee)
            ieee = zt.EUI64(READER[::-1])
            await until(lambda: ieee in [d.ieee for d in listener.initialized], "interview")
            device = app.get_device(ieee)
            assert device.nwk == READER_NWK
            assert sorted(device.endpoints) == [0, zdo.XBEE_COMMAND_ENDPOINT, zdo.XBEE_DATA_ENDPOINT]
            assert device.node_desc.manufacturer_code == zdo.XBEE_MANUFACTURER
            assert device.endpoints[0xE8].profile_id == 0xC105
            assert coordinator.drop_counts["joins_denied"] == 1
            assert coordinator.drop_counts["joins_wrong_key"] == 1
            coordinator.leave(READER, READER_NWK)
            await until(lambda: listener.left, "leave")

    run(story)


def test_an_attended_window_lets_a_button_with_the_well_known_key_in(tmp_path: Path) -> None:
    async def story() -> None:
        button = bytes.fromhex("00158d0001020304")
        node = zdo.Node(
            button,
            0x2222,
            zdo.END_DEVICE,
            zdo.MAC_SLEEPY,
            0x1002,
            endpoints={1: zdo.Endpoint(1, 0x0104, 0x0401, 0, (0x0000, 0x0500), (0x0501,))},
        )
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, listener):
            await app.permit(60)
            assert coordinator.join(button, 0x2222, logical_type=zdo.END_DEVICE, node=node)
            await until(lambda: listener.joined, "join")
            assert [c.eui64 for c in coordinator.nvm.children.values()] == [button]
            await app.permit(0)
            await until(lambda: coordinator.ram.permit_until_s < 0, "window closed")
            assert not coordinator.join(READER, READER_NWK)

    run(story)


def test_a_stick_that_keeps_its_memory_needs_no_forming(tmp_path: Path) -> None:
    async def story() -> None:
        database = tmp_path / "z.db"
        nvm = Nvm(EUI64)
        async with stick(nvm) as (_, line), started(line.device, database):
            formed, counter = nvm.network, nvm.nwk_frame_counter
        async with stick(nvm) as (coordinator, line), started(line.device, database) as (app, _):
            assert nvm.network == formed
            assert nvm.nwk_frame_counter > counter
            assert report(coordinator, b"x")
            await until(lambda: any(p.profile_id == 0xC105 for p in app.heard), "report")

    run(story)


@pytest.mark.parametrize("dead", [False, True])
def test_a_reset_out_of_the_blue_is_a_lost_connection_and_a_new_start_recovers(tmp_path: Path, dead: bool) -> None:
    async def story() -> None:
        database = tmp_path / "z.db"
        async with stick() as (coordinator, line):
            async with started(line.device, database) as (_, listener):
                formed = coordinator.nvm.network
                coordinator.crash(ash_link.RESET_WATCHDOG, dead=dead)
                await asyncio.wait_for(listener.lost.wait(), 5)
            async with started(line.device, database) as (app, _):
                assert coordinator.nvm.network == formed
                assert report(coordinator, b"again")
                await until(lambda: any(p.profile_id == 0xC105 for p in app.heard), "report")

    run(story)


def test_a_blank_stick_takes_over_the_network_of_the_one_that_died(tmp_path: Path) -> None:
    async def story() -> None:
        database = tmp_path / "z.db"
        async with stick() as (old, line), started(line.device, database):
            pass
        blank = Nvm(bytes.fromhex("f4ce3600000000ff"))
        async with stick(blank) as (new, line), started(line.device, database) as (app, _):
            assert new.nvm.network == old.nvm.network
            assert new.nvm.network_key == old.nvm.network_key
            assert new.nvm.own_eui64 == EUI64, "the readers know their trust centre by its address"
            assert new.nvm.nwk_frame_counter >= old.nvm.nwk_frame_counter
            assert app.state.node_info.ieee.serialize()[::-1] == EUI64

    run(story)
