"""The commands on recorded sites; `gateway.__main__` only calls these functions. Each returns an exit code."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.options import Installation
from gateway.presence.changes import Arrived, DangerChange, Left
from gateway.recording import TimedFix, Track
from gateway.survey import picture, read, write
from gateway.survey.score import LocatedTrack, errors_m, inputs_line, located, score, table
from gateway.survey.write import RecordingError, write_text
from readers.terminal import Exit, progress

if TYPE_CHECKING:
    from gateway.survey.replay import ReplayEngine


def locate(folder: Path, out: Path, lag_s: float, plot: Path | None, say: Callable[[str], None]) -> int:
    """Run the engine over every track of a site: write the fixes, print a table, draw the tracks if `plot` is given."""
    from gateway.survey.replay import ReplayEngine

    failed = False
    runs: list[LocatedTrack] = []
    told: list[str] = []
    try:
        site = read.load_site(folder)
        survey = read.load_survey(folder, site)
        names = read.track_names(folder)
    except RecordingError as error:
        say(str(error))
        return Exit.NO
    say(inputs_line(site, survey))
    for note in site.notes:
        say(f"note: {note}")
    for reason, count in survey.skipped.items():
        say(f"note: {count} rows of the walk test left out: {reason}")
    with progress("the map of the walk test", 1):
        engine = ReplayEngine(site, survey)
    for note in engine.notes:
        say(f"note: {note}")
    for name in names:
        try:
            run = _located(engine, read.load_track(folder, site, name), lag_s, told)
            write.write_fixes(out / f"{name}.fixes.csv", run.fixes)
            if plot is not None:
                end = "" if len(names) == 1 else f"-{name}"
                path = plot.with_name(f"{plot.name.removesuffix('.svg')}{end}.svg")
                lag = max(run.kinds())
                fixes = run.of(lag)
                found = score(len(fixes), errors_m(run.track, fixes))
                kind = f"{len(fixes)} fixes, {f'{lag:g} s late' if lag else 'instant'}"
                off = f": {found.median_m:.1f} m off (middle value)" if found.median_m == found.median_m else ""
                write_text(path, picture.track_picture(site, run.track, fixes, kind + off))
            runs.append(run)
        except RecordingError as error:
            failed = True
            say(str(error))
    for line in (*table(runs, site), *told):
        say(line)
    return Exit.NO if failed else Exit.DONE


def _located(engine: "ReplayEngine", track: Track, lag_s: float, told: list[str]) -> LocatedTrack:
    """Run the engine over one track, with a bar of its seconds. told: takes what a gateway would have concluded."""

    def conclude(t_s: float, change: Arrived | Left | DangerChange) -> None:
        told.append(f"{track.name}, {t_s:g} s: {words(change)}")

    def followed() -> Iterator[TimedFix]:
        for fix in engine.replay(track, lag_s=lag_s, told=conclude):
            done(fix.t_s - float(track.t_s[0]))
            yield fix

    length_s = float(track.t_s[-1] - track.t_s[0]) if len(track.t_s) else 0.0
    with progress(f"locating {track.name}", length_s) as done:
        return located(track, lambda _: followed())


def words(change: Arrived | Left | DangerChange) -> str:
    """Return in words what a gateway concluded."""
    if isinstance(change, DangerChange):
        return f"{'near' if change.near else 'clear of'} danger {change.area}"
    return f"{'arrived at' if isinstance(change, Arrived) else 'left'} {change.place}"


def record(
    installation: Installation, out: Path, minutes: float | None, tags: list[str], say: Callable[[str], None]
) -> int:
    """Record what a running gateway hears until the time is over or a person ends it (Ctrl-C, SIGTERM)."""
    from gateway.survey.record import record as record_zone
    from gateway.survey.record import site_of

    unknown = sorted(set(tags) - installation.tag_keys.keys())
    if unknown:
        say(f"not enrolled here: {', '.join(unknown)[:200]}; a tag is named as in {installation.config.keys.tags}")
        return Exit.NO
    ended: list[int] = []
    before = {number: signal.signal(number, lambda n, _: ended.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    began_s = time.monotonic()
    bar = contextlib.nullcontext(_nothing) if minutes is None else progress("recording", 60 * minutes)
    try:
        site = site_of(installation.zone, installation.config.site)
        with bar as done:

            def stopped() -> bool:
                done(time.monotonic() - began_s)
                return bool(ended)

            rows = record_zone(installation.folder, site, out, tags=tags, minutes=minutes, stopped=stopped, say=say)
    except RecordingError as error:
        say(str(error))
        return Exit.NO
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not rows:
        say("nothing was heard: is the tag enrolled and not paused, is its battery good, is it near a reader?")
    return Exit.DONE if rows else Exit.NO


def _nothing(done_s: float) -> None:
    """Show no bar: nobody knows when a person will end it."""


def calibrate(
    folder: Path,
    track: str | None,
    truth: Path | None,
    start: str | None,
    offset_s: float | None,
    keep: bool,
    say: Callable[[str], None],
) -> int:
    """Add one recorded walk to the site's walk test."""
    from gateway.survey import calibrate_command
    from gateway.survey.calibrate import WalkRefused

    try:
        calibrate_command.run(folder, track, truth, start, offset_s, keep, say)
    except RecordingError as error:
        say(str(error))
    except WalkRefused as refused:
        say(f"this walk is not used: {refused}")
    else:
        return Exit.DONE
    return Exit.NO


def draw(installation: Installation, path: Path, reach: bool, say: Callable[[str], None]) -> int:
    """Draw what is expected of a zone: the error of a fix or, with `reach`, how many readers hear a tag."""
    from gateway.recording import Survey
    from gateway.survey.calibrate_command import law_of
    from gateway.survey.expected import Expected
    from gateway.survey.picture import scene_of_zone
    from gateway.survey.record import site_of

    site = site_of(installation.zone, installation.config.site)
    law, source = law_of(
        installation.site or site, installation.survey if installation.survey is not None else Survey.empty()
    )
    e = Expected(site.readers_m, site.tag_height_m, law, site.look)
    question = "where is a tag heard?" if reach else "how exactly is a tag located?"
    scene = scene_of_zone(installation.zone, installation.config.site, question, installation.config.attribution)
    try:
        if reach:
            write_text(path, picture.reach_picture(scene, e.readers_in_reach, source))
        else:
            write_text(path, picture.error_picture(scene, e.error_m, e.readers_in_reach, source))
    except RecordingError as error:
        say(str(error))
        return Exit.NO
    say(f"written: {path}")
    return Exit.DONE
