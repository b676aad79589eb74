"""The command `ansim-gateway`: it runs a gateway box, checks its configuration and shows its outboxes."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway import uplink
from gateway.config.findings import ConfigError
from gateway.config.load import load, summary
from gateway.options import Installation

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""Set before a command loads numpy. Otherwise its threads spend more time waiting for each other than working: on two
busy cores the map of a zone of 8 readers took 4.7 s instead of 0.7 s."""
GOOD, WRONG, BUSY = 0, 1, 2
"""Exit codes. `run` also has 3 (no ZigBee stick) and 4 (a fault). After 3 or 4 the service manager tries again."""

app = typer.Typer(
    help="The gateway of a school zone: it listens to the readers through a ZigBee stick, decides what it means, and "
    "tells the city. Start with: ansim-gateway check /etc/ansim/gateway.toml",
    no_args_is_help=True,
    add_completion=False,
)
GatewayFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The gateway's TOML file.")]
SiteDir = Annotated[Path, typer.Argument(metavar="SITE_DIR", help="The folder of a recorded site.")]


@app.command()
def run(config_file: GatewayFile) -> None:
    """Run the gateway until it is told to stop (SIGTERM, Ctrl-C). Its log is JSON lines on standard output.

    Exit codes: 0 stopped, 1 configuration wrong, 2 another gateway has this folder, 3 no ZigBee stick, 4 a fault.
    """
    installation = _load(config_file)
    from gateway.box import daemon  # bellows and numpy load in a second; `check` and `schema` need neither
    from gateway.outbox.lanes import OutboxBusy

    try:
        code = daemon.run(installation)
    except OutboxBusy as busy:
        typer.echo(str(busy), err=True)
        raise typer.Exit(BUSY) from None
    raise typer.Exit(code)


@app.command()
def check(config_file: GatewayFile) -> None:
    """Check a configuration and every file it names, and say what it means. Nothing is started or changed.

    Exit codes: 0 good, 1 something is wrong: every fault is listed with its line and what would be right.
    """
    installation = _load(config_file)
    typer.echo(summary(installation))
    typer.echo("good")


@app.command()
def schema() -> None:
    """Print the JSON Schema of every message between a gateway and its city, made from the program's own types."""
    typer.echo(json.dumps(uplink.schema(), indent=2))


@app.command()
def outbox(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder named by store.folder.")],
    rows: Annotated[int, typer.Option(min=0, max=1000, help="How many of the oldest rows of each lane to show.")] = 3,
) -> None:
    """Show what waits for the city: rows, epochs, sizes, the oldest rows. Safe beside a running gateway: it only reads.

    Exit codes: 0 shown, 1 there is no outbox, or it cannot be read.
    """
    failed = False
    for lane in uplink.LANES:
        path = folder / f"{lane}.db"
        try:
            typer.echo(_describe(path, lane, rows))
        except (sqlite3.Error, OSError) as error:
            failed = True
            typer.echo(f"{path}: cannot be read ({error}); is this the folder of a gateway?", err=True)
    for aside in sorted(folder.glob("*-*T*.db")):
        typer.echo(f"set aside: {aside.name}, {aside.stat().st_size} bytes")
    raise typer.Exit(WRONG if failed else GOOD)


@app.command()
def locate(
    site_dir: SiteDir,
    out: Annotated[Path, typer.Option(metavar="FIXES_DIR", help="Folder for NAME.fixes.csv, one for each track.")],
    lag: Annotated[float, typer.Option(min=0, max=10, metavar="S", help="Fixes so late as well; 0: none.")] = 3,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw tracks: FILE.svg or FILE-NAME.svg.")] = None,
) -> None:
    """Run the engine over a recorded site and say how far off it was. docs/GATEWAY.md describes the folder.

    Exit codes: 0 done, 1 the site or one of its tracks cannot be read, or the fixes cannot be written.
    """
    from gateway.survey import commands

    raise typer.Exit(commands.locate(site_dir, out, lag, plot, typer.echo))


