"""`ansim-gateway calibrate`: a recorded walk and its truth -> rows of the site's walk test, if they are of use."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from gateway.recording import RecordedSite, Survey, TimedFix, Track
from gateway.survey import calibrate, picture, read, write
from gateway.survey.calibrate import ClockFit, GateTrial, SurveyRows, WalkRefused
from gateway.survey.expected import Expected, ExpectedLaw
from gateway.survey.score import Score, errors_m, score
from gateway.survey.truth import TrueWalk, load_walk, moment_of
from gateway.survey.write import RecordingError, add_seen_track, json_object, save_truth, write_text
from readers.terminal import progress

OUTER_BEFORE_MAX_M = 3.0
"""As `gateway.config.gates` has it: who waits 2 m before the wall is behind a patch further out."""
WORSE, WORSE_WALKED_ONCE = 1.05, 1.3
"""A walk that multiplies the mean error by more is refused, unless --keep is given. The second factor holds if most of
the way was walked only once."""


def run(
    folder: Path,
    name: str | None,
    truth: Path | None,
    start: str | None,
    offset_s: float | None,
    keep: bool,
    say: Callable[[str], None],
) -> None:
    """Add one walk to a site's walk test. Raises RecordingError, or WalkRefused with what would help."""
    site = read.load_site(folder)
    name = name or _only_track(folder)
    recorded = read.load_track(folder, site, name)
    path = truth or folder / "tracks" / f"{name}.truth.csv"
    walk = load_walk(path, site, _start(folder, name, start))
    for reason, count in (*recorded.skipped.items(), *walk.skipped.items()):
        say(f"note: {count} left out: {reason}")
    track = calibrate.shifted(recorded, offset_s or 0.0)
    found = calibrate.rows(track, walk.at)
    calibrate.check(site, track, found)
    _told(site, walk, found, say)
    agreed = calibrate.clock(site, track, walk.at)
    if agreed.suspected and offset_s is None:
        raise WalkRefused(
            f"its clocks seem to differ: levels fit best {agreed.shift_s:+d} s from here (distance explains "
            f"{agreed.explained:.0%} of them there, {agreed.explained_now:.0%} as it is); set the telephone's clock "
            f"and walk again, or give --clock-offset {agreed.shift_s} if that is right and 0 if it is not"
        )
    if agreed.explained < calibrate.FALL_MIN:
        say("warning: levels do not fall with distance here: the right tag, the right truth?")
    gates_told(site, found, walk.source, say)
    known = read.load_survey(folder, site, without=name)
    words = _judged(site, known, found, track, walk, keep, say)
    _write(folder, site, name, found, walk, offset_s or 0.0, [*_summary(walk, found, agreed), *words], say)


def _only_track(folder: Path) -> str:
    names = read.track_names(folder)
    if len(names) > 1:
        listed = ", ".join(names[:10])
        raise RecordingError(folder / "tracks", 0, f"{len(names)} tracks are there ({listed})", "name one with --track")
    return names[0]


def _start(folder: Path, name: str, start: str | None) -> float | None:
    if start is not None:
        found = moment_of(start)
        if found is None:
            raise RecordingError(folder, 0, f"--start {start[:40]!r} is no date and time", "like 2026-03-02T08:15:00Z")
        return found
    try:
        return moment_of(str(json_object(folder / "tracks" / f"{name}.info.json", "").get("started_at")))
    except RecordingError:
        return None  # the user must give it only if the truth has dates


def _told(site: RecordedSite, walk: TrueWalk, found: SurveyRows, say: Callable[[str], None]) -> None:
    heard = np.unique(found.survey.reader)
    seconds = len(np.unique(np.floor(found.t_s)))
    say(
        f"{seconds} s with truth ({walk.source}), {len(heard)} of {len(site.reader_ids)} readers heard the tag, "
        f"{len(found.survey)} rows"
    )
    unheard = [name for number, name in enumerate(site.reader_ids) if number not in heard]
    if unheard:
        say(f"note: not heard by {', '.join(unheard[:20])}")
    share = calibrate.both_ways(found.survey)
    if share != share:
        say("note: the tag never moved: the map gets no direction")
    elif site.worn == "body" and share < calibrate.BOTH_MIN:
        say(
            f"warning: walked in both directions on {share:.0%} of the way only; a worn tag's map holds only in the "
            "directions walked: walk back the same way"
        )


