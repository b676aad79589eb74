"""The command `ansim-sim`: the simulated school zone, and emulators of hardware that a developer does not have."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated

import httpx
import typer

from sim.demo import broker, folder, report, run, scenario
from sim.demo.processes import StartError
from sim.demo.records import RecordsError
from sim.demo.show import Show
from sim.ncp.command import coordinator_command
from sim.plan.command import accept_command, plan_command
from sim.street import osm, site
from sim.street.extract import OsmError, read_extract
from sim.walks.command import app as walks
from sim.xbee.command import xbee_command

BROKEN, WRONG = 1, 2
"""Exit codes. BROKEN: a promise did not hold (the report says which). WRONG: the run could not be made."""

app = typer.Typer(
    help="A simulated school zone round the real programs, and emulators for a desk without hardware.",
    no_args_is_help=True,
    add_completion=False,
)
sites = typer.Typer(help="Site files: streets, school, danger area, poles.", no_args_is_help=True)
app.add_typer(sites, name="site")
app.add_typer(walks, name="walks")
app.command(name="coordinator")(coordinator_command)
app.command(name="xbee")(xbee_command)
app.command(name="plan")(plan_command)
app.command(name="accept")(accept_command)


Once = Annotated[bool, typer.Option("--once", help="Run by itself to the end, measure, and say what broke.")]
Seconds = Annotated[float, typer.Option(min=20, max=86400, help="With --once: length of the story.")]
Children = Annotated[int, typer.Option(min=1, max=500, help="Children in the zone.")]
Readers = Annotated[int, typer.Option(min=1, max=100, help="Poles with a reader, the nearest to the gate first.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Json = Annotated[Path | None, typer.Option("--json", help="With --once: where to write the report.")]
FaultOption = Annotated[
    list[str] | None, typer.Option("--fault", help=f"KIND@SECONDS, again for more. Kinds: {', '.join(scenario.KINDS)}.")
]
SwitchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--switch",
        help="NAME=VALUE[,NAME=VALUE][@SECONDS][:READER], again for more: how a module behaves, from then on. "
        f"Names: {', '.join(scenario.SWITCHES)}.",
    ),
]
SwitchesFile = Annotated[
    Path | None, typer.Option("--switches", help="How every module behaves: a file of `ansim-reader bringup`.")
]
Broker = Annotated[str, typer.Option("--broker", help="mosquitto, nats, or auto: mosquitto where it is installed.")]
Auto = Annotated[bool, typer.Option("--auto-acknowledge", help="Press Acknowledge without a person.")]
NoWalkTest = Annotated[bool, typer.Option("--no-walk-test", help="A zone nobody walked: fixes are less sure.")]
SiteFile = Annotated[Path, typer.Option("--site", help="The site file.")]
Runs = Annotated[Path, typer.Option(help="Folder for the runs' folders; the last three stay.")]


@app.command(name="demo")
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

    Without --once it goes on until Ctrl-C, and somebody may open the page and press Acknowledge. With --once the exit
    code is 0 when nothing was lost, doubled or falsely told and every lamp was lit, 1 when something was, 2 when the
    run could not be made.
    """
    show = Show()
    try:
        if broker_ not in ("auto", "mosquitto", "nats"):
            raise scenario.ScenarioError(f"--broker {broker_!r}: auto, mosquitto or nats")
        options = run.Options(
            seconds=seconds, children=children, readers=readers, seed=seed, once=once,
            faults=tuple(scenario.parse_fault(text) for text in fault or ()),
            switchings=tuple(scenario.parse_switching(text) for text in switch or ()), switches_file=switches_file,
            broker=_choice(broker_), auto_acknowledge=auto_acknowledge, walk_test=not no_walk_test,
            site_file=site_file, runs=runs,
        )  # fmt: skip
        result = asyncio.run(run.Demo(options, show).run())
    except (scenario.ScenarioError, site.SiteError, StartError, RecordsError, httpx.HTTPError) as error:
        show.stop()
        typer.echo(f"ansim-sim demo: {error}", err=True)
        raise typer.Exit(WRONG) from None
    if result is None:
        raise typer.Exit(WRONG if once else 0)
    for line in report.summary(result):
        typer.echo(line)
    if json_file is not None:
        report.write(result, json_file)
        typer.echo(f"report: {json_file}")
    for broken in result["broken_promises"]:
        typer.echo(f"BROKEN: {broken}", err=True)
    raise typer.Exit(BROKEN if result["broken_promises"] else 0)


@sites.command(name="derive")
def derive(
    extract: Annotated[Path, typer.Argument(help="An .osm file, as the map's export page gives it.")],
    school: Annotated[
        str,
        typer.Option(help="Number of the school's closed way or multipolygon; way/N or relation/N if both are there."),
    ],
    gate: Annotated[str, typer.Option(help="LON,LAT: the gate is put where the school's wall is nearest to this.")],
    name: Annotated[str, typer.Option(help="Id of the zone: letters, digits, _ and -.")],
    out: Annotated[Path, typer.Option(help="The site file to write (GeoJSON).")],
    radius_m: Annotated[float, typer.Option(min=50, max=2000, help="How far round the gate.")] = 300.0,
) -> None:
    """Make a site file: streets, school and danger road from the map; gate, readers, poles and homes placed by us."""
    notes: list[str] = []
    try:
        found = re.fullmatch(r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*,\s*(-?[0-9]+(?:\.[0-9]+)?)\s*", gate, re.ASCII)
        if found is None:
            raise OsmError(f"--gate {gate[:60]!r} is not LON,LAT in degrees, like 126.9511,37.5443")
        lon_lat = float(found[1]), float(found[2])
        made = osm.derive(read_extract(extract), school, lon_lat, site=name, radius_m=radius_m, notes=notes)
        osm.write(made, out)
        read = site.load(out)
    except (OsmError, site.SiteError) as error:
        typer.echo(f"ansim-sim site derive: {error}", err=True)
        raise typer.Exit(WRONG) from None
    for note in notes:
        typer.echo(f"note: {note}")
    typer.echo(
        f"{out}: {len(read.streets)} pieces of street, {len(read.poles)} poles, {len(read.homes)} homes, "
        f"danger: {', '.join(danger.what for danger in read.dangers)}; {read.attribution}"
    )


def _choice(text: str) -> broker.Choice:
    return "mosquitto" if text == "mosquitto" else "nats" if text == "nats" else "auto"


if __name__ == "__main__":
    app()
