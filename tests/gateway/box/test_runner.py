"""From the stick's bytes to the rows on disk: an event is on disk before its answer, and a cry goes before all else."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.box import runner
from gateway.box.clock import ClockWatch
from gateway.box.daemon import Daemon
from gateway.core import frames, pipeline
from gateway.effects import Effect
from gateway.events import Bell, ReaderHealth, Sos
from gateway.outbox.lane_file import NotCommitted
from gateway.outbox.lanes import Outbox
from gateway.radio.coordinator import ButtonPacket, Radio
from gateway.uplink import StageNotice
from readers import wire
from sim.ncp.messages import Unicast
from tests.gateway.box.bed import load, of, plugged, rows, running
from tests.gateway.core.bed import Pole, advertisement
from tests.waiting import run, until

CRY = wire.FLAG_SOS


def cry(press: int = 1, count: int = 1) -> bytes:
    return advertisement(flags=CRY, press=press, count=count, utc_s=time.time())


def routine_read(gateway: Daemon) -> int:
    return pipeline.counters(gateway.runner.state).get(f"frames_kind_{wire.HEARTBEAT}", 0)


def test_a_report_becomes_a_committed_event_and_only_then_the_reader_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            pole = Pole(1)
            told: list[tuple[list[int], int]] = []

            def fate(message: Unicast) -> bool:
                kind, body = pole.read(message.payload)
                if kind == wire.ACK:
                    sequences = [sequence for _, sequence, _ in wire.decode_ack(body)[1]]
                    told.append((sequences, len(of(ReaderHealth, rows(settings.folder, "events")))))
                return True

            stick.fate = fate
            async with running(settings):
                assert stick.hear(pole.beat(uptime_s=7))
                await until(lambda: told, "the acknowledgement")
                assert told == [([1], 1)], "the reader's first frame, and its event on disk"
                [event] = of(ReaderHealth, rows(settings.folder, "events"))
                assert (event.reader, event.state, event.counters["uptime_s"]) == (1, "ok", 7)

    run(story)


def test_an_acknowledgement_waits_for_a_slow_disk_and_a_cry_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick, running(load(tmp_path, tmp_path / "stick")) as gateway:
            beating, crying = Pole(1), Pole(2)
            go_on = asyncio.Event()
            commit = gateway.outbox.events.commit

            async def slow(*arguments: Any) -> list[int]:
                await go_on.wait()
                return await commit(*arguments)

            def acknowledged() -> bool:
                return any(beating.read(m.payload)[0] == wire.ACK for m in stick.unicasts if m.nwk == 0x1001)

            monkeypatch.setattr(gateway.outbox.events, "commit", slow)
            stick.hear(beating.beat())
            await until(lambda: routine_read(gateway), "the heartbeat")
            stick.hear(crying.sos(cry()))
            await until(lambda: stick.stages(crying), "the lamp's stage")
            await until(lambda: gateway.runner.state.table.deadline_s() > 1e9, "the core's acknowledgement")
            stick.hear(crying.bell(number=2))
            await until(lambda: (2, wire.RECEIVED) in stick.stages(crying), "what came after it")
            assert not acknowledged()
            go_on.set()
            await until(acknowledged, "the acknowledgement")

    run(story)


def test_a_cry_is_on_disk_when_the_reader_is_told_received_and_the_citys_word_follows(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            pole = Pole(2)
            on_disk: list[list[Any]] = []

            def fate(message: Unicast) -> bool:
                on_disk.append(of(Sos, rows(settings.folder, "sos")))
                return True

            stick.fate = fate
            async with running(settings) as gateway:
                assert stick.hear(pole.sos(cry(), number=5))
                await until(lambda: stick.stages(pole), "the lamp's stage")
                assert stick.stages(pole)[0] == (5, wire.RECEIVED)
                assert len(on_disk[0]) == 1
                [event] = rows(settings.folder, "sos")
                assert (event.tag, event.trust, event.revision, event.readers) == ("tag-003", "verified", 0, (2,))
                gateway.runner.on_stage(StageNotice(alarm=event.alarm, stage="acknowledged", at=datetime.now(UTC)))
                await until(lambda: (5, wire.ACKNOWLEDGED) in stick.stages(pole), "help is coming")

    run(story)


def test_a_cry_no_disk_takes_is_kept_for_the_city_and_the_reader_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            pole = Pole(1)
            good = gateway.outbox.sos.commit

            async def refuse(*_: Any) -> list[int]:
                raise NotCommitted("the disk is gone")

            monkeypatch.setattr(gateway.outbox.sos, "commit", refuse)
            for _ in range(3):
                stick.hear(pole.sos(cry()))
            await until(lambda: gateway.runner.counters["steps_cut"] >= 3, "three tries")
            assert gateway.outbox.ring.backlog == 1, "one press, one row, though no disk took it"
            monkeypatch.setattr(gateway.outbox.sos, "commit", good)
            assert not stick.stages(pole)
            stick.hear(pole.sos(cry()))
            await until(lambda: stick.stages(pole), "the lamp's stage, at last")
            assert len({event.alarm for event in of(Sos, rows(settings.folder, "sos"))}) == 1

    run(story)


def test_a_cry_goes_before_five_hundred_routine_frames_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with running(settings, radio_up=False) as gateway:
            pole, crying = Pole(1), Pole(2)
            flood = [pole.beat() for _ in range(600)]
            cries = [crying.sos(cry(press), number=press) for press in (1, 2, 3)]
            read_before: list[int] = []
            commit = gateway.outbox.commit_emergency

            async def spy(*arguments: Any) -> int:
                read_before.append(routine_read(gateway))
                return await commit(*arguments)

            gateway.outbox.commit_emergency = spy  # type: ignore[method-assign]
            for n, frame in enumerate(flood):
                gateway.frame(frame, frames.is_urgent(frame.payload))
                if n in (10, 300, 599):
                    gateway.frame(cries.pop(), True)
            await until(lambda: routine_read(gateway) == runner.ROUTINE_MAX, "the flood's end")
            assert read_before[:3] == [0, 0, 0]
            assert gateway.runner.counters["frames_dropped"] == len(flood) - runner.ROUTINE_MAX
            assert gateway.runner.counters["urgent_dropped"] == 0
            assert len({event.alarm for event in of(Sos, rows(settings.folder, "sos"))}) == 3

    run(story)


def test_a_flood_through_the_stick_costs_no_cry(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            pole, crying = Pole(1), Pole(2)
            taken = 0
            for n in range(500):
                taken += stick.hear(pole.beat())
                if n == 250:  # the stick's buffers are full: a reader tries again
                    await until(lambda: stick.hear(crying.sos(cry())), "room in the stick")
            await until(lambda: routine_read(gateway) + gateway.runner.counters["frames_dropped"] == taken, "the flood")
            await until(lambda: stick.stages(crying), "the lamp's stage")
            assert len(of(Sos, rows(settings.folder, "sos"))) == 1

    run(story)


def test_forged_cries_that_fill_the_queue_are_dropped_and_counted_and_a_true_one_is_answered(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            pole = Pole(1)
            forged = pole.sos(cry())
            wrong = frames.Frame(0x9999, 1, -90, forged.payload[:-1] + bytes((forged.payload[-1] ^ 1,)))
            for _ in range(runner.URGENT_MAX + 7):
                gateway.frame(wrong, True)
            assert gateway.runner.counters["urgent_dropped"] == 7
            await until(lambda: gateway.runner.queued() == (0, 0), "the forger's end")
            assert not rows(settings.folder, "sos")
            stick.hear(pole.sos(cry()))
            await until(lambda: stick.stages(pole), "the lamp's stage")
            assert stick.unicasts[0].nwk != 0x9999

    run(story)


def test_a_frame_that_breaks_the_core_is_kept_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_frame = pipeline.on_frame

    def breaks(state: Any, frame: frames.Frame, now_s: float) -> Iterator[Effect]:
        yield from on_frame(state, frame, now_s)
        if frame.nwk == 0x6666:
            raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(pipeline, "on_frame", breaks)

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with running(settings, radio_up=False) as gateway:
            bad = frames.Frame(0x6666, 1, -90, b"\x00\xff" * 33)
            for _ in range(runner.FAULTS_A_MINUTE + 40):
                gateway.frame(bad, False)
            gateway.frame(Pole(2).bell(), True)
            await until(lambda: of(Bell, rows(settings.folder, "sos")), "the bell")
            await until(lambda: gateway.runner.counters["frame_faults"] == runner.FAULTS_A_MINUTE + 40, "the count")
            kept = [json.loads(line) for line in (settings.folder / "faults.jsonl").read_text().splitlines()]
            assert len(kept) == runner.FAULTS_A_MINUTE
            assert (kept[0]["bytes"], kept[0]["nwk"]) == (bad.payload.hex(), 0x6666)
            assert "a fault of ours" in kept[0]["error"]

    run(story)


def test_a_tick_that_breaks_does_not_starve_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(state: Any, now_s: float) -> Iterator[Effect]:
        raise ZeroDivisionError("a fault of ours")
        yield

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with running(settings, radio_up=False) as gateway:
            monkeypatch.setattr(pipeline, "on_tick", breaks)
            await until(lambda: gateway.runner.counters["frame_faults"], "a broken tick")
            for frame in [Pole(1).beat() for _ in range(50)]:
                gateway.frame(frame, False)
            began_s = time.monotonic()
            await until(lambda: routine_read(gateway) >= 1 and gateway.runner.queued() == (0, 0), "the frames")
            assert gateway.runner.counters["frame_faults"] <= 2 + (time.monotonic() - began_s) / runner.TICK_AGAIN_S

    run(story)


def test_the_core_comes_back_as_it_was_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        pole = Pole(1)
        again = pole.beat()
        async with running(settings, radio_up=False) as gateway:
            gateway.frame(again, False)
            await until(lambda: routine_read(gateway) == 1, "the frame")
        async with running(settings, radio_up=False) as gateway:
            gateway.frame(again, False)
            gateway.frame(pole.beat(), False)
            await until(lambda: routine_read(gateway) == 1, "the new one")
            assert pipeline.counters(gateway.runner.state)["frames_again"] == 1

    run(story)


def test_a_snapshot_is_kept_only_behind_the_events_that_led_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut between the two loses an arrival permanently: the core believes that it was reported."""
    monkeypatch.setattr(runner, "SNAPSHOT_S", 0.0)
    monkeypatch.setattr(runner, "CHORES_S", 0.01)

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        notices: list[str] = []

        def on_health(what: str, ok: bool, detail: str) -> None:
            notices.append(what)

        outbox = Outbox(
            settings.folder,
            utc_now=lambda: datetime.now(UTC),
            on_health=on_health,
            bulk_max_b=1 << 22,
            ballast_b=1 << 20,
        )
        clock = ClockWatch(trusted=True)
        core = runner.Runner(
            settings, outbox, Radio(settings, _Nobody(), on_health=on_health), clock, on_health=on_health
        )
        task = asyncio.create_task(core.run(lambda: None))
        await until(lambda: core.counters["snapshots"] >= 3, "a snapshot now and then")
        core.frame(Pole(1).beat(), False)
        await until(lambda: outbox.counters()["events_waiting"] == 1, "an event nobody commits")
        kept = core.counters["snapshots"]
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert core.counters["snapshots"] <= kept + 1, "one may have been under way"
        assert outbox.events.backlog == 0
        await outbox.flush()
        await until(lambda: core.counters["snapshots"] > kept + 1, "the next snapshot")
        assert outbox.events.backlog == 1
        core.stop()
        await task
        await core.close()
        await outbox.close()

    run(story)