def gates_told(site: RecordedSite, found: SurveyRows, source: str, say: Callable[[str], None]) -> None:
    """Say for each gate whether in can be told from out there, and what a technician can do before leaving."""
    trials = calibrate.gate_trials(site, found)
    if trials and source == "GPS":
        say("note: GPS is off by metres, and a gate is judged to 2 m: tap the points of the walk through a gate")
    for trial in trials:
        name = f"gate {trial.gate.id}"
        if not trial.walked:
            say(
                f"{name}: both sides heard for {trial.seconds_outside} s outside and {trial.seconds_inside} s inside, "
                f"{calibrate.GATE_SECONDS_MIN} s are the least: stand 3 m outside and 3 m inside for 20 s each"
            )
        else:
            say(
                f"{name}: inner - outer is {trial.outside_db:+.0f} dB outside ({trial.seconds_outside} s), "
                f"{trial.inside_db:+.0f} dB inside ({trial.seconds_inside} s): {trial.apart_db:.0f} dB apart, "
                f"{calibrate.GATE_LEAST_DB:.0f} dB are the least"
            )
        for reader in trial.readers:
            louder = "" if np.isnan(reader.louder_db) else f", {reader.louder_db:+.0f} dB on its own side"
            say(
                f"  reader {site.reader_ids[reader.reader]} {reader.side}: {reader.rows_outside} rows outside, "
                f"{reader.rows_inside} inside{louder}"
            )
        steps = list(_next_steps(site, trial))
        if trial.walked and trial.apart_db < calibrate.GATE_LEAST_DB:
            say(f"warning: cannot tell in from out at this gate: {name}, {trial.apart_db:.0f} dB apart")
        elif trial.walked and trial.apart_db < calibrate.GATE_SOUND_DB:
            say(f"warning: {name} is weak: a sound one has {calibrate.GATE_SOUND_DB:.0f} dB and more")
        for step in steps:
            say(f"  next: {step}")


def _next_steps(site: RecordedSite, trial: GateTrial) -> Iterator[str]:
    gate, found = trial.gate, False
    inwards = np.array([np.cos(np.radians(gate.inward_deg)), np.sin(np.radians(gate.inward_deg))])
    for side in ("outer", "inner"):
        if side not in [reader.side for reader in trial.readers]:
            yield f"mount an {side} reader; with one side only, nobody is reported at the gate"
            found = True
    for reader in trial.readers:
        name = f"reader {site.reader_ids[reader.reader]} ({reader.side})"
        deep_m = float((site.readers_m[reader.reader, :2] - np.array(gate.at_m)) @ inwards)
        if not reader.rows_outside + reader.rows_inside and trial.seconds_outside + trial.seconds_inside:
            yield f"{name} was not heard at the gate: is it alive, is its antenna connected?"
        elif reader.louder_db < calibrate.READER_LEAST_DB and reader.side == "outer" and deep_m < -OUTER_BEFORE_MAX_M:
            yield f"{name} stands {-deep_m:.1f} m before the wall, too far out: move it to 2 m at most"
        elif reader.louder_db < calibrate.READER_LEAST_DB:
            look_deg = write.turned_deg(gate.inward_deg + (180.0 if reader.side == "outer" else 0.0))
            where = f" to {look_deg:.0f} degrees" if site.origin_lonlat is not None else " away from the wall"
            yield f"{name} hears the other side as well as its own: turn its antenna{where}, free of metal and wall"
        else:
            continue
        found = True
    lean_db = (trial.inside_db + trial.outside_db) / 2
    if trial.walked and abs(lean_db) > calibrate.GATE_LEAN_MAX_DB:
        deaf = "inner" if lean_db < 0 else "outer"
        yield f"the {deaf} readers hear about {abs(lean_db):.0f} dB too little: check their antennas and cables"
        found = True
    if trial.walked and not found and trial.apart_db < calibrate.GATE_SOUND_DB:
        yield "are there patch antennas on all its readers, and does each look away from the wall?"


