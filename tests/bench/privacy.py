"""A stranger follows tags across the change of their ids: 200 tags in range of sniffers that miss nothing.

The attacker (`_follower.py`) learns on some streets and is judged on others (`_strangers.py`). Groups of clues: `bytes`
all bytes against all bytes; `fields` these and the moving flag in clear; `timing` when and in what rhythm; `both`;
`with levels` also the signal strength at three sniffers, which no tag can hide. Chance is 0.5 %. The better of two ways
of choosing counts, with the upper end of a 95 % interval behind it. The first rows are the format and the rhythm before
ADR 14: there the attacker must succeed, else it is too weak.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from readers.advertisement import EPOCH_S
from sim.street.tag import SILENT_S
from tests.bench._follower import (
    Follower,
    Seen,
    byte_clues,
    level_clues,
    links,
    moving_clues,
    timing_clues,
)
from tests.bench._strangers import NEW, OLD, TAGS, Ids, Rhythm, Street, of_simulated_tags

TUNED, JUDGED = range(1000, 1030), range(1, 41)
"""Seeds of the streets on which the attacker learns, and of those on which it is judged."""
LAST = 3
"""The epoch whose ids are linked to later ones; those before it are known too in `hour`."""
GAPS = {"0": LAST + 1, "1 h": LAST + 5, "8 h": LAST + 33}
GROUPS = {
    "bytes": ("bytes",),
    "fields": ("bytes", "moving"),
    "timing": ("timing",),
    "both": ("bytes", "moving", "timing"),
    "with levels": ("bytes", "moving", "timing", "levels"),
}
BAR = ("fields", "timing", "both")
CLUES = {"bytes": byte_clues, "moving": moving_clues, "timing": timing_clues, "levels": level_clues}
SILENCES_S = (2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
CLOCKS_S = (2.0, 5.0, 10.0, 30.0)


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"tags": TAGS, "streets": len(JUDGED), "silent_s": SILENT_S}
    text = [f"| tags, gap | {' | '.join(GROUPS)} |", f"|---|{'---|' * len(GROUPS)}"]
    for name, rhythm in (("old", OLD), ("new", NEW)):
        tuned, judged = (list(streets(seeds, rhythm)) for seeds in (TUNED, JUDGED))
        for gap, known in (("0", 1), ("1 h", 1), ("8 h", 1), ("0", LAST + 1)):
            row = rates(views(tuned, gap, known, rhythm), views(judged, gap, known, rhythm))
            label = f"{name}, {gap}" + (", known for an hour" if known > 1 else "")
            _tell(text, f"| {label} | {' | '.join(words(row[group]) for group in GROUPS)} |")
            key = label.replace(",", "").replace(" ", "_")
            found |= {f"{key}_{group.replace(' ', '_')}_pct": 100 * row[group][0] for group in GROUPS}
            found[f"{key}_best_of_bar_upper_pct"] = 100 * max(row[group][1] for group in BAR)
        if name == "new":
            found["simulated_tags_right_of_200"] = simulated(views(tuned, "0", 1, rhythm))
    text += ["", "| timing alone, gap 0 | linked | known for an hour | silent |", "|---|---|---|---|"]
    for name, rhythm in curves().items():
        tuned, judged = (list(streets(seeds, rhythm, only_times=True)) for seeds in (TUNED, JUDGED))
        row = {
            n: rates(views(tuned, "0", n, rhythm), views(judged, "0", n, rhythm), ("timing",))["timing"]
            for n in (1, LAST + 1)
        }
        found[f"{name.replace(' ', '_')}_pct"] = 100 * row[1][0]
        silent_pct = 100 * rhythm.silent_s / EPOCH_S
        _tell(text, f"| {name} | {words(row[1])} | {words(row[LAST + 1])} | {silent_pct:.1f} % |")
    found = {name: round(value, 2) if isinstance(value, float) else value for name, value in found.items()}
    return {**found, "_markdown": "\n".join(text)}


def curves() -> dict[str, Rhythm]:
    """What the silence, the clocks and the jitter's grain do: one of them changed at a time."""
    found = {f"silence {s:g} s": replace(NEW, silent_s=s) for s in SILENCES_S}
    found |= {f"clocks off by {s:g} s (sigma)": replace(NEW, clock_s=s) for s in CLOCKS_S}
    found["crystals 20 ppm, jitter 0 to 10 ms"] = replace(NEW, clock_s=0.01)
    found["the same, jitter in steps of 0.625 ms"] = replace(NEW, clock_s=0.01, step_s=0.000625)
    return found


def _tell(text: list[str], row: str) -> None:
    print(row, flush=True)
    text.append(row)


def streets(seeds: Iterable[int], rhythm: Rhythm, *, only_times: bool = False) -> Iterable[dict[int, Ids]]:
    """Yield what was heard on each street: epoch -> ids."""
    epochs = [*range(LAST + 2), *(() if only_times else list(GAPS.values())[1:])]
    for seed in seeds:
        street = Street(seed, rhythm, only_times=only_times)
        yield {epoch: street.hear(epoch) for epoch in epochs}


def views(heard: Sequence[dict[int, Ids]], gap: str, known: int, rhythm: Rhythm) -> list[Seen]:
    """known: how many epochs before the change the follower has heard each tag for, its ids already linked."""
    return [Seen([ids[e] for e in range(LAST + 1 - known, LAST + 1)], ids[GAPS[gap]], rhythm) for ids in heard]


def rates(
    tuned: Sequence[Seen], judged: Sequence[Seen], parts: Sequence[str] = tuple(CLUES)
) -> dict[str, tuple[float, float]]:
    """Return for each group of clues the share of right links, and the upper end of its 95 % interval."""
    followers = {part: Follower(CLUES[part](), tuned) for part in parts}
    groups = {group: wanted for group, wanted in GROUPS.items() if set(wanted) <= set(parts)}
    right = {group: np.zeros(2) for group in groups}
    rng = np.random.default_rng(len(judged))
    for seen in judged:
        scores = {part: follower.scores(seen) for part, follower in followers.items()}
        for group, wanted in groups.items():
            right[group] += links(sum(scores[part] for part in wanted), rng)
    tags = len(judged) * len(judged[0].after.first_s)
    return {group: (float(best.max()) / tags, upper(float(best.max()), tags)) for group, best in right.items()}


def simulated(tuned: Sequence[Seen]) -> int:
    """Return how many of 200 tags of sim/street/tag.py itself are linked by bytes and timing."""
    before, after = of_simulated_tags(1, 2)
    seen = Seen([before], after, NEW)
    scores: Any = sum(Follower(CLUES[part](), tuned).scores(seen) for part in ("bytes", "timing"))
    return max(links(scores, np.random.default_rng(1)))


def upper(right: float, tags: int) -> float:
    """Return the upper end of the 95 % interval of a share (Wilson)."""
    p, z = right / tags, 1.96
    middle, spread = p + z * z / (2 * tags), z * (p * (1 - p) / tags + z * z / (4 * tags**2)) ** 0.5
    return float((middle + spread) / (1 + z * z / tags))


def words(rate: tuple[float, float]) -> str:
    return f"{100 * rate[0]:.2f} % (to {100 * rate[1]:.2f})"
