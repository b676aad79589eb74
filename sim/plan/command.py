"""`ansim-sim plan`: where a zone's readers go and what they promise. `ansim-sim accept`: did the walk test show it?"""

from __future__ import annotations

import itertools
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gateway.survey.write import RecordingError
from readers.files import BadFile, bytes_of, table_of
from readers.terminal import Exit, fail, progress, say
from sim.air.radio import Channel
from sim.plan import accept, layout, page
from sim.plan.accept import Limit
from sim.plan.chain import Conditions
from sim.plan.draft import Draft, toml_of
from sim.plan.layout import Layout, LayoutError, Planned, called
from sim.plan.promise import BARS, Assumed, Delays, Promise, Trial, air_seed, dealt, delays_of, promise
from sim.plan.scenes import Premises
from sim.street import osm
from sim.street import site as sites
from sim.street.extract import OsmError
from sim.street.site import Site, SiteError
from sim.street.zone import zone_of

SITE_FILE, PICTURE, PAGE, FIGURES, TOML = "site.geojson", "plan.svg", "plan.html", "plan.json", "readers.toml"
PLAN_MAX_B = 1024 * 1024
FLANK_ARRIVALS, FLANK_AIRS, FLANK_SEED = 100, 2, 500_000
"""With so many arrivals, in airs that the promise does not have, it is tried whether flank readers are needed."""
FLANK_GAIN = 2
"""They are placed if they bring this many more of these arrivals into time: less may be luck."""

SiteArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A site file, as `ansim-sim site derive` makes it.")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="For the plan; made where it is missing.")]
Poles = Annotated[
    int,
    typer.Option(metavar="NUMBER", min=0, max=80, help="Readers on poles along streets and in the yard, at most."),
]
Flanks = Annotated[
    str,
    typer.Option(metavar="NAME", help="Readers inside the wall beside each gate: yes, no, or auto: if they help."),
]
DaysOption = Annotated[
    int,
    typer.Option(metavar="NUMBER", min=1, max=100_000, help="Child-days to simulate. 3000 prove 1 false per 1000."),
]
AirsOption = Annotated[
    int, typer.Option("--airs", metavar="NUMBER", min=1, max=1000, help="Different airs to spread them over.")
]
SeedOption = Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Everything random follows from it.")]
Radius = Annotated[
    float,
    typer.Option(metavar="METRES", min=20, max=300, help="Footpaths this far from the school's outline count."),
]
WallDb = Annotated[
    float,
    typer.Option(metavar="DB", min=0, max=30, help="Loss in the wall: brick 6, a fence or an open campus 0."),
]
FrontBackDb = Annotated[
    float, typer.Option(metavar="DB", min=0, max=40, help="How much less a patch hears behind than ahead.")
]
LossOption = Annotated[
    float, typer.Option("--loss", metavar="SHARE", min=0, max=0.9, help="Share of packets lost besides.")
]


