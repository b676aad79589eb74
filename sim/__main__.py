"""The command `ansim-sim`: the simulated school zone, and emulators of hardware that a developer does not have."""

from __future__ import annotations

from sim import ending  # isort: skip  # first: a signal while the others load is answered, too

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from readers.terminal import Exit, Version, exits, fail, say
from sim.demo import broker, folder, report, run, scenario
from sim.demo.show import Show
from sim.ncp.command import coordinator_command
from sim.plan.command import accept_command, plan_command
from sim.street import osm, site
from sim.street.extract import OsmError, read_extract
from sim.walks.command import app as walks
from sim.xbee.command import xbee_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print local variables, a key among them
)
sites = typer.Typer(help="Site files: streets, school, danger area, poles.", no_args_is_help=True)
app.add_typer(sites, name="site")
app.add_typer(walks, name="walks")
app.command(name="coordinator", epilog=exits(Exit.NO, Exit.FAULT, Exit.ENDED))(coordinator_command)
app.command(name="xbee", epilog=exits(Exit.FAULT, Exit.ENDED))(xbee_command)
app.command(name="plan", epilog=exits(Exit.NO, Exit.FAULT, Exit.ENDED))(plan_command)
app.command(name="accept", epilog=exits(Exit.NO, Exit.ENDED))(accept_command)


Once = Annotated[bool, typer.Option("--once", help="Run by itself to the end, measure, and say what broke.")]
Seconds = Annotated[float, typer.Option(metavar="SECONDS", min=20, max=86400, help="With --once: length of the story.")]
Children = Annotated[int, typer.Option(metavar="NUMBER", min=1, max=500, help="Children in the zone.")]
Readers = Annotated[
    int, typer.Option(metavar="NUMBER", min=1, max=100, help="Poles with a reader, the nearest to the gate first.")
]
Seed = Annotated[int, typer.Option(metavar="NUMBER", help="Everything random follows from it.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="With --once: where to write the report.")]
FaultOption = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="KIND@SECONDS", help=f"Again for more. Kinds: {', '.join(scenario.KINDS)}."),
]
SwitchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--switch",
        metavar="NAME=VALUE",
        help="How a module behaves from then on: NAME=VALUE,... and then @SECONDS and :READER if wanted; again for "
        "more. "
        f"Names: {', '.join(scenario.SWITCHES)}.",
    ),
]
SwitchesFile = Annotated[
    Path | None,
    typer.Option("--switches", metavar="FILE", help="How every module behaves: a file of `ansim-reader bringup`."),
]
Broker = Annotated[
    str, typer.Option("--broker", metavar="NAME", help="mosquitto, nats, or auto: mosquitto where it is installed.")
]
Auto = Annotated[bool, typer.Option("--auto-acknowledge", help="Press Acknowledge without a person.")]
NoWalkTest = Annotated[bool, typer.Option("--no-walk-test", help="A zone nobody walked: fixes are less sure.")]
SiteFile = Annotated[
    Path, typer.Option("--site", metavar="FILE", show_default="a school in Gongdeok, Seoul", help="The site file.")
]
Runs = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the runs' folders; the last three stay.")]


@app.callback()
def main(version: Version = False) -> None:
    """A simulated school zone round the real programs, and emulators for a desk without hardware."""


