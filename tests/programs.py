"""The programs that some tests need and Python cannot install. One place finds them, and says what to do without them.

They are looked for next to this Python (where `tests/apt.sh` puts them if it is not root), on PATH, and in the folders
for administrators, which other users often have not on PATH. Each reason of a skip ends with "next:" and a step that
works without root, or says why there is none; `tests/test_repository.py` holds this.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

PLACES = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin")
NO_RECORDINGS = "the recorded sites are not here; next: put them next to the checkout, as ../shared/data/rssi"
NO_GIT = "this is no git checkout, and git lists the files that this test reads; next: git clone, and test there"
NO_NAMESPACE = (
    "the small disk of this test needs a name space of its own, which is forbidden here; next: as root "
    "sysctl kernel.unprivileged_userns_clone=1 (a container: --privileged); without root nothing helps, CI runs it"
)
NO_MOUNT = "only root can mount the small disk of this test; next: sudo .venv/bin/python -m pytest FILE"
FEW_FILES = (
    "the hard limit of open files (ulimit -Hn) is too low for this test; next: as root raise it to 4096 in "
    "/etc/security/limits.conf; without root nothing helps, CI runs it"
)
IN_VENV = {"nats-server": "make venv"}


def extend_path() -> None:
    """Let this process and its children find the programs by name."""
    os.environ["PATH"] = os.pathsep.join(PLACES)


def find(name: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name, path=os.pathsep.join(PLACES))


def missing(name: str) -> str:
    """Return what to do if a program is missing. "": it is here."""
    if find(name):
        return ""
    unpacked = f"sh tests/apt.sh {name} (needs no root), or as root: apt-get install {name}"
    return f"{name} is not installed; next: {IN_VENV.get(name, unpacked)}"


def find_or_skip(name: str) -> str:
    """Return the path of a program; skip the test if there is none."""
    found = find(name)
    if found is None:
        pytest.skip(missing(name))
    return found


def needs(name: str) -> pytest.MarkDecorator:
    """Return the mark of a test that needs a program."""
    return pytest.mark.skipif(find(name) is None, reason=missing(name))
