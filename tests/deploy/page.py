"""docs/INSTALL.md as a test runs it: its blocks in their order, each on its machine, a folder with what a Debian has.

What is replaced, and nothing else is:

    commands that need root, a network, systemd or a person     tests/deploy/stand_ins.sh, each with its reason
    /etc /opt /var/lib /usr/local/src /dev ~                    the same below the machine's folder, in page and files
    city.example.org                                            localhost, in the page: where the test's broker is
    listener 8883, port = 8883, port = 8080                     free ports of loopback, in the files of deploy/
    the stick, and the reader on the cable                      the emulated ones of sim
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from tests import programs
from tests.roots import ROOT

PAGE = ROOT / "docs" / "INSTALL.md"
MACHINES = ("city", "box", "desk")
UNTIL_S, END_S = 40.0, 15.0
COPIED = ("city", "deploy", "firmware", "gateway", "locks", "readers", "sim", "LICENSE", "pyproject.toml")
_PATH = re.compile(r"(?:(?<![\w./~$}-])|(?<=sqlite:///))/(?=(etc|opt|var/lib|usr/local/src|dev/(serial|ttyUSB0))\b)")


@dataclass(frozen=True)
class Block:
    """One fenced block of commands. kinds: the words behind `sh`; seen: the block of text after it, or nothing."""

    kinds: tuple[str, ...]
    commands: str
    seen: str


def blocks() -> list[Block]:
    """Return the page's blocks of commands, in their order."""
    found = re.findall(
        r"^```sh ([\w -]+)\n(.*?)^```$(?:(?:(?!^```).)*?^```text\n(.*?)^```$)?",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [Block(tuple(kinds.split()), commands, seen) for kinds, commands, seen in found]


class Machines:
    """Three machines in one folder, without anything of the product on them. `end` ends what was started on them."""

    def __init__(self, folder: Path, *, broker_port: int, web_port: int) -> None:
        self.folder, self.ports = folder, {8883: broker_port, 8080: web_port}
        self.said: dict[str, str] = {}
        """The output of each block that was run, by its commands."""
        (folder / "pids").mkdir()
        for name in MACHINES:
            for part in ("home", "etc/systemd/system", "opt", "var/lib", "dev/serial/by-id"):
                (folder / name / part).mkdir(parents=True)
            self._checkout(name)
        self._debian_mosquitto(folder / "city")

    def run(self, machine: str, block: Block) -> str:
        """Run a block as a person types it, after the page's names, and return its output. Fails as the shell fails."""
        names = next(each.commands for each in blocks() if each.kinds == ("names",))
        first = block.kinds == ("every",)
        script = "\n".join(["set -euo pipefail", "umask 022", *([] if first else [names]), block.commands])
        script = f'. "{ROOT}/tests/deploy/stand_ins.sh"\n' + self._here(machine, script)
        end_s = time.monotonic() + (UNTIL_S if "until" in block.kinds else 0)
        while True:
            done = subprocess.run(
                ["bash", "-c", script], capture_output=True, text=True, timeout=200, env=self._env(machine), check=False
            )
            wrong = self._wrong(machine, block, done)
            if not wrong:
                self.said[block.commands] = done.stdout
                return done.stdout
            assert time.monotonic() < end_s, f"{machine}: {wrong}\n$ {block.commands}{done.stdout}{done.stderr}"
            time.sleep(0.2)

    def end(self) -> None:
        """End every service, by its own number."""
        numbers = [int(file.read_text()) for file in (self.folder / "pids").iterdir()]
        for number in numbers:
            _signal(number, signal.SIGTERM)
        limit_s = time.monotonic() + END_S
        while any(_signal(number, 0) for number in numbers) and time.monotonic() < limit_s:
            time.sleep(0.02)
        for number in numbers:
            _signal(number, signal.SIGKILL)

    def _wrong(self, machine: str, block: Block, done: "subprocess.CompletedProcess[str]") -> str:
        if done.returncode:
            return f"ended with {done.returncode}"
        for line in self._here(machine, block.seen.replace("city.example.org", "localhost")).splitlines():
            parts = re.split(r"(\.{2,3})", line)
            pattern = "".join({"...": ".*", "..": "[0-9a-f]{2}"}.get(part, re.escape(part)) for part in parts)
            if line != "..." and not re.search(f"^{pattern}$", done.stdout, re.MULTILINE):
                return f"the page shows {line!r}"
        return ""

    def _here(self, machine: str, text: str) -> str:
        text = _PATH.sub(f"{self.folder / machine}/", text.replace("CITY_HOST=city.example.org", "CITY_HOST=localhost"))
        return re.sub(r"\b8883\b", str(self.ports[8883]), text)

    def _checkout(self, machine: str) -> None:
        base = self.folder / f"checkout-{machine}"
        base.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, base / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, base / name)
        for path in sorted((base / "deploy").rglob("*")):
            if path.is_file() and path.suffix != ".py":
                text = path.read_text(encoding="utf-8")
                text = text.replace("listener 8883", "listener 8883 127.0.0.1")
                text = re.sub(r"\b(8883|8080)\b", lambda found: str(self.ports[int(found[0])]), text)
                path.write_text(_PATH.sub(f"{self.folder / machine}/", text))

    def _debian_mosquitto(self, machine: Path) -> None:
        """Write what Debian's package brings: /etc/mosquitto/mosquitto.conf, as it stands there in version 12."""
        for part in ("etc/mosquitto/conf.d", "etc/mosquitto/certs", "var/lib/mosquitto"):
            (machine / part).mkdir(parents=True)
        lines = ["persistence true", f"persistence_location {machine}/var/lib/mosquitto/", "log_dest stdout"]
        lines += [f"include_dir {machine}/etc/mosquitto/conf.d"]
        if os.geteuid() == 0:
            lines.append("user root")  # its own user may not read the test's folder
        (machine / "etc/mosquitto/mosquitto.conf").write_text("\n".join(lines) + "\n")

    def _env(self, machine: str) -> dict[str, str]:
        home = self.folder / machine / "home"
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return kept | {
            "ROOT": str(self.folder / machine),
            "ROOTS": str(self.folder),
            "MACHINE": machine,
            "HOME": str(home),
            "PYTHON": sys.executable,
            "SITE_PACKAGES": sysconfig.get_path("purelib"),
            "MOSQUITTO": programs.find("mosquitto") or "mosquitto",
            "PIP_ROOT_USER_ACTION": "ignore",
        }


def _signal(number: int, which: int) -> bool:
    """Send a signal; return whether somebody was there. 0 only asks."""
    try:
        os.kill(number, which)
    except ProcessLookupError:
        return False
    return True