def plan_command(
    site: SiteArgument,
    out: Out,
    poles: Poles = 16,
    flanks: Flanks = "auto",
    days: DaysOption = 60,
    airs: AirsOption = 3,
    seed: SeedOption = 1,
    radius_m: Radius = 100.0,
    wall_db: WallDb = Channel().wall_db,
    front_back_db: FrontBackDb = Channel().patch_front_back_db,
    loss: LossOption = 0.0,
) -> None:
    """Place the readers of a zone and say what they promise, before anything is mounted.

    --out gets the site file with the readers, a picture, the page for the tender, and the readers for a gateway's
    file. Readers in the site file that are marked "origin": "ansim" are placed anew; the others stay.
    """
    if flanks not in ("auto", "yes", "no"):
        _stop("plan", f"--flanks {flanks!r}: auto, yes or no", Exit.USAGE)
    conditions = Conditions(replace(Channel(), wall_db=wall_db, patch_front_back_db=front_back_db), loss=loss)
    try:
        draft = Draft(site)
        made = planned(draft, poles=poles, radius_m=radius_m, flanks=flanks == "yes")
        if flanks == "auto":
            made = _with_flanks(draft, made, poles, radius_m, seed, conditions)
        out.mkdir(parents=True, exist_ok=True)
        osm.write(draft.planned(made), out / SITE_FILE)
        final = sites.load(out / SITE_FILE)
        poles_ = {pole.number: pole for pole in final.poles}  # as the file says them, to a centimetre
        made = replace(made, readers=tuple(replace(each, pole=poles_[each.pole.number]) for each in made.readers))
        with progress(f"simulating {final.name}", airs + 1) as done:
            told = itertools.count(1)

            def tell(line: str) -> None:
                say(line, "faint")
                done(next(told))

            promised = promise(
                final,
                final.poles,
                days=days,
                airs=airs,
                seed=seed,
                radius_m=radius_m,
                conditions=conditions,
                progress=tell,
            )
            limits = accept.limits(final, final.poles, radius_m, seed, conditions)
        again = (
            f"ansim-sim plan {shlex.quote(site.name)} --out {shlex.quote(out.name or '.')} --poles {poles} "
            f"--flanks {flanks} --days {days} --airs {airs} --seed {seed} --radius-m {radius_m:g} "
            f"--wall-db {wall_db:g} --front-back-db {front_back_db:g} --loss {loss:g}"
        )
        _write(out, final, made, promised, limits, Assumed(conditions), again, radius_m)
    except (LayoutError, SiteError, OsmError) as error:
        _stop("plan", str(error), Exit.NO)
    except OSError as error:
        _stop("plan", f"cannot write into {out}: {error.strerror}; give another --out", Exit.FAULT)
    for line in page.summary(made, promised):
        say(line)
    for text in (*promised.shortfalls(), *made.notes):
        say(f"note: {text}", "warning")
    say(f"{out / PAGE}: the page for the tender; {out / SITE_FILE}, {out / TOML}: for demo and gateway")


def accept_command(
    plan: Annotated[Path, typer.Argument(metavar="PLAN_FOLDER", help="What `ansim-sim plan` wrote.")],
    walk: Annotated[
        Path, typer.Argument(metavar="WALK_FOLDER", help="The walk test, after `ansim-gateway calibrate`.")
    ],
) -> None:
    """Hold a walk test against the limits of a plan: is each figure reached, and was it walked?"""
    try:
        site = sites.load(plan / SITE_FILE)
        limits, radius_m = _read_limits(plan / FIGURES)
        rows = accept.read_walk(walk, site)
    except (SiteError, RecordingError, LayoutError, ValueError) as error:
        _stop("accept", str(error), Exit.NO)
    got = {each.key: each for each in accept.figures(site, site.poles, radius_m, rows)}
    missed = 0
    for limit in limits:
        figure = got.get(limit.key)
        value = "-" if figure is None or figure.value != figure.value else f"{figure.value:.1f}"
        verdict = limit.judge(figure)
        missed += verdict != "reached"
        wanted = f"at least {limit.least:.1f}, usual {limit.usual:.1f}"
        say(f"{limit.words}: {value} {limit.unit}, {wanted}: {verdict}", "good" if verdict == "reached" else "bad")
    raise typer.Exit(Exit.NO if missed else Exit.DONE)


def planned(draft: Draft, *, poles: int, radius_m: float, flanks: bool) -> Layout:
    """Return the layout of a draft: gates first, flanks, then at most `poles` along the streets and in the yard.

    Raises LayoutError when a gate cannot be guarded.
    """
    site, notes = draft.site, list[str]()
    layout.check_ways(site)
    guards: list[Planned] = []
    beside: list[Planned] = []
    for gate in site.entrances:
        layout.check_gate(gate, site.school)
        if sides := {reader.pole.side for reader in draft.kept if reader.pole.gate == gate.id}:
            if len(sides) < 2:
                notes.append(
                    f"{called(gate.id)} has readers of one side only, drawn by hand: a gate with one side tells "
                    "nothing. Draw the other side too, or remove them and plan again."
                )
        else:
            found, said = layout.at_gate(gate, site.school)
            guards += found
            notes += said
        if flanks:
            room = layout.beside_gate(gate, site.school)
            beside += room
            if len(room) < 2:
                notes.append(f"{called(gate.id)}: room for {len(room)} of two flank readers inside the wall.")
    have = [*draft.kept, *guards, *beside]
    streets = layout.along_streets(site, have, poles=poles, radius_m=radius_m)
    if len(streets) < poles:
        notes.append(f"{len(streets)} poles are enough for the footpaths within {radius_m:g} m; {poles} were allowed.")
    readers = layout.numbered([guards, beside, streets], draft.kept, site.gates[0])
    return Layout(site.entrances, tuple(readers), tuple(notes))


