"""Recording a running gateway: real daemon, real socket, emulated stick; what it heard becomes a recorded site."""

import asyncio
import json
import math
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.box.daemon import Daemon
from gateway.core import pipeline
from gateway.fix import Reading
from gateway.locate.ground import REACH_M
from gateway.options import Installation
from gateway.survey import read, record, write
from gateway.survey.record_socket import CLIENTS_MAX, QUEUE_MAX, SOCKET, Recorder
from gateway.survey.write import RecordingError
from gateway.zone import Footpath, Place
from readers import wire
from tests.gateway.box.bed import Stick, load, plugged, running, write_config
from tests.gateway.core.bed import PLANE, SPACING_M, Pole, Shell, advertisement, at, box, zone
from tests.waiting import run, until


def heard(stick: Stick, poles: list[Pole], tag: str, counter: int, *, rssi_dbm: int = -65) -> None:
    raw = advertisement(tag, count=counter, utc_s=time.time())
    for pole in poles:
        stick.hear(pole.bind((1, raw), rssi_dbm=rssi_dbm - pole.number))


class Recording:
    """`ansim-gateway record` in its own thread."""

    def __init__(self, settings: Installation, out: Path, *tags: str, minutes: float | None = None) -> None:
        self.said: list[str] = []
        self.over = False
        site = record.site_of(settings.zone, settings.config.site)
        self.task = asyncio.ensure_future(
            asyncio.to_thread(
                record.record, settings.folder, site, out, tags=tags, minutes=minutes,
                stopped=lambda: self.over, say=self.said.append,
            )
        )  # fmt: skip

    async def end(self) -> int:
        self.over = True
        return await self.task


async def begun(gateway: Daemon, recording_: Recording) -> None:
    await until(lambda: gateway.recorder.clients or recording_.task.done(), "the recording")
    await until(lambda: recording_.said, "its first word")


