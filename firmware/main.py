# The start of the reader at power-up. It always comes back: whatever ends the program, the lamp goes low, the crash is
# kept, and the module resets. The watchdog is armed before anything else can fail.
#
# Every module of ours is imported here, each after those that it imports, so that no import waits inside another: the
# stack of a module is small (docs/FIRMWARE.md, "Heap and stack").


def fail(error: BaseException) -> None:
    """Keep the end of the traceback on flash (only the last crash) and wait. The caller resets.

    It waits 2 s, twice as long for every crash within 60 s of its boot, 512 s at most: a reader that always crashes
    boots 170 times a day, not 30000, and its flash lasts. If flash keeps no count, every crash but the first after
    power-up counts as the sixth. After an interrupt it waits 16 s and writes nothing.
    """
    try:
        import alarm

        alarm.light()  # first: a lamp that stays lit would be a lie for as long as this waits
    except BaseException:
        pass  # the pins were never driven
    import time

    crashes = 6
    try:
        import gc
        import sys

        gc.collect()
        show = getattr(sys, "print_exception")  # only in MicroPython: no type checker knows it
        show(error)
        quick = time.ticks_ms() < 60000
        if isinstance(error, KeyboardInterrupt):
            crashes = 4  # noise on the serial line is no fault of the program, and ends
        else:
            if not quick or machine.reset_cause() in (machine.PWRON_RESET, machine.BROWNOUT_RESET):
                crashes = 1
            import settings

            last = settings.load("crash")
            kept = min(last[0] + 1, 9) if last and quick else 1
            with open("crash.new", "w") as file:
                show(error, file)
            with open("crash.new", "rb") as file:
                file.seek(max(file.seek(0, 2) - 240, 0))
                text = file.read()
            if settings.keep("crash", bytes([kept]) + text):
                crashes = kept
    except Exception:
        pass  # no settings or no flash: then only wait and reset
    for _ in range(1 << crashes):
        if watchdog is not None:
            watchdog.feed()
        time.sleep_ms(1000)


watchdog = None
try:
    import machine

    try:
        watchdog = machine.WDT(timeout=60000, response=machine.HARD_RESET)
    except Exception:
        pass  # reported in the heartbeat
    import micropython

    if hasattr(micropython, "kbd_intr"):
        micropython.kbd_intr(-1)  # a byte 0x03 on an open serial pin is no wish of a person
    import gc
    import sys

    # Collected after each: what stays must not be scattered over the heap, or no room is left for the table of tags.
    for name in "config health wire settings auth link alarm scan report loop".split():
        try:
            __import__(name)
        except KeyboardInterrupt:  # only where the module cannot switch it off
            if name in getattr(sys, "modules", ()):
                del sys.modules[name]  # 1.20 keeps what was loaded by half
            __import__(name)
        gc.collect()
    if hasattr(gc, "threshold"):  # no page of Digi has it
        gc.threshold(2048)
    import link
    import loop

    link.watchdog = watchdog
    loop.run()
except BaseException as error:
    fail(error)
finally:
    import machine

    machine.reset()
