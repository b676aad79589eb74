"""Time of an emergency from the gateway's publish to the city's commit, alone and while a bulk backlog drains.

Real parts: mosquitto (else the nats-server), `ansim-city run` as a process, its SQLite file, MQTT on loopback.
"""

import tempfile
import time
from pathlib import Path

from gateway import uplink
from gateway.uplink import Watermark
from tests import programs
from tests.city.bed import City, Gateway, free_port, mosquitto, nats, position, sos, told, wait_for, when

BATCHES = 300
ROWS = 100
WINDOW = 8
"""Bulk messages on their way at once: the size of a gateway's bounded window."""
CRIES = 200
EVERY_S = 0.025


def run() -> dict[str, float | int | str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = mosquitto if programs.find("mosquitto") else nats
        with broker(folder, free_port()) as port:
            city = City(folder, port)
            gateway = Gateway(port)
            try:
                city.start()
                idle = _cries(gateway, 1, CRIES, backlog=False)
                started_s = time.perf_counter()
                busy = _cries(gateway, CRIES + 1, CRIES, backlog=True)
                wait_for("the backlog to drain", lambda: gateway.upto("events") == BATCHES * ROWS, 120)
                drain_s = time.perf_counter() - started_s
                stored = city.get("/api/stats")["stored"]
                assert stored == {"sos": CRIES, "told": CRIES, "position": BATCHES * ROWS}, stored
            finally:
                gateway.close()
                city.stop()
    figures: dict[str, float | int | str] = {"broker": broker.__name__, "bulk_rows": BATCHES * ROWS}
    figures["bulk_drained_rows_per_s"] = round(BATCHES * ROWS / drain_s)
    for what, times_ms in (("idle", idle), ("behind_backlog", busy)):
        ordered = sorted(times_ms)
        for percent in (50, 95, 99):
            figures[f"sos_{what}_p{percent}_ms"] = round(ordered[len(ordered) * percent // 100 - 1], 2)
        figures[f"sos_{what}_max_ms"] = round(ordered[-1], 2)
    return figures


def _cries(gateway: Gateway, first: int, count: int, *, backlog: bool) -> list[float]:
    """Send alarms and lamp reports in turn at a steady pace; return for each the time from publish to its watermark."""
    rows = [uplink.encode_row(position(f"t-{i:03}")) for i in range(ROWS)] if backlog else []
    sent: dict[int, float] = {}
    batch = 0
    for seq in range(first, first + count):
        while backlog and batch < BATCHES and batch - gateway.upto("events") // ROWS < WINDOW:
            _send(gateway, batch, rows)
            batch += 1
        sent[seq] = time.time()
        event = sos(f"gw1-e1-{seq}", tag=f"t-{seq:03}") if seq % 2 else told(f"gw1-e1-{seq - 1}", "stored")
        gateway.urgent(seq, event)
        while time.time() < sent[seq] + EVERY_S:
            if backlog and batch < BATCHES and batch - gateway.upto("events") // ROWS < WINDOW:
                _send(gateway, batch, rows)
                batch += 1
            else:
                time.sleep(0.0005)
    wait_for("the last watermark", lambda: gateway.upto("sos") == first + count - 1)
    while backlog and batch < BATCHES:
        if batch - gateway.upto("events") // ROWS < WINDOW:
            _send(gateway, batch, rows)
            batch += 1
        time.sleep(0.0005)
    arrived: dict[int, float] = {}
    for at_s, ack in list(gateway.acks):
        if isinstance(ack, Watermark) and ack.lane == "sos":
            for seq in range(max(first, max(arrived, default=first - 1) + 1), ack.upto + 1):
                arrived[seq] = at_s
    return [1000 * (arrived[seq] - sent[seq]) for seq in sent]


def _send(gateway: Gateway, batch: int, rows: list[bytes]) -> None:
    numbered = [(1 + batch * ROWS + i, row) for i, row in enumerate(rows)]
    payload = uplink.encode_batch(
        gateway=gateway.name, epoch=gateway.epoch, after=batch * ROWS, sent_at=when(), rows=numbered
    )
    gateway.send("events", payload)


if __name__ == "__main__":
    for figure, value in run().items():
        print(f"{figure:32} {value}")
