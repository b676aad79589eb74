"""What the radio tests share: a radio that runs on an emulated stick and keeps what it hears and reports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.core.frames import Frame
from gateway.options import Installation
from gateway.radio.coordinator import ButtonPacket, Radio
from tests.gateway.box.bed import Stick
from tests.waiting import until


class Heard:
    """A radio, and every frame and health notice that comes out of it."""

    def __init__(self, settings: Installation) -> None:
        self.frames: list[tuple[Frame, bool]] = []
        self.pressed: list[ButtonPacket] = []
        self.ends: list[tuple[int, bool]] = []
        self.notices: list[tuple[str, bool, str]] = []
        self.radio = Radio(settings, self, on_health=lambda what, ok, detail: self.notices.append((what, ok, detail)))
        self.task: asyncio.Task[None]

    def frame(self, frame: Frame, urgent: bool) -> None:
        self.frames.append((frame, urgent))

    def button(self, pressed: ButtonPacket) -> None:
        self.pressed.append(pressed)

    def sent(self, reader: int, delivered: bool) -> None:
        self.ends.append((reader, delivered))

    @property
    def counters(self) -> dict[str, int]:
        return self.radio.counters

    @property
    def payloads(self) -> list[bytes]:
        return [frame.payload for frame, _ in self.frames]

    async def hears(self, stick: Stick, frame: Frame) -> None:
        """Send a frame until it arrives, as a reader does."""

        def arrived() -> bool:
            if frame.payload not in self.payloads:
                stick.hear(frame)
            return frame.payload in self.payloads

        for _ in range(100):
            if arrived():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the frame did not come through")


@asynccontextmanager
async def listening(settings: Installation, *, up: bool = True) -> AsyncIterator[Heard]:
    heard = Heard(settings)
    radio = heard.radio
    heard.task = asyncio.create_task(radio.run(lambda: None))
    workers = [asyncio.create_task(radio.run_downlinks(urgent, lambda: None)) for urgent in (True, False)]
    try:
        if up:
            await until(lambda: radio.up or heard.task.done(), "the radio")
        yield heard
    finally:
        for task in (heard.task, *workers):
            task.cancel()
        await asyncio.wait([heard.task, *workers])
