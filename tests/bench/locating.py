"""Our engine compared with every peer and the reference on the recorded sites; then again with faults in them.

The tables go into the Markdown file whole; the figures are what has to hold. Sites, scorer, peers and reference are
those of ../shared. Where they are absent, the run says so and compares nothing. All walks are BLE and indoors; one set
is outdoors and stands still. Every recording was looked at while constants were chosen, so parts of the surveys are
left out (`_folds`), and a family of simulated sites judges that no constant is chosen on (`_families`).

    python -m tests.bench.locating FOLDER                               ours and the reference on any folder's sites
    python -m tests.bench.locating --folds                              parts of the surveys left out
    python -m tests.bench.locating --family judge --sites 24 --seed 7   with a seed that nobody tuned on
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sim.walks.families import FAMILIES
from tests.bench import _families, _folds, _held, _recorded, _zones

Figures = dict[str, float | int | str]

RANKED = ("danis_room", "kolakowski_flat")
"""Sites that rank methods. girolami_path1 does not: its survey and its tracks are the same route."""
REFERENCE = "reference (chosen by rule)"
OURS = "**ours**"
KINDS = ("instant", "lagged")
FAULTS = {
    "outliers_5pct": "outliers=0.05",
    "reader_8db_high": "reader_off=8",
    "reader_8db_low": "reader_off=-8",
    "half_lost": "lose=0.5",
    "spikes_1pct": "spikes=0.01",
    "shuffled": "shuffle",
    "reader_dead": "dead",
}
ALSO_REFERENCE = ("outliers_5pct", "reader_8db_high", "half_lost")
FOUR_READERS: dict[str, tuple[int, ...]] = {"girolami_path3": (1, 2), "lora_field": (1,)}
"""Sites with four readers, and the seeds of their faults."""
SEEDS = (1, 2, 3)
"""Seeds of the faults: they decide which rows and which reader are faulty."""


def run() -> Figures:
    """Return figures in metres and shares, and the tables under `_markdown`."""
    if (why := _recorded.missing()) is not None:
        return {"skipped": why}
    shared = _recorded.tools()
    results, text, figures = _beside_peers(shared)
    figures |= _pooled(results)
    parts = [_zone_words(shared, results), _faults(shared, results), _four_readers(), _left_out(shared), _judged()]
    for lines, more in parts:
        text += lines
        figures |= more
    figures["_markdown"] = "\n".join(text)
    return figures


def _beside_peers(shared: Any) -> tuple[dict[str, dict[str, dict[str, Any]]], list[str], Figures]:
    """Return results by site and method, tables and figures: ours beside every peer on every recording."""
    results: dict[str, dict[str, dict[str, Any]]] = {}
    text, figures = ["## Locating on recorded sites", ""], Figures()
    for folder in _recorded.site_folders(still=True):
        name = folder.name
        print(f"  {name} ...", flush=True)
        found = results[name] = {}
        mine = _recorded.ours(folder)
        found[OURS] = {**_recorded.scored(shared, folder, mine.fixes), "ms_per_fix": round(mine.ms_per_fix, 3)}
        figures[f"{name}_ours_start_ms"] = round(mine.start_ms, 1)
        found |= _recorded.by_peers(shared, folder)
        figures |= _site_figures(name, found)
        text += [f"### {name}", "", shared.score.table(found)]
    return results, text, figures


def _site_figures(name: str, found: dict[str, dict[str, Any]]) -> Figures:
    figures: Figures = {}
    for kind in KINDS:
        others = {m: r["pooled"][kind] for m, r in found.items() if m != OURS and r["pooled"][kind]}
        best = min(others, key=lambda m: others[m]["mean_m"])
        zones = [o["zones_single"]["accuracy"] for o in others.values() if o["zones_single"]]
        merged = [o["zones_merged"]["accuracy"] for o in others.values() if o["zones_merged"]]
        figures[f"{name}_{kind}_best_other"] = best
        figures[f"{name}_{kind}_best_other_mean_m"] = others[best]["mean_m"]
        figures[f"{name}_{kind}_reference_mean_m"] = others[REFERENCE]["mean_m"]
        mine = found[OURS]["pooled"][kind]
        for key in ("median_m", "mean_m", "p90_m", "cover50", "cover90", "lag_s", "fixes_per_s"):
            figures[f"{name}_{kind}_ours_{key}"] = mine[key]
        if (z := mine["zones_single"]) and (m := mine["zones_merged"]):
            true = max(z["true_changes_per_min"], 1e-9)
            figures[f"{name}_{kind}_ours_zone_changes_per_min"] = z["changes_per_min"]
            figures[f"{name}_{kind}_ours_zone_changes_times_truth"] = round(z["changes_per_min"] / true, 2)
            figures[f"{name}_{kind}_ours_zone_accuracy"] = z["accuracy"]
            figures[f"{name}_{kind}_best_other_zone_accuracy"] = max(zones)
            figures[f"{name}_{kind}_ours_merged_zone_accuracy"] = m["accuracy"]
            figures[f"{name}_{kind}_best_other_merged_zone_accuracy"] = max(merged)
    figures[f"{name}_ours_ms_per_fix"] = found[OURS]["ms_per_fix"]
    figures[f"{name}_reference_ms_per_fix"] = found[REFERENCE]["ms_per_fix"]
    return figures


def _pool(parts: Iterable[dict[str, Any] | None], key: str) -> float:
    """Return a figure's mean over all fixes of the parts."""
    known = [part for part in parts if part]
    return float(sum(part[key] * part["fixes"] for part in known) / max(sum(part["fixes"] for part in known), 1))


