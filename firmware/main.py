# Ansim's reader. What runs at power-up; here is only what happens when everything else has failed.
import gc
import sys
import time

import machine

_QUICK_S = 60  # a crash sooner than this after boot counts as repeated
_TEXT_MAX = 240  # bytes of the traceback's end
_WAIT_MAX_S = 512  # so that a reader that always crashes makes 170 boots a day, not 30000


def fail(error: Exception) -> None:
    """Keep the crash on flash (the last one only), wait the longer the quicker crashes repeat, and reset."""
    gc.collect()
    show = getattr(sys, "print_exception")  # MicroPython's own: no type checker's library has it
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
        pass  # no settings, no flash: then the wait and the reset alone
    for _ in range(min(1 << crashes, _WAIT_MAX_S)):
        if watchdog is not None:
            watchdog.feed()
        time.sleep_ms(1000)


gc.threshold(256)  # collect early: what stays must not lie scattered over the heap
try:
    import loop

    gc.threshold(2048)
    loop.run()
except Exception as error:
    fail(error)
machine.reset()
