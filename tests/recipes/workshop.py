"""`python -m tests.recipes.workshop COPY`: tries every recipe in a copy of the checkout, whole and without each file.

It prints JSON: what is added -> the file that was left out ("": none) -> the first complaint, "" if all is well. Slow
imports of others are done once, here; each trial is a fork of this process, which sees its own state of the copy.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.recipes.recipe import Recipe, apply

SLOW = (
    "fastapi", "fastapi.sse", "httpx", "hypothesis", "jinja2", "msgspec", "numpy", "paho.mqtt.client",
    "prometheus_client", "pytest", "rich.console", "sqlalchemy", "sqlalchemy.dialects.postgresql", "structlog", "typer",
    "uvicorn", "bellows.zigbee.application",
)  # fmt: skip
TRIAL_MAX_S = 120
HOUSE = (
    "tests/test_docs.py", "tests/test_pages.py", "tests/test_architecture.py", "tests/test_nothing_missing.py",
    "tests/gateway/test_events.py", "tests/gateway/test_uplink.py", "tests/gateway/config/test_convert.py",
    "tests/gateway/core/test_reader_faults.py", "tests/firmware/test_rules.py",
)  # fmt: skip
"""The tests that hold the house."""
EVERYTHING = "everything at once"


def trial(recipe: Recipe) -> str:
    """Return the first complaint about the copy as it stands, "" if the new thing works and its checks pass."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe.works(Path(folder))
        except BaseException as error:
            return f"it does not work: {type(error).__name__}: {error}"
    for check in recipe.checks:
        module, _, name = check.partition("::")
        try:
            called(getattr(importlib.import_module(module), name))
        except BaseException as error:
            return f"{name}: {type(error).__name__}: {error}"[:2000]
    return ""


def called(test: Any) -> None:
    """Call a test function once, or for each value it is parametrized with."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for values in marks[0].args[1] if marks else [None]:
        test(*([] if values is None else values if isinstance(values, tuple) else [values]))


def whole_house(_: Any) -> str:
    """Return what the house's own tests say of a copy to which everything was added."""
    import pytest

    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        code = pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", *HOUSE])
        sys.stdout.flush()
        said.seek(0)
        return "" if code == 0 else said.read().decode()[-3000:] or f"pytest ended with {code}"


def forked(ask: Callable[[Any], str], recipe: Any = None) -> str:
    """Return what a trial says, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(TRIAL_MAX_S)
        os.close(reading)
        os.dup2(2, 1)  # standard output is for the results
        try:
            said = ask(recipe)
        except BaseException:
            said = traceback.format_exc()
        with os.fdopen(writing, "w") as pipe:
            pipe.write(said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return said or ("" if status == 0 else f"it was ended by signal {status}")


def main() -> None:
    copy = Path(sys.argv[1])
    sys.dont_write_bytecode = True
    for name in SLOW:
        importlib.import_module(name)
    ours = ("city", "firmware", "gateway", "readers", "sim")
    loaded: list[ModuleType] = [module for name, module in sys.modules.items() if name.partition(".")[0] in ours]
    assert not loaded, f"the copy is not what would be tried: {loaded[0].__name__} is loaded already"
    from tests.recipes import recipes

    results: dict[str, dict[str, str]] = {}
    touched = {path for recipe in recipes.ALL for path in recipe.files()}
    before = {path: (copy / path).read_bytes() for path in touched if (copy / path).exists()}

    def put_back() -> None:
        for path in touched:
            if path not in before:
                (copy / path).unlink(missing_ok=True)
            elif (copy / path).read_bytes() != before[path]:
                (copy / path).write_bytes(before[path])

    for recipe in recipes.ALL:
        results[recipe.what] = {}
        for left_out in ("", *recipe.files()):
            apply([edit for edit in recipe.edits if edit.path != left_out], copy)
            results[recipe.what][left_out] = forked(trial, recipe)
            put_back()
    for recipe in recipes.ALL:
        apply(recipe.edits, copy)
    results[EVERYTHING] = {"": forked(whole_house)}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
