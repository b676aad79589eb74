# The start of the reader at power-up. Its own code is only for the case that everything else has failed.
import gc
import sys
import time

import machine

_QUICK_S = 60  # a crash sooner than this after boot counts as repeated
_TEXT_MAX = 240  # bytes, from the end of the traceback
_WAIT_MAX_S = 512  # so that a reader that always crashes boots 170 times a day, not 30000


def fail(error: Exception) -> None:
    """Keep the crash on flash (only the last one) and wait, longer with every quick crash. The caller resets."""
    gc.collect()
    show = getattr(sys, "print_exception")  # only in MicroPython: no type checker knows it
    show(error)
    crashes = 1
    watchdog = None
    try:
        import settings

        last = settings.load("crash")
        if last and time.ticks_ms() < _QUICK_S * 1000:
            crashes = min(last[0] + 1, 9)
        with open("crash.new", "w") as file:
            show(error, file)
        with open("crash.new", "rb") as file:
            file.seek(max(file.seek(0, 2) - _TEXT_MAX, 0))
            settings.save("crash", bytes([crashes]) + file.read())
        import loop

        watchdog = loop.watchdog
    except Exception:
        pass  # no settings or no flash: then only wait and reset
    for _ in range(min(1 << crashes, _WAIT_MAX_S)):
        if watchdog is not None:
            watchdog.feed()
        time.sleep_ms(1000)


gc.threshold(256)  # collect early: what stays must not be scattered over the heap
try:
    import loop

    gc.threshold(2048)
    loop.run()
except Exception as error:
    fail(error)
machine.reset()