def test_what_a_gateway_hears_becomes_a_recorded_site(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        out = tmp_path / "site"
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            poles = [Pole(n) for n in (1, 2, 3)]
            await until((settings.folder / SOCKET).exists, "the socket")
            assert stat.S_IMODE((settings.folder / SOCKET).stat().st_mode) == 0o600
            heard(stick, poles, "tag-003", 1)  # before any recording: it is not kept
            await until(lambda: pipeline.counters(gateway.runner.state).get("sightings", 0) == 3, "the core")
            assert gateway.runner.state.tap is None
            recorded = Recording(settings, out)
            await begun(gateway, recorded)
            for counter in (2, 3):
                heard(stick, poles, "tag-003", counter)
            heard(stick, poles[:1], "tag-007", 1)
            path = out / "tracks" / "tag-003.sightings.csv"
            await until(lambda: path.exists() and path.read_text().count("\n") == 7, "rows on disk while it goes on")
            assert await recorded.end() == 7
            await until(lambda: gateway.runner.state.tap is None, "the core to be alone again")
            assert gateway.figures()["record_readings"] == 7
        assert not (settings.folder / SOCKET).exists()
        assert recorded.said[-1] == "7 readings of 2 tags"
        site = read.load_site(out)
        assert not site.notes
        assert site.reader_ids == ("1", "2", "3")
        assert site.tag_power_dbm == -50, "as the tag's advertisement says it"
        assert site.origin_lonlat is not None
        np.testing.assert_allclose(site.readers_m[:, 0], SPACING_M * np.array([-1, 0, 1]), atol=0.05)
        assert PLANE.to_xy_m(*site.origin_lonlat) == pytest.approx((SPACING_M, 0.0), abs=0.02)
        one, other = read.load_tracks(out, site)
        assert (one.name, len(one.t_s), len(other.t_s)) == ("tag-003", 6, 1)
        assert sorted(zip(one.reader.tolist(), one.rssi_dbm.tolist(), strict=True)) == [
            (reader, -66.0 - reader) for reader in (0, 1, 2) for _ in range(2)
        ]
        assert one.packets is not None
        assert one.packets.tolist() == [2] * 6
        assert not one.skipped

    run(story)


def test_the_zones_footpaths_are_in_the_site_as_far_as_readers_hear() -> None:
    far = Footpath((at(-500, 40), at(500, 40)))
    street = msgspec.structs.replace(zone(3), footpaths=(*zone(3).footpaths, far, Footpath((at(0, 900), at(9, 900)))))
    site = record.site_of(street, "here")
    own, cut = site.footpaths
    ends_x_m = -60.0 - SPACING_M, 2 * SPACING_M + math.sqrt(REACH_M**2 - 3**2) - SPACING_M
    np.testing.assert_allclose(own, [[ends_x_m[0], -3.0], [ends_x_m[1], -3.0]], atol=0.05)
    assert np.abs(cut[:, 0]).max() == pytest.approx(SPACING_M + math.sqrt(REACH_M**2 - 40**2), abs=0.05)
    assert record.site_of(msgspec.structs.replace(street, footpaths=()), "here").footpaths == ()


def test_the_zones_places_and_dangers_are_in_the_site(tmp_path: Path) -> None:
    site = record.site_of(zone(3), "here")
    write.save_site(tmp_path, site)
    [school], [river] = read.load_site(tmp_path).places or (), read.load_site(tmp_path).dangers or ()
    assert (school.id, river.id, river.warn_m) == ("school", "river", 10.0)
    middle_m = SPACING_M  # three poles from x = 0 on
    corners = np.array([(-40.0, -30.0), (60.0, -30.0), (60.0, 80.0), (-40.0, 80.0)]) - (middle_m, 0.0)
    np.testing.assert_allclose(school.ring_m, corners, atol=0.02)
    plain = record.site_of(msgspec.structs.replace(zone(3), places=(), dangers=()), "here")
    assert plain.places == plain.dangers == (), "none, and not: nobody says"


def test_a_site_of_an_older_gateway_gets_the_areas_and_other_areas_are_told_of(tmp_path: Path) -> None:
    site, said = record.site_of(zone(3), "here"), list[str]()
    write.save_site(tmp_path, replace(site, places=None, dangers=None, seen_tracks=("w",)))
    known = record._begin_site(tmp_path, site, said.append)
    back = read.load_site(tmp_path)
    assert [place.id for place in back.places or ()] == ["school"]
    assert back.seen_tracks == known.seen_tracks == ("w",)
    record._begin_site(tmp_path, site, said.append)
    assert not said
    moved = msgspec.structs.replace(zone(3), places=(Place("school", "school", box(-40, -30, 61, 80)),))
    record._begin_site(tmp_path, record.site_of(moved, "here"), said.append)
    assert "places, gates, danger areas or footpaths of the zone are not those of" in said[0]
    np.testing.assert_array_equal((read.load_site(tmp_path).places or ())[0].ring_m, (site.places or ())[0].ring_m)


def test_the_first_tags_power_stays_and_another_kind_of_tag_is_told(tmp_path: Path) -> None:
    site = record.site_of(zone(3), "here")
    write.save_site(tmp_path, site)
    said: list[str] = []

    def write_rows(*powers: tuple[str, int | None]) -> None:
        known = read.load_site(tmp_path)
        writer = record._Writer(tmp_path, known, 0.0, known.tag_power_dbm, said.append)
        for tag, power_dbm in powers:
            row = {"t_s": 1.0, "tag": tag, "reader": 1, "rssi_dbm": -70, "packets": 1}
            writer.reading(row if power_dbm is None else row | {"power_dbm": power_dbm})
        writer.close()

    write_rows(("of-an-older-gateway", None))
    assert read.load_site(tmp_path).tag_power_dbm is None
    write.save_site(tmp_path, replace(read.load_site(tmp_path), seen_tracks=("w",)))
    write_rows(("one", -55), ("like-it", -57))
    assert read.load_site(tmp_path).tag_power_dbm == -55
    assert read.load_site(tmp_path).seen_tracks == ("w",)
    assert not [word for word in said if word.startswith("note")]
    write_rows(("other", -40))
    assert read.load_site(tmp_path).tag_power_dbm == -55
    assert "note: other says -40 dBm at 1 m, site.json -55 dBm" in said[-1]
    site = read.load_site(tmp_path)
    powers = {track.name: track.power_dbm for track in read.load_tracks(tmp_path, site)}
    assert powers == {"of-an-older-gateway": None, "one": -55, "like-it": -57, "other": -40}, "each its own"


def test_only_the_tags_asked_for_and_a_second_recording_beside_the_first(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            pole = Pole(1)
            for counter, name in enumerate(("tag-003", "tag-003-2"), 1):
                recorded = Recording(settings, tmp_path / "site", "tag-003")
                await begun(gateway, recorded)
                heard(stick, [pole], "tag-007", counter)
                heard(stick, [pole], "tag-003", counter)
                await until((tmp_path / "site" / "tracks" / f"{name}.sightings.csv").exists, name)
                assert await recorded.end() == 1
                await until(lambda: not gateway.recorder.clients, "the end of it")
            assert read.track_names(tmp_path / "site") == ["tag-003", "tag-003-2"]

    run(story)


def test_a_gateway_that_stops_ends_the_recording_whole(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            async with running(settings) as gateway:
                recorded = Recording(settings, tmp_path / "site")
                await begun(gateway, recorded)
                heard(stick, [Pole(1)], "tag-003", 1)
                await until(lambda: gateway.recorder.counters["record_readings"], "a reading")
            assert await recorded.task == 1
            assert "the gateway stopped" in recorded.said

    run(story)


def test_a_time_ends_it(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path), running(settings) as gateway:
            await until((settings.folder / SOCKET).exists, "the socket")
            assert await Recording(settings, tmp_path / "site", minutes=0.001).task == 0
            await until(lambda: not gateway.recorder.clients, "the end of it")

    run(story)


def test_another_zone_is_not_mixed_into_a_site(tmp_path: Path) -> None:
    write.save_site(tmp_path, record.site_of(zone(3), "here"))
    with pytest.raises(RecordingError, match="another zone, or its readers were moved; name a new folder"):
        record.record(
            tmp_path, record.site_of(zone(4), "here"), tmp_path, tags=[], minutes=None, stopped=bool, say=print
        )


def test_without_a_gateway_it_says_what_to_do(tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path / "stick")
    done = CliRunner().invoke(app, ["record", str(path), str(tmp_path / "site")])
    assert done.exit_code == 1
    assert "record.sock: no gateway answers there" in done.output
    assert "record as its own user" in done.output
    done = CliRunner().invoke(app, ["record", str(path), str(tmp_path / "site"), "--tag", "tag-999"])
    assert done.exit_code == 1
    assert "not enrolled here: tag-999" in done.output


def test_a_paused_tag_is_not_recorded() -> None:
    shell, pole, taken = Shell(), Pole(1), []
    shell.state.tap = lambda tag, reading: taken.append((tag, reading.reader, reading.packets))
    shell.frame(pole.bind((1, advertisement("tag-003"))))
    pipeline.pause(shell.state, "tag-003")
    shell.frame(pole.bind((1, advertisement("tag-003", count=2)), (2, advertisement("tag-007"))), later_s=1.0)
    assert taken == [("tag-003", 1, 2), ("tag-007", 1, 2)]
    pipeline.resume(shell.state, "tag-003", shell.now_s)
    shell.frame(pole.bind((1, advertisement("tag-003", count=3))), later_s=1.0)
    assert len(taken) == 3


def test_an_sos_of_an_enrolled_tag_is_recorded_like_any_reading() -> None:
    shell, taken = Shell(), []
    shell.state.tap = lambda tag, reading: taken.append((tag, reading.rssi_dbm))
    shell.frame(Pole(1).sos(advertisement(flags=wire.FLAG_SOS, press=1)))
    assert taken == [("tag-003", -70)]


# ---- the socket alone -----------------------------------------------------------------------------------------------


async def served(folder: Path) -> tuple[Recorder, asyncio.Task[None]]:
    told: list[Any] = []
    recorder = Recorder(folder, "gw1", on_health=lambda *word: told.append(word), on_change=lambda wanted: None)
    task = asyncio.create_task(recorder.run(lambda: None))
    await until(lambda: recorder.open or told, "the socket")
    assert not told
    return recorder, task


async def closed(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_client_that_sleeps_loses_readings_and_is_told_how_many(tmp_path: Path) -> None:
    async def story() -> None:
        recorder, task = await served(tmp_path)
        reader, writer = await asyncio.open_unix_connection(str(recorder.path), limit=1024)  # it stops reading
        writer.write(b'{"tags": []}\n')
        await until(lambda: recorder.clients, "the client")
        fed = 100_000
        for n in range(fed):
            recorder.reading("tag-003", Reading(1, -70, 1, float(n), -50))
            if n % 500 == 0:
                await asyncio.sleep(0)
        [client] = recorder._clients
        assert len(client.queue) <= QUEUE_MAX
        writer.write_eof()
        lines = [json.loads(line) for line in (await reader.read()).splitlines()]
        got = sum("t_s" in line for line in lines)
        assert lines[-1] == {"end": True, "sent": got, "dropped": fed - got}
        assert 0 < got < fed
        assert recorder.counters["record_dropped"] == fed - got
        writer.close()
        await closed(task)

    run(story)


@pytest.mark.parametrize(
    "want", [b"\n", b"hello\n", b"[]\n", b'{"tags": 5}\n', b'{"tags": [1]}\n', b"[" * 70_000, b"\xff\n"]
)
def test_a_client_that_speaks_otherwise_is_refused(tmp_path: Path, want: bytes) -> None:
    async def story() -> None:
        recorder, task = await served(tmp_path)
        reader, writer = await asyncio.open_unix_connection(str(recorder.path))
        writer.write(want)
        writer.write_eof()
        assert b"say first" in await reader.read()
        assert recorder.clients == 0
        assert recorder.counters["record_refused"] == 1
        writer.close()
        await closed(task)

    run(story)


def test_so_many_may_record_and_no_more(tmp_path: Path) -> None:
    async def story() -> None:
        recorder, task = await served(tmp_path)
        lines = [await asyncio.open_unix_connection(str(recorder.path)) for _ in range(CLIENTS_MAX + 1)]
        for _, writer in lines[:-1]:
            writer.write(b'{"tags": []}\n')
        await until(lambda: recorder.clients == CLIENTS_MAX, "all of them")
        reader, last = lines[-1]
        last.write(b'{"tags": []}\n')
        assert b"record already" in await reader.read()
        for _, writer in lines:
            writer.close()
        await until(lambda: recorder.clients == 0, "the end of them")
        await closed(task)

    run(story)


def test_the_socket_of_a_killed_gateway_is_replaced_and_a_folder_too_deep_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(tmp_path / SOCKET))
        stale.close()
        recorder, task = await served(tmp_path)
        _, writer = await asyncio.open_unix_connection(str(recorder.path))
        writer.close()
        await closed(task)
        deep = tmp_path / ("d" * 120)
        deep.mkdir()
        told: list[Any] = []
        other = Recorder(deep, "gw1", on_health=lambda *word: told.append(word), on_change=lambda wanted: None)
        task = asyncio.create_task(other.run(lambda: None))
        await until(lambda: told, "the word")
        assert told[0][:2] == ("record", False)
        assert "nobody can record" in told[0][2]
        assert not task.done(), "the gateway goes on"
        await closed(task)

    run(story)
