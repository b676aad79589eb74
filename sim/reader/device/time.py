# Virtual time: it passes only while the firmware sleeps or transmits. Ticks wrap at 2**30, as on the module.
import _host


def ticks_ms():
    _host.step()
    a = _host.state
    return a[0] | a[1] << 8 | a[2] << 16 | a[3] << 24


def ticks_add(a, b):
    return (a + b) & 0x3FFFFFFF


def ticks_diff(a, b):
    return ((a - b + 0x20000000) & 0x3FFFFFFF) - 0x20000000


def sleep_ms(a):
    _host.ask(83, a)  # S
