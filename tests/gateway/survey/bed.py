"""What the tests of recorded sites share: a site with every field set, and a way to put a file into its folder."""

import math
from pathlib import Path

import numpy as np

from gateway.recording import Area, DeviceLaw, RecordedGate, RecordedSite

SITE = RecordedSite(
    name="yard",
    bounds_m=(-5.0, -2.0, 40.0, 20.5),
    reader_ids=("r1", "gate, north", "3"),
    readers_m=np.array([[0.0, 0.0, 3.5], [30.25, 1.5, 2.5], [12.0, 18.125, 4.0]]),
    worn="body",
    tag_height_m=1.1,
    radio="802.15.4",
    channel=DeviceLaw(-52.0, 2.3, 6.0),
    seen_tracks=("morning",),
    tag_power_dbm=-57.5,
    footpaths=(np.array([[0.0, -3.0], [30.125, -3.0], [30.125, 9.5]]), np.array([[0.0, -3.0], [-5.0, -2.0]])),
    places=(Area("school", np.array([[0.0, 0.0], [20.5, 0.0], [20.5, 9.25]])),),
    dangers=(Area("river", np.array([[30.0, 0.0], [40.0, 0.0], [40.0, 8.0], [30.0, 8.0]]), 12.5),),
    gates=(RecordedGate("main", "school", (10.25, 0.0), 90.0, 3.5), RecordedGate("back", "school", (20.5, 5.0), 180.0)),
    look=np.array([math.nan, math.pi / 2, math.pi]),
    guards=(None, ("main", "inner"), ("back", "outer")),
)


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