@app.command(name="demo", epilog=exits(Exit.NO, Exit.FAULT, Exit.ENDED))
def demo_command(
    once: Once = False,
    seconds: Seconds = 90,
    children: Children = 20,
    readers: Readers = 12,
    seed: Seed = 1,
    json_file: Json = None,
    fault: FaultOption = None,
    switch: SwitchOption = None,
    switches_file: SwitchesFile = None,
    broker_: Broker = "auto",
    auto_acknowledge: Auto = False,
    no_walk_test: NoWalkTest = False,
    site_file: SiteFile = site.GONGDEOK,
    runs: Runs = folder.RUNS,
) -> None:
    """Run broker, gateway and city for a simulated school zone: 20 children, 12 readers, one SOS, one bell.

    Without --once it goes on until Ctrl-C. Open the page and press Acknowledge.

    With --once the answer is yes when nothing was lost, doubled or falsely reported, and every lamp was lit.
    """
    show, end, result = Show(), ending.Ending(), None
    with end.listening():
        try:
            if broker_ not in ("auto", "mosquitto", "nats"):
                raise scenario.ScenarioError(f"--broker {broker_!r}: auto, mosquitto or nats")
            if json_file is not None and not json_file.absolute().parent.is_dir():
                raise scenario.ScenarioError(f"--json {json_file}: there is no folder {json_file.absolute().parent}")
            options = run.Options(
                seconds=seconds, children=children, readers=readers, seed=seed, once=once,
                faults=tuple(scenario.parse_fault(text) for text in fault or ()),
                switchings=tuple(scenario.parse_switching(text) for text in switch or ()), switches_file=switches_file,
                broker=_choice(broker_), auto_acknowledge=auto_acknowledge, walk_test=not no_walk_test,
                site_file=site_file, runs=runs,
            )  # fmt: skip
            result = asyncio.run(run.Demo(options, show, end).run())
        except scenario.ScenarioError as error:
            fail(f"ansim-sim demo: {error}", Exit.USAGE)
        except site.SiteError as error:
            fail(f"ansim-sim demo: {error}", Exit.NO)
        except BrokenPipeError:  # `ansim-sim demo | head`: who read it has gone
            end.name = end.name or "the end of its reader"
        except run.FORESEEN as error:
            if not end.name:
                fail(f"ansim-sim demo: {error}", Exit.FAULT)
        if end.name or result is None:
            end.tell()
            ending.leave()
            raise typer.Exit(Exit.ENDED)
        _tell_result(result, json_file)


def _tell_result(result: dict[str, Any], json_file: Path | None) -> None:
    for line in report.summary(result):
        typer.echo(line)
    if json_file is not None:
        try:
            report.write(result, json_file)
        except OSError as error:
            fail(f"ansim-sim demo: cannot write {json_file}: {error.strerror}; give --json another file", Exit.FAULT)
        typer.echo(f"report: {json_file}")
    for broken in result["broken_promises"]:
        say(f"BROKEN: {broken}", "bad", err=True)
    raise typer.Exit(Exit.NO if result["broken_promises"] else Exit.DONE)


@sites.command(name="derive", epilog=exits(Exit.NO))
def derive(
    extract: Annotated[Path, typer.Argument(metavar="FILE", help="An .osm file, as the map's export page gives it.")],
    school: Annotated[
        str,
        typer.Option(
            metavar="NUMBER",
            help="Number of the school's closed way or multipolygon; way/N or relation/N if both are there.",
        ),
    ],
    gate: Annotated[
        str, typer.Option(metavar="LON,LAT", help="The gate is put where the school's wall is nearest to this.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Id of the zone: letters, digits, _ and -.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The site file to write (GeoJSON).")],
    radius_m: Annotated[
        float, typer.Option(metavar="METRES", min=50, max=2000, help="How far round the gate.")
    ] = 300.0,
) -> None:
    """Make a site file: streets, school and danger road from the map; gate, readers, poles and homes placed by us."""
    notes: list[str] = []
    found = re.fullmatch(r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*,\s*(-?[0-9]+(?:\.[0-9]+)?)\s*", gate, re.ASCII)
    if found is None:
        fail(
            f"ansim-sim site derive: --gate {gate[:60]!r} is not LON,LAT in degrees, like 126.9511,37.5443", Exit.USAGE
        )
    try:
        lon_lat = float(found[1]), float(found[2])
        made = osm.derive(read_extract(extract), school, lon_lat, site=name, radius_m=radius_m, notes=notes)
        osm.write(made, out)
        read = site.load(out)
    except (OsmError, site.SiteError) as error:
        fail(f"ansim-sim site derive: {error}", Exit.NO)
    for note in notes:
        say(f"note: {note}", "warning")
    say(
        f"{out}: {len(read.streets)} pieces of street, {len(read.poles)} poles, {len(read.homes)} homes, "
        f"danger: {', '.join(danger.what for danger in read.dangers)}; {read.attribution}"
    )


def _choice(text: str) -> broker.Choice:
    return "mosquitto" if text == "mosquitto" else "nats" if text == "nats" else "auto"


if __name__ == "__main__":
    app()
