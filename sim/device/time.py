# Virtual time: it passes only while the firmware sleeps or transmits. The period of the ticks is 2**30, as on the module.
import _host


def ticks_ms():
    s = _host.state
    return s[0] | s[1] << 8 | s[2] << 16 | s[3] << 24


def ticks_add(ticks, delta):
    return (ticks + delta) & 0x3FFFFFFF


def ticks_diff(ticks1, ticks2):
    return ((ticks1 - ticks2 + 0x20000000) & 0x3FFFFFFF) - 0x20000000


def sleep_ms(ms):
    _host.ask(83, ms)  # S
