"""`ansim-sim walks`: make simulated recorded sites for locating engines, and put faults into recorded sites."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from readers.terminal import Exit, exits, fail, progress, say
from sim.walks import families, faults
from sim.walks import sites as walks
from sim.walks.families import FAMILIES
from sim.walks.places import KINDS

app = typer.Typer(help="Recorded sites with known truth, and faults for any recording.", no_args_is_help=True)


@app.command(name="make", epilog=exits(Exit.FAULT, Exit.ENDED))
def make_command(
    out: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="For the sites, one folder each; made where it is missing."),
    ],
    sites: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=1000, help="How many sites.")] = 12,
    seed: Annotated[
        int,
        typer.Option(metavar="NUMBER", min=0, help="Seed of the first site, the next has the next; or of a family."),
    ] = 1,
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="street, room, yard, or mixed: of every four, two rooms.")
    ] = "mixed",
    family: Annotated[
        str, typer.Option(metavar="NAME", help="train or judge: disturbed sites of six kinds instead.")
    ] = "",
) -> None:
    """Write simulated sites in the recorded-site format: places, surveys, walks, truth and footpaths."""
    if kind not in (*KINDS, "mixed"):
        _stop(f"--kind {kind!r}: street, room, yard or mixed", Exit.USAGE)
    if family and (family not in FAMILIES or kind != "mixed"):
        _stop(f"--family {family!r}: train or judge, without --kind", Exit.USAGE)
    made: Iterable[walks.SimulatedSite]
    if family:
        made = families.family_of(next(f for f in FAMILIES if f == family), sites, seed)
    elif kind == "mixed":
        made = walks.collection(sites, seed)
    else:
        made = (walks.make(next(k for k in KINDS if k == kind), seed + i) for i in range(sites))
    try:
        with progress("sites", sites) as done:
            for number, site in enumerate(made, 1):
                home = walks.write(site, out)
                seconds = sum(float(track.walk.t_s[-1]) for track in site.tracks.values())
                say(
                    f"{home}: {len(site.facts['readers'])} readers, tag on {site.facts['tag']['worn']}, "
                    f"{len(site.survey)} survey rows, {len(site.tracks)} walks, {seconds:.0f} s"
                )
                done(number)
    except OSError as error:
        _stop(f"cannot write below {out}: {error}; give another folder", Exit.FAULT)


@app.command(name="fault", epilog=exits(Exit.NO, Exit.FAULT))
def fault_command(
    site: Annotated[Path, typer.Argument(metavar="FOLDER", help="A recorded site.")],
    out: Annotated[Path, typer.Argument(metavar="NEW_FOLDER", help="For the faulty copy; must not exist yet.")],
    fault: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help=f"{faults.USAGE}; again for more, applied in this order."),
    ],
    seed: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Seed of the faults.")] = 1,
) -> None:
    """Copy a recorded site, real or simulated, with faults in its tracks; survey and truth stay as they are."""
    try:
        for each in fault:
            faults.parse(each)
    except faults.FaultError as error:
        _stop(str(error), Exit.USAGE)
    try:
        for name, before, after in faults.copy(site, out, fault, seed):
            say(f"{out / 'tracks' / name}: {before} rows, now {after}")
    except faults.FaultError as error:
        _stop(str(error), Exit.NO)
    except OSError as error:
        _stop(f"{error}; give a folder where you may write", Exit.FAULT)


def _stop(text: str, code: Exit) -> NoReturn:
    fail(f"ansim-sim walks: {text}", code)