def _pooled(results: dict[str, dict[str, dict[str, Any]]]) -> Figures:
    """Return figures over sites: "pooled" weighs fixes, "all_sites" counts each site the same, however long it is."""
    figures: Figures = {}
    ranked = [name for name in RANKED if name in results]
    figures["pooled_sites"] = " + ".join(ranked)
    for kind in KINDS:
        mine = _pool((results[n][OURS]["pooled"][kind] for n in ranked), "mean_m")
        reference = _pool((results[n][REFERENCE]["pooled"][kind] for n in ranked), "mean_m")
        figures[f"pooled_{kind}_ours_mean_m"] = round(mine, 3)
        figures[f"pooled_{kind}_reference_mean_m"] = round(reference, 3)
        figures[f"pooled_{kind}_ours_to_reference"] = round(mine / reference, 3)
        for key in ("cover50", "cover90"):
            share = _pool((results[n][OURS]["pooled"][kind] for n in ranked), key)
            figures[f"pooled_{kind}_ours_{key}"] = round(share, 3)
            each = [float(results[n][OURS]["pooled"][kind][key]) for n in results]
            figures[f"all_sites_{kind}_ours_{key}"] = round(sum(each) / len(each), 3)
    return figures


def _zone_words(shared: Any, results: dict[str, dict[str, dict[str, Any]]]) -> tuple[list[str], Figures]:
    """Compare zones by the gateway's own answer with the zone of the newest fix, ours and every other method's."""
    print("  zones ...", flush=True)
    counts = {f.name: _zones.counted(shared, f) for f in _recorded.site_folders() if f.name in RANKED}
    figures: Figures = {}
    lines = [
        f"### Zones, pooled over {' + '.join(RANKED)}; ours by belief and by circle {_zones.LAG_S:g} s late", "",
        "| zones | kind | method | changes a minute | times the truth's | accuracy |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for layout in _zones.LAYOUTS:
        for kind in KINDS:
            rows: dict[str, tuple[float, float]] = {}
            true = 0.0
            for way in _zones.WAYS:
                label = f"pooled_{kind}_{layout}_zones_by_{way}"
                for name in (*RANKED, None):
                    some = counts.values() if name is None else [counts[name]]
                    found = _zones.summary(shared, some, (way, kind, layout))
                    if found is None:
                        continue
                    true = max(found["true_changes_per_min"], 1e-9)
                    times, accuracy = round(found["changes_per_min"] / true, 2), found["accuracy"]
                    at = label if name is None else label.replace("pooled", name)
                    figures |= {f"{at}_changes_times_truth": times, f"{at}_accuracy": accuracy}
                    if name is None:
                        rows[f"{OURS} by {way}"] = found["changes_per_min"], accuracy
            for method in results[RANKED[0]]:
                parts = [results[name][method]["pooled"][kind] for name in RANKED if method in results[name]]
                if len(parts) == len(RANKED) and all(part and part[f"zones_{layout}"] for part in parts):
                    each = [part[f"zones_{layout}"] | {"fixes": part["fixes"]} for part in parts]
                    rows[method] = _pool(each, "changes_per_min"), _pool(each, "accuracy")
            others = [accuracy for method, (_, accuracy) in rows.items() if not method.startswith(OURS)]
            figures[f"pooled_{kind}_{layout}_zones_best_other_accuracy"] = round(max(others), 3)
            lines += [
                f"| {layout} | {kind} | {method} | {changes:.1f} | {changes / true:.1f} | {accuracy:.3f} |"
                for method, (changes, accuracy) in rows.items()
            ]
    return [*lines, ""], figures


def _faults(shared: Any, results: dict[str, dict[str, dict[str, Any]]]) -> tuple[list[str], Figures]:
    """Put each fault into the ranked sites, once per seed; growth compares pooled means with the sound sites'."""
    figures: Figures = {}
    lines = [
        f"### Faults, pooled over {' + '.join(RANKED)}, {len(SEEDS)} seeds", "",
        "| fault | method | kind | mean m | grows by % | cover 50/90 % |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    folders = [folder for folder in _recorded.site_folders() if folder.name in RANKED]
    for label, fault in FAULTS.items():
        print(f"  fault {fault} ...", flush=True)
        found: dict[str, list[dict[str, Any]]] = {OURS: [], REFERENCE: []}
        for folder in folders:
            for seed in SEEDS:
                with _recorded.faulty(folder, fault, seed) as home:
                    broken = Path(home) / folder.name
                    mine = _recorded.ours(broken)
                    found[OURS].append(_recorded.scored(shared, folder, mine.fixes)["pooled"])
                    if label in ALSO_REFERENCE:
                        found[REFERENCE].append(_recorded.by_reference(shared, broken)["pooled"])
        for method, parts in found.items():
            if not parts:
                continue
            short = "ours" if method == OURS else "reference"
            for kind in KINDS:
                sound = _pool((results[f.name][method]["pooled"][kind] for f in folders), "mean_m")
                mean_m = _pool((part[kind] for part in parts), "mean_m")
                cover = [_pool((part[kind] for part in parts), key) for key in ("cover50", "cover90")]
                grows = 100 * (mean_m / sound - 1)
                figures[f"{label}_{kind}_{short}_mean_grows_pct"] = round(grows, 1)
                figures[f"{label}_{kind}_{short}_cover90"] = round(cover[1], 3)
                shares = "/".join(f"{100 * share:.0f}" for share in cover)
                lines.append(f"| {fault} | {short} | {kind} | {mean_m:.2f} | {grows:+.1f} | {shares} |")
    return [*lines, ""], figures


def _four_readers() -> tuple[list[str], Figures]:
    """One reader 8 dB off where there are four in all: the worst case of a small site."""
    figures: Figures = {}
    lines = ["### One of four readers 8 dB off", "", "| site | fault | ours, m | 50/90 % |", "|---|---|---|---|"]
    for folder in (each for each in _recorded.site_folders(still=True) if each.name in FOUR_READERS):
        print(f"  one of four readers off on {folder.name} ...", flush=True)
        for fault in ("reader_off=8", "reader_off=-8"):
            found = []
            for seed in FOUR_READERS[folder.name]:
                with _recorded.faulty(folder, fault, seed) as home:
                    found.append(_families.one(Path(home) / folder.name, None).ours)
            parts = _held.cut(found, lagged=False)
            shares = [_held.cover(parts, q) for q in (50, 90)]
            label = f"{folder.name}_{'high' if '-' not in fault else 'low'}_8db"
            figures[f"{label}_instant_ours_mean_m"] = round(_held.mean_m(parts), 3)
            figures[f"{label}_instant_ours_cover90"] = round(shares[1], 3)
            text = "/".join(map(_folds.percent, shares))
            lines.append(f"| {folder.name} | {fault} | {_held.mean_m(parts):.2f} | {text} |")
    return [*lines, ""], figures


def _left_out(shared: Any) -> tuple[list[str], Figures]:
    """Leave parts of the recorded surveys out; judge radii on sites that their factor was not fitted on."""
    folds: list[_folds.Fold] = []
    for folder in _recorded.site_folders(still=True):
        print(f"  parts left out of {folder.name} ...", flush=True)
        folds += _folds.folds_of(shared, folder)
    return [_folds.overview(folds), _folds.table(folds), _folds.radii_left_out(folds)], _folds.figures(folds)


def _judged() -> tuple[list[str], Figures]:
    """Judge on the family of simulated sites that no constant is chosen on."""
    print(f"  {_families.SITES} disturbed sites ...", flush=True)
    table = _families.judge("judge", _families.SITES, _families.SEED, reference=True)
    figures: Figures = {f"judge_{name}": value for name, value in table.figures().items()}
    return [table.text(f"Disturbed sites, family judge, seed {_families.SEED}")], figures


def of_sites(folder: Path) -> Figures:
    """Print ours and the reference for each site of a folder (`ansim-sim walks make` can write one); return means."""
    shared = _recorded.tools()
    pools: dict[str, list[dict[str, Any]]] = {OURS: [], REFERENCE: []}
    for home in sorted(path.parent for path in folder.glob("*/site.json")):
        mine = _recorded.ours(home)
        found = {
            OURS: {**_recorded.scored(shared, home, mine.fixes), "ms_per_fix": mine.ms_per_fix},
            REFERENCE: _recorded.by_reference(shared, home),
        }
        for method, result in found.items():
            pools[method].append(result["pooled"])
        print(f"### {home.name}\n\n{shared.score.table(found)}", flush=True)
    figures: Figures = {}
    for method, parts in pools.items():
        for kind in KINDS if parts else ():
            for key in ("mean_m", "cover50", "cover90"):
                name = f"{'ours' if method == OURS else 'reference'}_{kind}_{key}"
                figures[name] = round(_pool((part[kind] for part in parts), key), 3)
    return figures


def main(arguments: list[str]) -> Figures:
    """What `python -m tests.bench.locating` does: everything, or one part of it."""
    say = argparse.ArgumentParser(prog="python -m tests.bench.locating", description=(__doc__ or "").split("\n")[0])
    say.add_argument("folder", nargs="?", type=Path, help="ours and the reference on the sites of any folder")
    say.add_argument("--family", choices=FAMILIES, help="on disturbed simulated sites instead")
    say.add_argument("--sites", type=int, default=_families.SITES, help="of the family")
    say.add_argument("--seed", type=int, default=_families.SEED, help="of the family")
    say.add_argument("--peers", action="store_true", help="only ours beside every peer on the recordings")
    say.add_argument("--folds", action="store_true", help="on the recordings with parts of their surveys left out")
    say.add_argument("--reference", action="store_true", help="with --family: the reference of ../shared as well")
    asked = say.parse_args(arguments)
    if asked.family:
        table = _families.judge(asked.family, asked.sites, asked.seed, reference=asked.reference)
        title = f"Disturbed sites, family {asked.family}, seed {asked.seed}"
        return {**table.figures(), "_markdown": table.text(title)}
    if asked.peers:
        _, text, figures = _beside_peers(_recorded.tools())
        return {**figures, "_markdown": "\n".join(text)}
    if asked.folds:
        text, figures = _left_out(_recorded.tools())
        return {**figures, "_markdown": "\n".join(text)}
    return of_sites(asked.folder) if asked.folder else run()


if __name__ == "__main__":
    for figure, value in main(sys.argv[1:]).items():
        print(f"{figure:60} {value}" if figure != "_markdown" else f"\n{value}")
