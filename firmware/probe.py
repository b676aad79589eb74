# Bring-up: measures the module it runs on, one step after another (readers/bringup.py sends it and reads its lines).
#
#   @KEY=VALUE;      one value, as Python writes it, complete in itself: a crash cuts off what follows, nothing before
#
# Keys that frame the others: boot, step, error, done, end. What is not such a line is somebody else's, or of mem_info.
# The plan (probe_plan.py) is removed before the first step. So whatever resets the module, the next boot finds no plan:
# it says so, and removes main.py, and the boot after that is the module's own program again.
# mypy: allow-untyped-defs, allow-incomplete-defs
import gc
import os
import time

import machine


def say(key: str, value: object) -> None:
    print("@%s=%r;" % (key, value))


def problem(error: BaseException) -> "tuple[object, ...]":
    """Return ("OSError", 7019): what was raised, and with which number if there is one."""
    first = error.args[0] if error.args else None
    return (type(error).__name__, first) if isinstance(first, int) else (type(error).__name__,)


def tried(call, *arguments: object) -> object:
    """Return None if the call works, else what it raised."""
    try:
        call(*arguments)
        return None
    except Exception as error:
        return problem(error)


def waited(since: int) -> int:
    return time.ticks_diff(time.ticks_ms(), since)


def begin(free_b: int) -> None:
    """Do the plan. free_b: the heap before anything of ours was loaded."""
    print()  # ends a line that a crash cut short
    say("boot", (machine.reset_cause(), time.ticks_ms(), free_b))
    try:
        import probe_plan as plan

        steps = plan.STEPS.split()
    except ImportError:
        steps = []
    if not steps or tried(os.remove, "probe_plan.py"):
        tried(os.remove, "main.py")
    tried(os.sync)
    for name in steps:
        _do(name, plan)
    if steps:
        tried(os.remove, "main.py")
        tried(os.sync)
    say("end", bool(steps))


def _do(name: str, plan) -> None:
    say("step", name)
    gc.collect()
    try:
        file, step = name.split(".")
        getattr(__import__(file), step)(plan)
    except BaseException as error:  # KeyboardInterrupt too: the next step goes on
        say("error", problem(error))
    say("done", name)


def modules(plan) -> None:
    """Load the firmware as its main.py does. Nothing is printed meanwhile, because that would scatter the heap."""
    names = "config health wire settings auth link alarm scan report loop".split()
    free_b = [gc.mem_free()] + [0] * len(names)
    done = 0
    try:
        for name in names:
            __import__(name)
            gc.collect()
            done += 1
            free_b[done] = gc.mem_free()
    finally:
        say("free_b", free_b[: done + 1])
        say("loaded", names[:done])


def nest(plan) -> None:
    """Import four modules, each inside the one before. The last one that fits says what stack is left."""
    __import__("probe_nest0")