@app.command()
def record(
    config_file: GatewayFile,
    site_dir: SiteDir,
    minutes: Annotated[float | None, typer.Option(min=0, help="End by itself after so long; else by Ctrl-C.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only this tag's readings; may be given again.")] = None,
) -> None:
    """Record what the gateway that runs here hears, as a site for `locate` and `calibrate`. It is not disturbed.

    Exit codes: 0 recorded, 1 nothing was: no gateway runs, nothing was heard, or it cannot be written.
    """
    from gateway.survey import commands

    raise typer.Exit(commands.record(_load(config_file), site_dir, minutes, tag or [], typer.echo))


@app.command()
def calibrate(
    site_dir: SiteDir,
    track: Annotated[str | None, typer.Option(metavar="NAME", help="The walk; needed if there are several.")] = None,
    truth: Annotated[Path | None, typer.Option(metavar="FILE", help="Where it went: CSV or GPX.")] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="UTC at which its t_s was 0, for GPS.")] = None,
    clock_offset: Annotated[float | None, typer.Option(metavar="S", help="Added to the sightings' times.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Take it even if errors grow with it.")] = False,
) -> None:
    """Make a recorded walk with known truth part of a site's walk test, with errors before and after, and pictures.

    Exit codes: 0 taken, 1 the walk cannot help, or something cannot be read: it says what would help.
    """
    from gateway.survey import commands

    raise typer.Exit(commands.calibrate(site_dir, track, truth, start, clock_offset, keep, typer.echo))


@app.command()
def picture(
    config_file: GatewayFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The SVG file to write.")],
    reach: Annotated[bool, typer.Option("--reach", help="How many readers hear a tag, instead of the error.")] = False,
) -> None:
    """Draw the zone with the error to expect of a position, place by place: for the school, and for hanging readers.

    Exit codes: 0 drawn, 1 the configuration is wrong, or the file cannot be written.
    """
    from gateway.survey import commands

    raise typer.Exit(commands.draw(_load(config_file), file, reach, typer.echo))


def _load(path: Path) -> Installation:
    try:
        return load(path)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        count = len(error.problems)
        typer.echo(
            f"{count} fault{'s' if count > 1 else ''}; mend the file, then: ansim-gateway check {path}", err=True
        )
        raise typer.Exit(WRONG) from None


def _describe(path: Path, lane: str, rows: int) -> str:
    if not path.exists():
        raise FileNotFoundError(2, "no such file")
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
    try:
        meta = dict(db.execute("SELECT key, value FROM meta"))
        count, first, last = db.execute("SELECT count(*), min(seq), max(seq) FROM outbox").fetchone()
        oldest = db.execute("SELECT seq, queued_ms, body FROM outbox ORDER BY seq LIMIT ?", (rows,)).fetchall()
        alarms = db.execute("SELECT count(*) FROM alarm").fetchone()[0]
    finally:
        db.close()
    lines = [f"{lane}: {count} rows wait (seq {first or '-'}..{last or '-'}), epoch {meta.get('epoch')}, "
             f"{path.stat().st_size} bytes" + (f", {alarms} alarms remembered" if lane == "sos" else "")]  # fmt: skip
    for seq, queued_ms, body in oldest:
        try:
            text = json.dumps(msgspec.json.decode(body) if lane == "sos" else msgspec.msgpack.decode(body), default=str)
        except msgspec.MsgspecError:
            text = f"unreadable: {bytes(body[:40]).hex()}"
        lines.append(f"  {seq} {uplink_time(queued_ms)} {text[:200]}")
    return "\n".join(lines)


def uplink_time(queued_ms: int) -> str:
    """Return milliseconds since 1970 as an ISO 8601 time."""
    from gateway.outbox.lane_file import utc_from_ms

    return utc_from_ms(queued_ms).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    app()
