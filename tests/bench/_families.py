"""Our engine, and where wanted the reference, on a family of disturbed simulated sites: see `sim.walks.families`.

"train" is there to choose constants on, "judge" to judge them. Anybody can judge with a seed that nobody tuned on.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.survey import read
from sim.walks import families, sites
from sim.walks.families import FamilyName
from tests.bench import _held, _recorded
from tests.bench._held import Held

SITES, SEED = 24, 2026
"""Of the judge family in `make bench`. Constants are never chosen on the judge family, whatever the seed."""
FEW, MOVED, SHIFTED_M = 4, 0.3, 0.5
CUTS: dict[str, Callable[["Judged"], bool]] = {
    "every site": lambda each: True,
    "walk test": lambda each: each.surveyed,
    "no walk test": lambda each: not each.surveyed,
    "recorded by a gateway": lambda each: "origin" in each.facts,
    "802.15.4, one channel": lambda each: each.facts["radio"] == "802.15.4",
    "3 or 4 readers": lambda each: len(each.facts["readers"]) <= FEW,
    "walk test one way": lambda each: each.wrong["survey_one_way"],
    "place changed since": lambda each: each.wrong["moved"] > MOVED,
    "a reader 8 dB off": lambda each: each.wrong["reader_gain_db"] != 0,
    "a reader moved": lambda each: each.wrong["reader_shift_m"] > SHIFTED_M,
}
"""Rows of the table: which sites."""


@dataclass
class Judged:
    """One site: what it is, and the fixes of each method."""

    facts: dict[str, Any]
    surveyed: bool
    ours: Held
    reference: Held | None = None
    ms_per_fix: float = 0.0

    @property
    def kind(self) -> str:
        return str(self.facts["simulated"]["kind"])

    @property
    def wrong(self) -> dict[str, Any]:
        """What the survey or site.json does not say: see `sim.walks.families`."""
        return dict(self.facts["simulated"]["wrong"])


@dataclass
class Table:
    """Sites judged so far, and their tables."""

    judged: list[Judged] = field(default_factory=list)

    def text(self, title: str) -> str:
        """Return Markdown: each cut of the sites, instant and lagged, standing and walking apart."""
        lines = [
            f"### {title}", "",
            "| sites | how many | ours, m | lagged | reference, m | ours / reference | 50/90 % walking | standing |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for name, want in CUTS.items():
            if some := [each for each in self.judged if want(each)]:
                lines.append(_row(name, some))
        for kind in dict.fromkeys(each.kind for each in self.judged):
            lines.append(_row(f"kind: {kind}", [each for each in self.judged if each.kind == kind]))
        return "\n".join([*lines, "", self.radii(), ""])

    def radii(self) -> str:
        """Return one line for each kind of fix: shares held, with intervals over sites."""
        lines = [
            "| radii, every site | 50 % holds | 95 % interval | 90 % holds | 95 % interval |",
            "|---|---|---|---|---|",
        ]
        for label, lagged, standing in (
            ("instant, walking", False, False), ("instant, standing", False, True), ("instant, all", False, None),
            ("lagged, walking", True, False), ("lagged, standing", True, True), ("lagged, all", True, None),
        ):  # fmt: skip
            parts = _held.cut([each.ours for each in self.judged], lagged=lagged, standing=standing)
            cells = []
            for percent in (50, 90):
                ends = _held.interval(parts, lambda some, percent=percent: _held.cover(some, percent))  # type: ignore[misc]
                cells += [
                    _percent(_held.cover(parts, percent)),
                    "-" if ends is None else " to ".join(map(_percent, ends)),
                ]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def figures(self) -> dict[str, float | int | str]:
        found: dict[str, float | int | str] = {"sites": len(self.judged)}
        for kind, lagged in (("instant", False), ("lagged", True)):
            ours = _held.cut([each.ours for each in self.judged], lagged=lagged)
            found[f"{kind}_ours_mean_m"] = round(_held.mean_m(ours), 3)
            found[f"{kind}_ours_median_m"] = round(_held.quantile_m(ours, 0.5), 3)
            found[f"{kind}_ours_p90_m"] = round(_held.quantile_m(ours, 0.9), 3)
            theirs = _held.cut([each.reference for each in self.judged if each.reference], lagged=lagged)
            if len(theirs) == len(ours):  # the EKF has no lagged fixes
                found[f"{kind}_reference_mean_m"] = round(_held.mean_m(theirs), 3)
                found[f"{kind}_ours_to_reference"] = round(_held.ratio(ours, theirs), 3)
            for name, standing in (("walking", False), ("standing", True), ("all", None)):
                parts = _held.cut(ours, lagged=lagged, standing=standing)
                for percent in (50, 90):
                    found[f"{kind}_{name}_ours_cover{percent}"] = round(_held.cover(parts, percent), 3)
        return found


def judge(family: FamilyName, count: int, seed: int, *, reference: bool, said: Callable[[str], None] = print) -> Table:
    """Make the sites, run the engine and perhaps the reference on them. `said` gets a line for each site."""
    table = Table()
    shared = _recorded.tools() if reference else None
    for site in families.family_of(family, count, seed):
        with tempfile.TemporaryDirectory(prefix="ansim-family-") as home:
            found = one(sites.write(site, Path(home)), shared)
        table.judged.append(found)
        ours = _held.cut([found.ours], lagged=False)
        theirs = _held.cut([found.reference] if found.reference else [], lagged=False)
        shares = "/".join(_percent(_held.cover(ours, percent)) for percent in (50, 90))
        said(
            f"  {site.name:28} ours {_held.mean_m(ours):6.2f} m {shares}, reference {_held.mean_m(theirs):6.2f} m, "
            f"{found.ms_per_fix:.1f} ms; {'walk test' if found.surveyed else 'no walk test'} {_words(found.wrong)}"
        )
    return table


def one(folder: Path, shared: Any | None) -> Judged:
    """Run our engine, and with the tools of ../shared the reference, on one site's folder."""
    site = read.load_site(folder)
    survey, tracks = read.load_survey(folder, site), list(read.load_tracks(folder, site))
    mine = _recorded.ours(folder)
    facts = json.loads((folder / "site.json").read_text(encoding="utf-8"))
    found = Judged(facts, len(survey) > 0, _held.held(site.name, tracks, mine.fixes), ms_per_fix=mine.ms_per_fix)
    if shared is not None:
        found.reference = _held.held(site.name, tracks, _recorded.reference_fixes(shared, folder))
    return found


def _row(name: str, some: Sequence[Judged]) -> str:
    mine = [each.ours for each in some]
    theirs = [each.reference for each in some if each.reference is not None]
    now, late = (_held.cut(mine, lagged=lagged) for lagged in (False, True))
    other = _held.cut(theirs, lagged=False)
    cells = [name, str(len(some)), f"{_held.mean_m(now):.2f}", f"{_held.mean_m(late):.2f}"]
    cells += [f"{_held.mean_m(other):.2f}", f"{_held.ratio(now, other):.2f}"] if other else ["-", "-"]
    for standing in (False, True):
        parts = _held.cut(mine, lagged=False, standing=standing)
        cells.append("/".join(_percent(_held.cover(parts, percent)) for percent in (50, 90)))
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.0f}"


def _words(wrong: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in wrong.items() if value)
