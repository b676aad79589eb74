"""The command `ansim-gateway`: it runs a gateway box, checks its configuration and shows its outboxes."""

import json
import os
import sqlite3
import traceback
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway import uplink
from gateway.config import tags
from gateway.config.findings import ConfigError
from gateway.config.load import load, summary
from gateway.options import Installation
from readers.terminal import Exit, Version, exits, fail, say

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""Set before a command loads numpy. Otherwise its threads spend more time waiting for each other than working: on two
busy cores the map of a zone of 8 readers took 4.7 s instead of 0.7 s."""
app = typer.Typer(
    help="The gateway of a school zone: it listens to the readers through a ZigBee stick, decides what it means, and "
    "tells the city. Start with: ansim-gateway check /etc/ansim/gateway.toml",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(tags.app, name="tag")
GatewayFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The gateway's TOML file.")]
SiteDir = Annotated[Path, typer.Argument(metavar="SITE_DIR", help="The folder of a recorded site.")]


@app.callback()
def main(version: Version = False) -> None:
    """Each command is in a function of its own; here are the options that stand before it."""


@app.command(epilog=exits(Exit.NO, Exit.DEVICE, Exit.TAKEN, Exit.FAULT))
def run(config_file: GatewayFile) -> None:
    """Run the gateway until it is told to stop (SIGTERM, Ctrl-C). Its log is JSON lines on standard output.

    Without its stick it tries for some minutes, sends what waits for the city meanwhile, and ends.
    """
    try:
        installation = _load(config_file)
        from gateway.box import daemon  # bellows and numpy load in a second; `check` and `schema` need neither
        from gateway.outbox.lanes import OutboxBusy

        try:
            code = daemon.run(installation)
        except OutboxBusy as busy:
            fail(str(busy), Exit.TAKEN)
    except typer.Exit:
        raise
    except Exception:  # a damaged library, say. Python's own code for it is 1, after which no service is started again
        traceback.print_exc()
        fail("the gateway could not be started; the lines above are for its developers", Exit.FAULT)
    raise typer.Exit(code)


@app.command(epilog=exits(Exit.NO))
def check(config_file: GatewayFile) -> None:
    """Check a configuration, every file it names, and this machine. Nothing is started or changed.

    Every fault is listed with its line and what would be right. A note is no fault: a stick may be plugged in later.
    """
    installation = _load(config_file, here=True)
    say(summary(installation))
    for note in installation.notes:
        say(f"note: {note}", "warning")
    say("good", "good")


@app.command(epilog=exits())
def schema() -> None:
    """Print the JSON Schema of every message between a gateway and its city, made from the program's own types."""
    typer.echo(json.dumps(uplink.schema(), indent=2))


@app.command(epilog=exits(Exit.NO))
def outbox(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder named by store.folder.")],
    rows: Annotated[
        int, typer.Option(min=0, max=1000, metavar="NUMBER", help="How many of the oldest rows of each lane to show.")
    ] = 3,
) -> None:
    """Show what waits for the city: rows, epochs, sizes, the oldest rows. It only reads, even while a gateway runs."""
    failed = False
    for lane in uplink.LANES:
        path = folder / f"{lane}.db"
        try:
            typer.echo(_describe(path, lane, rows))
        except (sqlite3.Error, OSError) as error:
            failed = True
            say(f"{path}: cannot be read ({error}); is this the folder of a gateway?", "bad", err=True)
    for aside in sorted(folder.glob("*-*T*.db")):
        typer.echo(f"set aside: {aside.name}, {aside.stat().st_size} bytes")
    raise typer.Exit(Exit.NO if failed else Exit.DONE)


@app.command(epilog=exits(Exit.NO, Exit.ENDED))
def locate(
    site_dir: SiteDir,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for NAME.fixes.csv, one for each track.")],
    lag: Annotated[float, typer.Option(min=0, max=10, metavar="SECONDS", help="Fixes so late as well; 0: none.")] = 3,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw tracks: FILE.svg or FILE-NAME.svg.")] = None,
) -> None:
    """Run the engine over a recorded site and say how far off it was. docs/GATEWAY.md describes the folder."""
    from gateway.survey import commands

    raise typer.Exit(commands.locate(site_dir, out, lag, plot, say))


@app.command(epilog=exits(Exit.NO))
def record(
    config_file: GatewayFile,
    site_dir: SiteDir,
    minutes: Annotated[
        float | None, typer.Option(min=0, metavar="MINUTES", help="End by itself after so long; else by Ctrl-C.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only this tag's readings; may be given again.")
    ] = None,
) -> None:
    """Record what the gateway that runs here hears, as a site for `locate` and `calibrate`. It is not disturbed."""
    from gateway.survey import commands

    raise typer.Exit(commands.record(_load(config_file), site_dir, minutes, tag or [], say))


@app.command(epilog=exits(Exit.NO, Exit.ENDED))
def calibrate(
    site_dir: SiteDir,
    track: Annotated[str | None, typer.Option(metavar="NAME", help="The walk; needed if there are several.")] = None,
    truth: Annotated[Path | None, typer.Option(metavar="FILE", help="Where it went: CSV or GPX.")] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="UTC at which its t_s was 0, for GPS.")] = None,
    clock_offset: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Added to the sightings' times.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Take it even if errors grow with it.")] = False,
) -> None:
    """Make a recorded walk with known truth part of a site's walk test, with errors before and after, and pictures."""
    from gateway.survey import commands

    raise typer.Exit(commands.calibrate(site_dir, track, truth, start, clock_offset, keep, say))


@app.command(epilog=exits(Exit.NO, Exit.ENDED))
def picture(
    config_file: GatewayFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The SVG file to write.")],
    reach: Annotated[bool, typer.Option("--reach", help="How many readers hear a tag, instead of the error.")] = False,
) -> None:
    """Draw the zone with the error to expect of a position, place by place: for the school, and for hanging readers."""
    from gateway.survey import commands

    raise typer.Exit(commands.draw(_load(config_file), file, reach, say))


def _load(path: Path, *, here: bool = False) -> Installation:
    try:
        return load(path, here=here)
    except ConfigError as error:
        for line in str(error).split("\n"):
            say(line, "bad", err=True)
        for note in error.notes:
            say(f"note: {note}", "warning", err=True)
        count = len(error.problems)
        rest = ". What stands behind it is not checked yet" if error.rest_unread else ""
        mend = "Mend it" if count == 1 else "Mend them"
        fail(f"{count} fault{'s' if count > 1 else ''}{rest}. {mend}, then: ansim-gateway check {path}", Exit.NO)


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
