# What the firmware uses of the module's file system. Each step that touches flash is told to the host first, so that a
# power cut can fall between any two.
import _host
from uos import rename as _rename


def replace(a, b):
    _host.ask(70, 2, b)  # F
    _rename(a, b)


def sync():
    _host.ask(70, 1)


def urandom(a):
    return _host.ask(85, a)  # U
