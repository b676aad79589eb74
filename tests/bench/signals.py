"""`make bench BENCH=signals`: a signal at 30 random moments of a demo ends it within 3 s, and nothing of it is left.

Moments are drawn in the start (from our first line on: before that, Python itself answers), in the story and in the
end. SIGINT, SIGTERM and SIGHUP come to the command alone or, as from a terminal, to its whole process group; some come
twice. `ANSIM_SEED=7` draws other moments.
"""

import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.sim.demo.ended import Outcome, Running

SEED = int(os.environ.get("ANSIM_SEED", "11"))
START, STORY, END = 16, 8, 6
START_S = 12.0
OPTIONS = ("--readers", "4", "--children", "6")
ONCE = ("--once", "--seconds", "20")
IN_STORY = (("the story begins", 15.0),)
IN_END = (("the story is over", 2.0), ("the tags are silent", 3.0), ("the tags are silent", 5.0))


def one(seed: int, stage: str, number: int, folder: Path) -> tuple[str, Outcome]:
    """Return what was done and what came of it."""
    drawn = random.Random(f"{seed} {stage} {number}")
    which = drawn.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    group, again_s = drawn.random() < 0.5, drawn.uniform(0.02, 0.8) if drawn.random() < 0.3 else None
    words, within_s = ("", START_S) if stage == "start" else drawn.choice(IN_STORY if stage == "story" else IN_END)
    wait_s = drawn.uniform(0.0, within_s)
    with Running(folder, *OPTIONS, *(ONCE if stage == "end" else ())) as run:
        run.until_heard()
        if words:
            run.until(words)
        try:
            run.process.wait(wait_s)
        except Exception:  # it runs, as it should
            outcome = run.end(which, group=group, again_s=again_s)
        else:
            outcome = Outcome(run.process.returncode, 0.0, ("it had ended before the signal",))
        last = (run.text.splitlines() or ["-"])[-2:][0][:60]
    how = f"{which.name}{' to the group' if group else ''}{'' if again_s is None else f', again after {again_s:.1f} s'}"
    return f"{stage} {words or 'command'} + {wait_s:.2f} s: {how}; it had said: {last}", outcome


def run(start: int = START, story: int = STORY, end: int = END) -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    print(f"  seed {SEED}", flush=True)
    counts: Counter[str] = Counter()
    times_s: list[float] = []
    for stage, many in (("start", start), ("story", story), ("end", end)):
        for number in range(many):
            with tempfile.TemporaryDirectory(prefix="ansim-signals-") as folder:
                told, outcome = one(SEED, stage, number, Path(folder))
            good = outcome.code == 130 and not outcome.wrong
            counts.update(moments=1, ended_as_promised=good, **{f"{stage}_moments": 1})
            times_s.append(outcome.after_s)
            print(f"  {told}: code {outcome.code} after {outcome.after_s:.2f} s; {'; '.join(outcome.wrong) or 'good'}",
                  flush=True)  # fmt: skip
    times_s.sort()
    return {
        **counts,
        "seed": SEED,
        "end_p50_s": round(times_s[len(times_s) // 2], 2),
        "end_max_s": round(times_s[-1], 2),
    }


if __name__ == "__main__":
    run(*map(int, sys.argv[1:]))