def test_a_reader_that_gets_no_downlink_is_told_so_in_the_next_that_it_gets(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            pole = Pole(2)
            flags: list[int] = []

            def fate(message: Unicast) -> bool:
                kind, body = pole.read(message.payload)
                if kind == wire.ACK and flags:
                    flags.append(wire.decode_ack(body)[0])
                return kind == wire.ACK and bool(flags)

            stick.fate = fate
            await until(lambda: gateway.runner._radio_starts == 1, "the core's second after the start")
            stick.hear(pole.bell())
            await until(lambda: gateway.radio.counters["send_failed"] >= 3, "three stages in vain", 10)
            await until(lambda: not gateway.runner._sent, "the core's next second")
            flags.append(-1)
            stick.hear(pole.beat())
            await until(lambda: len(flags) > 1, "an acknowledgement")
            assert flags[1] & wire.ACK_LOSSES
            assert pipeline.counters(gateway.runner.state)["losses_told"] == 1
            for _ in range(3):
                gateway.runner.sent(2, False)
            gateway.radio.counters["starts"] += 1  # as a stick does that comes back
            await until(lambda: gateway.runner._radio_starts == 2, "the core's next second")
            assert not gateway.runner.state.losses.tell(2, time.monotonic())

    run(story)


class _Nobody:
    def frame(self, frame: frames.Frame, urgent: bool) -> None: ...

    def button(self, pressed: ButtonPacket) -> None: ...

    def sent(self, reader: int, delivered: bool) -> None: ...


def test_a_reader_zigpy_has_forgotten_is_answered_where_its_frame_came_from(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            async with running(settings):
                pass
            settings.database.unlink()
            async with running(settings) as gateway:
                pole = Pole(3)
                moved = pole.sos(cry())
                assert stick.hear(frames.Frame(0x1003, 200, -60, moved.payload))
                await until(lambda: stick.stages(pole), "the lamp's stage")
                assert gateway.radio.address_of(3) == 0x1003
                replay = frames.Frame(0x6666, 200, -60, moved.payload)
                assert stick.hear(replay)
                await until(lambda: pipeline.counters(gateway.runner.state).get("frames_again"), "the replay")
                assert gateway.radio.address_of(3) == 0x1003, "a replayed frame leads nobody astray"

    run(story)
