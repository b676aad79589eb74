"""Runs all tests as two pytest runs side by side: those of the city and the stories, mostly, wait for servers and
browsers, the others compute. `python -m tests.halves` prints the second while it runs, then the first, then one
closing line.
"""

import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.roots import ROOT

WAITING = ("tests/bench", "tests/city", "tests/readers", "tests/story")
END_S = 30.0
"""How long a run may take to end the programs of its test. Then it is killed."""
CLOSING = re.compile(r"^=+ (.+) in [0-9.]+s.*=+$|^((?:\d+ \w+,? ?)+) in [0-9.]+s", re.MULTILINE)


def computing() -> list[str]:
    """Return every other folder of tests, and the files at the top."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    tops = {path.relative_to(ROOT).parts[:2] for path in folders if path != ROOT / "tests"}
    return sorted({"/".join(top) for top in tops} - set(WAITING)) + sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py")
    )


def counted(text: str) -> Counter[str]:
    """Return the numbers of a run's closing line by their word. Empty: it did not come so far."""
    lines = [match.group(1) or match.group(2) for match in CLOSING.finditer(text)]
    return Counter({word: int(n) for n, word in re.findall(r"(\d+) (\w+)", lines[-1])}) if lines else Counter()


def main(arguments: list[str]) -> int:
    """Run both halves. Return 0 only if both did. A signal ends both."""
    command = [sys.executable, "-m", "pytest", *arguments]
    with tempfile.TemporaryFile("w+") as waited, tempfile.TemporaryFile("w+") as computed:
        first = subprocess.Popen([*command, *WAITING], cwd=ROOT, stdout=waited, stderr=subprocess.STDOUT)
        second = subprocess.Popen(
            [*command, *computing()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        try:
            assert second.stdout is not None
            for line in second.stdout:
                print(line, end="", flush=True)
                computed.write(line)
            print(
                "the tests of the city, the stories, the readers' tools and the benches, which ran meanwhile:",
                flush=True,
            )
            codes = (first.wait(), second.wait())
        except KeyboardInterrupt:
            for run in (first, second):
                run.send_signal(signal.SIGINT)
            for run in (first, second):
                try:
                    run.wait(END_S)
                except subprocess.TimeoutExpired:  # started in the background, where shells ignore SIGINT
                    run.kill()
            return 130
        waited.seek(0)
        computed.seek(0)
        text = waited.read()
        print(text, end="")
        total = counted(text) + counted(computed.read())
    print(f"both together: {', '.join(f'{count} {word}' for word, count in total.items()) or 'nothing was counted'}")
    return max(codes)


if __name__ == "__main__":
    assert Path(ROOT / "tests/city").is_dir()
    sys.exit(main(sys.argv[1:]))