# ---- inside ----------------------------------------------------------------------------------------------------------


def _with_flanks(draft: Draft, plain: Layout, poles: int, radius_m: float, seed: int, conditions: Conditions) -> Layout:
    """Return the plan with flank readers if the plain one tells too few arrivals in time and they help."""
    _, seconds, bar = BARS[0]
    with progress("trying flank readers", 2) as done:
        first = _tried(draft.site, plain, seed, conditions)
        if first.share(seconds) >= bar:
            return plain
        done(1)
        other = planned(draft, poles=poles, radius_m=radius_m, flanks=True)
        second = _tried(draft.site, other, seed, conditions)
    helps = second.within(seconds) - first.within(seconds) >= FLANK_GAIN
    say(
        f"flank readers: {first.within(seconds)} of {first.of} arrivals told in {seconds} s without, "
        f"{second.within(seconds)} with them: {'placed' if helps else 'not placed'}"
    )
    return other if helps else plain


def _tried(site: Site, made: Layout, seed: int, conditions: Conditions) -> Delays:
    """Return how arrivals alone are told, in airs of their own: else the promise would be too good."""
    delays_s: list[float] = []
    for n in range(FLANK_AIRS):
        scenes = dealt(Premises(site), (("arrive", 1.0),), seed + FLANK_SEED, FLANK_ARRIVALS, n, FLANK_AIRS)
        words = Trial(site, made.poles, conditions, air_seed(seed + FLANK_SEED, n)).words(scenes)
        delays_s += delays_of(scenes, words, "arrive")
    return Delays(tuple(delays_s))


def _write(
    out: Path, site: Site, made: Layout, promised: Promise, limits: Sequence[Limit], assumed: Assumed, again: str,
    radius_m: float,
) -> None:  # fmt: skip
    (out / PICTURE).write_text(page.picture(site, made, radius_m), "utf-8")
    (out / PAGE).write_text(page.page(site, made, promised, assumed, limits, again), "utf-8")
    (out / TOML).write_text(toml_of(zone_of(site, site.poles), site.attribution), "utf-8")
    cover = promised.coverage
    figures: dict[str, Any] = {
        "site": site.name, "radius_m": radius_m, "seed": promised.seed, "airs": promised.airs,
        "child_days": promised.child_days, "false_words": promised.false_words,
        "false_kinds": dict(promised.false_kinds),
        "false_per_1000": promised.false_per_1000, "false_per_1000_most": promised.false_per_1000_most,
        "told": {
            name: {
                "of": promised.of(name).of,
                **{f"within_{seconds}_s": promised.of(name).share(seconds) for seconds in (20, 30, 60)},
                **{f"poorest_air_{seconds}_s": promised.of(name).poorest(seconds) for seconds in (20, 30, 60)},
            }
            for name in ("arrivals", "departures")
        },
        "presses": cover.presses, "presses_heard": cover.heard_share, "presses_located": cover.located_share,
        "readers": len(made.readers), "limits": [asdict(limit) for limit in limits],
    }  # fmt: skip
    (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def _read_limits(path: Path) -> tuple[list[Limit], float]:
    try:
        data = table_of(bytes_of(path, PLAN_MAX_B))
        limits, radius_m = [Limit(**row) for row in data["limits"]], float(data["radius_m"])
        if not limits:
            raise ValueError("it has no limits")
        if not math.isfinite(radius_m):
            raise ValueError(f"its radius is {radius_m:g} m")
        for limit in limits:
            if type(limit.key) is not str or type(limit.least) not in (int, float) or not math.isfinite(limit.least):
                raise ValueError(f"the limit {limit.key!r} is no number")
        return limits, radius_m
    except OSError as error:
        raise LayoutError(f"cannot read {path}: {error.strerror}; `ansim-sim plan` writes it") from error
    except (BadFile, KeyError, TypeError, ValueError) as error:
        raise LayoutError(f"{path} is no plan ({error}); make it again with `ansim-sim plan`") from error


def _stop(command: str, text: str, code: Exit) -> NoReturn:
    fail(f"ansim-sim {command}: {text}", code)
