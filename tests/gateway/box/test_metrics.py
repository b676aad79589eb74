"""Every figure of the gateway is served and documented. A port that is in use stops nothing."""

import asyncio
import urllib.request
from pathlib import Path

from tests.gateway.box.bed import load, plugged, running, told
from tests.gateway.core.bed import Pole
from tests.roots import ROOT
from tests.waiting import run, until


def _get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read(), "utf-8")


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_the_figures_are_served_and_every_one_is_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "GATEWAY.md").read_text(encoding="utf-8")

    async def story() -> None:
        port = free_port()
        settings = load(tmp_path, tmp_path / "stick", extra=f"[metrics]\nport = {port}")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            stick.hear(Pole(2).bell())
            await until(lambda: stick.unicasts, "the lamp's stage")
            text = await asyncio.to_thread(_get, port)
            lines = dict(line.split(" ") for line in text.splitlines() if line.startswith("ansim_gateway_"))
            assert lines["ansim_gateway_radio_urgent_frames_total"] == "1.0"
            assert lines["ansim_gateway_radio_up"] == "1.0"
            assert float(lines["ansim_gateway_sos_commit_p50_ms"]) > 0
            assert "process_resident_memory_bytes" in text
            missing = [name for name in gateway.figures() if f"`{name}`" not in page]
            assert not missing, f"not in docs/GATEWAY.md: {', '.join(missing)}"

    run(story)


def test_a_metrics_port_in_use_is_told_and_stops_nothing(tmp_path: Path) -> None:
    import socket

    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            settings = load(tmp_path, tmp_path / "stick", extra=f"[metrics]\nport = {port}")
            async with running(settings, radio_up=False):
                await until(lambda: told(settings, "metrics"), "the word")

    run(story)
