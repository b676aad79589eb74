"""The demo's stories without processes: the same children, tags, air, walk test and zone, the gateway's engine and
conclusions, and the demo's own verdict. A story of 90 s takes some seconds, not four minutes.

Left out are the firmware (rows come at the end of each reader's window, one packet in fifty is lost), the mesh and the
stores (a word is in the city STORED_S after it was concluded). Seeds: those that the demo is judged by, and others.

    python -m tests.bench.stories 1 2 3        # these seeds; each line says what breaks
"""

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.fix import Fix, Reading
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.presence.changes import Arrived, Change, DangerChange, Left
from gateway.presence.settle import Settler
from gateway.survey import onto_zone
from sim import chance
from sim.air.radio import Air, rssi_of
from sim.demo import technician
from sim.demo.records import CityRecords
from sim.demo.report import NEAR_S, TOLD_S, dangers_of, passages_of, passages_until, told_within_s
from sim.demo.rig import ears_of
from sim.street import site as sites
from sim.street.children import World
from sim.street.tag import CALM_S, POWER_DBM, Tag
from sim.street.zone import duty, zone_of

JUDGED, OTHERS = (*range(1, 13), 77, 4711, 1234), tuple(range(501, 521))
CHILDREN, READERS, STORY_S = 20, 12, 90.0
WINDOW_S, LATE_S, LOST, STORED_S = 2.0, 0.1, 0.02, 0.2
UNIX_S = 2_000_000 * 900.0 + 2 * CALM_S
"""The story begins when no tag is silent, and none will be."""
STEP_S = 0.2


class OfflineStory:
    """One story of the demo on one gateway. `run` it once."""

    def __init__(
        self, seed: int, *, readers: int = READERS, children: int = CHILDREN, seconds: float = STORY_S
    ) -> None:
        self.seed, self.seconds = seed, seconds
        self.site = sites.load()
        self.poles = self.site.poles[:readers]
        self.world = World(self.site, seed, children)
        self.air = Air(seed, ears_of(self.poles), walled=self.site.school)
        zone = zone_of(self.site, self.poles)
        ground = Ground(zone)
        with tempfile.TemporaryDirectory() as folder:
            walked = technician.write(Path(folder), technician.walk(self.site, self.poles, self.air, seed))
            found, survey, _ = onto_zone.walk_test_of_zone(walked, zone)
        self.locator = ZoneLocator(ground, Counter(), survey=(found, survey))
        self.settler = Settler(zone, ground.plane, {})
        self.city = CityRecords()
        self.fixes: list[tuple[float, int, Fix]] = []
        """(when, number of the child, fix)."""

    def run(self) -> dict[str, dict[str, Any]]:
        """Let the story pass and return what the demo's report says of arrivals, departures and dangers."""
        told_s = told_within_s(self.poles)
        end_s = self.seconds + told_s
        rows, row = list(self._rows(end_s)), 0
        for step in range(1, int(end_s / STEP_S)):
            now_s = step * STEP_S
            while row < len(rows) and rows[row][0] <= now_s:
                _, tag, reading = rows[row]
                self.locator.hear(tag, reading, now_s)
                self.settler.hear(tag, reading, now_s)
                row += 1
            if self.locator.deadline_s() <= now_s:
                for tag, fix, _ in self.locator.step(now_s, lambda _: False):
                    self.fixes.append((now_s, tag, fix))
                    self._keep(tag, fix, self.settler.step(tag, fix, None, now_s), now_s)
        found = passages_of(self.world, self.city, UNIX_S, self.seconds, told_s)
        return {**found, "dangers": dangers_of(self.world, self.city, UNIX_S, self.seconds)}

    def _keep(self, tag: int, fix: Fix, changes: Iterable[Change], now_s: float) -> None:
        for change in changes:
            row: dict[str, Any] = {
                "tag": self.world.children[tag - 1].tag, "observed_at_unix": UNIX_S + now_s,
                "stored_at": UNIX_S + now_s + STORED_S, "where": {"accuracy_95_m": fix.accuracy_95_m},
            }  # fmt: skip
            if isinstance(change, Arrived):
                self.city.arrivals.append(row)
            elif isinstance(change, Left):
                self.city.departures.append(row)
            elif isinstance(change, DangerChange) and change.near:
                self.city.dangers.append(row | {"area": change.area, "probability": change.probability})

    def _rows(self, end_s: float) -> Iterator[tuple[float, int, Reading]]:
        """Yield (when it is in the gateway, number of the child, row) in the order of time."""
        numbers = np.array([pole.number for pole in self.poles], np.int64)
        listens = np.array([duty(pole) for pole in self.poles])
        begins_s = WINDOW_S * chance.uniform(self.seed, "window", numbers)
        heard: dict[tuple[int, int, int], list[tuple[float, int]]] = {}
        for child in self.world.children:
            tag = Tag(self.seed, child.number, child.tag, UNIX_S)
            while (t := tag.next_s) < end_s:
                where, event = child.at(t), tag.advertise(moving=True).event
                mean = self.air.mean_dbm(where.x_m, where.y_m, where.heading, tag.power_offset_db)
                dbm, read = self.air.listen(child.number, event, mean)
                read &= chance.uniform(self.seed, "scan", child.number, event, numbers) < listens
                for k in np.flatnonzero(read).tolist():
                    window = math.floor((t - begins_s[k]) / WINDOW_S)
                    heard.setdefault((window, k, child.number), []).append((t, rssi_of(float(dbm[k]))))
        rows = []
        for (window, k, number), got in heard.items():
            if chance.one(self.seed, "frame", window, k) >= LOST:
                level = round(sum(rssi for _, rssi in got) / len(got))
                reading = Reading(int(numbers[k]), level, len(got), got[-1][0], POWER_DBM)
                rows.append((float(begins_s[k]) + WINDOW_S * (window + 1) + LATE_S, number, reading))
        yield from sorted(rows, key=lambda each: each[:2])