def _judged(
    site: RecordedSite,
    known: Survey,
    found: SurveyRows,
    track: Track,
    walk: TrueWalk,
    keep: bool,
    say: Callable[[str], None],
) -> list[str]:
    """Report the errors before and after; raise WalkRefused if the walk makes them larger. Return picture text."""
    from gateway.survey import replay

    as_known = replay.ReplayEngine(site, known)  # a map takes seconds to fit, so not again for each part

    parts = itertools.count()

    def engine(survey: Survey, part: Track) -> Iterable[TimedFix]:
        done(next(parts))
        return (as_known if survey is known else replay.ReplayEngine(site, survey)).replay(part, lag_s=0.0)

    truth = Track(track.name, track.t_s, track.reader, track.rssi_dbm, walk.t_s, walk.xy_m)
    with progress("locating the walk without it and with it", 2 * calibrate.FOLDS) as done:
        both = calibrate.before_and_after(known, found, track, engine)
    before, after = (_score(truth, fixes, walk) for fixes in both)
    say(f"{'instant fixes':14} {'fixes':>6} {'median':>8} {'mean':>8} {'90 %':>8} {'in r50':>7} {'in r90':>7}")
    for words, s in (("before", before), ("after", after)):
        metres = " ".join(f"{value:6.2f} m" for value in (s.median_m, s.mean_m, s.p90_m))
        say(f"{words:14} {s.fixes:6} {metres} {s.cover_50:7.0%} {s.cover_90:7.0%}")
    say(f"(after: each of {calibrate.FOLDS} parts of the walk located with a map of the other parts)")
    again = calibrate.walked_again(found)
    if again < calibrate.BOTH_MIN:
        say(
            f"note: {again:.0%} of the way was walked a second time: after says what the map does beside the walk, not "
            "on it"
        )
    worse = WORSE if again >= calibrate.BOTH_MIN else WORSE_WALKED_ONCE
    if after.mean_m > worse * before.mean_m and not keep:
        raise WalkRefused(
            f"with it the mean error grows from {before.mean_m:.1f} to {after.mean_m:.1f} m: is the truth right, was "
            "the tag worn as children wear it? --keep takes it all the same"
        )
    if not (after.mean_m == after.mean_m and before.mean_m == before.mean_m):
        return []
    return [f"Error before {before.mean_m:.1f} m, after {after.mean_m:.1f} m (mean, each part by the others)."]


def _score(truth: Track, fixes: list[TimedFix], walk: TrueWalk) -> Score:
    where, _ = walk.at(np.array([fix.t_s for fix in fixes]))
    judged = [fix for fix, at in zip(fixes, where, strict=True) if np.isfinite(at).all()]
    return score(len(judged), errors_m(truth, judged))


def _summary(walk: TrueWalk, found: SurveyRows, agreed: ClockFit) -> list[str]:
    seconds = len(np.unique(np.floor(found.t_s)))
    share = calibrate.both_ways(found.survey)
    lines = [
        f"{seconds / 60:.1f} minutes, truth {walk.source}, {len(np.unique(found.survey.reader))} readers heard it."
    ]
    if share == share:
        lines.append(f"Walked in both directions on {share:.0%} of the way.")
    return lines


def _write(
    folder: Path,
    site: RecordedSite,
    name: str,
    found: SurveyRows,
    walk: TrueWalk,
    offset_s: float,
    words: list[str],
    say: Callable[[str], None],
) -> None:
    written = [write.save_survey(folder, site, name, found.survey)]
    add_seen_track(folder, name)
    truth = folder / "tracks" / f"{name}.truth.csv"
    if not truth.exists():
        save_truth(folder, name, walk.t_s - offset_s, walk.xy_m)
        written.append(truth)
    walked, expected = folder / f"{name}.walk.svg", folder / "expected.svg"
    write_text(walked, picture.walk_picture(picture.scene_of(site, f"Walk test {name}"), found.survey, words))
    whole = read.load_survey(folder, site)
    law, source = law_of(site, whole)
    e = Expected(site.readers_m, site.tag_height_m, law, site.look)
    scene = picture.scene_of(site, f"{site.name}: how exactly is a tag located?")
    write_text(expected, picture.error_picture(scene, e.error_m, e.readers_in_reach, source))
    for path in (*written, walked, expected):
        say(f"written: {path}")
    if site.origin_lonlat is None:
        say(f"next: ansim-gateway locate {folder} --out FIXES_DIR; it has no origin, so no gateway can use it")
    else:
        say(
            f'next: name the folder in the gateway\'s file ([locate] survey = "{folder}"), check it, start the gateway '
            "anew"
        )


def law_of(site: RecordedSite, survey: Survey) -> tuple[ExpectedLaw, str]:
    """Return the law that expectations are computed from, and a sentence on its source."""
    if not len(survey):
        usual = "the device type" if site.channel else "a usual tag"
        return ExpectedLaw.of(
            site.channel
        ), f"Reckoned from distances and the law of {usual}; nobody has walked here yet."
    from gateway.locate import levels

    rows = levels.rows_of(survey.xy_m, survey.heading_deg, survey.reader, survey.rssi_dbm, survey.count)
    law = levels.fit_law(site.readers_m, site.tag_height_m, rows, worn=site.worn == "body", look=site.look)
    floor_dbm = float(np.percentile(survey.rssi_dbm, 2))
    found = ExpectedLaw(float(np.mean(law.p0_dbm)), law.exponent, law.sigma_db, floor_dbm)
    return found, (
        f"Reckoned from distances and the walk test: {law.exponent:.1f} exponent, {law.sigma_db:.1f} dB spread. One "
        "reading of each reader; walking on makes it better."
    )