def broken(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return in short what breaks a promise."""
    words = []
    for kind in ("arrivals", "departures"):
        for what in ("late", "false"):
            words += [f"{kind} {what}: {row}" for row in found[kind]["detail"][what]]
    return words + [f"danger: {row}" for row in found["dangers"]["detail"]["notices"] if not row["true"]]


def near_after_s(story: OfflineStory) -> list[float]:
    """Return, for each child that was within a warning distance for NEAR_S, after how long it was told (inf: never)."""
    found = []
    for child in story.world.children:
        for danger in story.site.dangers:
            near_s, since_s = None, None
            for n in range(int(story.seconds * 2) + 1):
                is_near = story.world.danger_distance_m(child, 0.5 * n) <= danger.warn_m
                since_s = (0.5 * n if since_s is None else since_s) if is_near else None
                if since_s is not None and 0.5 * n - since_s >= NEAR_S:
                    near_s = since_s
                    break
            if near_s is not None:
                told = [row["stored_at"] - UNIX_S - near_s for row in story.city.dangers
                        if row["tag"] == child.tag and row["area"] == danger.id]  # fmt: skip
                found.append(max(min(told, default=math.inf), 0.0))
    return found


def run(judged: Sequence[int] = JUDGED, others: Sequence[int] = OTHERS) -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    figures: dict[str, float | int | str] = {}
    for name, seeds in (("judged", judged), ("other", others)):
        if not seeds:
            continue
        after: dict[str, list[float]] = {"arrivals": [], "departures": [], "dangers": []}
        counts: Counter[str] = Counter()
        for seed in seeds:
            story = OfflineStory(seed)
            found = story.run()
            counts["stories_broken"] += bool(words := broken(found))
            for kind, way in (("arrivals", "entering"), ("departures", "leaving")):
                told = found[kind]["detail"][f"seconds_after_{way}"]
                due = [p for p in passages_until(story.world, STORY_S, STORY_S, TOLD_S) if p.due]
                after[kind] += [told.get(p.tag, math.inf) for p in due if p.arrives == (kind == "arrivals")]
                counts[f"{kind}_false"] += found[kind]["false"]
            near = near_after_s(story)
            after["dangers"] += near
            counts["dangers_false"] += found["dangers"]["false"]
            counts["dangers_told"] += found["dangers"]["told"]
            print(f"  seed {seed}: {'; '.join(words) or 'good'}", flush=True)
        figures |= {f"{name}_stories": len(seeds), f"{name}_stories_broken": counts.pop("stories_broken")}
        for kind, each in after.items():
            values = np.sort(each)
            figures[f"{name}_{kind}"] = len(values)
            figures |= {f"{name}_{kind}_told_in_{s}_s": int((values <= s).sum()) for s in (20, 60)}
            for p in (50, 90) if len(values) else ():
                figures[f"{name}_{kind}_p{p}_s"] = round(float(values[int(p / 100 * (len(values) - 1))]), 1)
        figures |= {f"{name}_{key}": count for key, count in sorted(counts.items())}
    for key, value in figures.items():
        print(f"  {key:32} {value}")
    return figures


if __name__ == "__main__":
    run([int(text) for text in sys.argv[1:]] or JUDGED, () if sys.argv[1:] else OTHERS)
