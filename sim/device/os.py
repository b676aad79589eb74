# What the firmware uses of the module's file system. Each step that touches flash is told to the host first, so that a
# power cut can fall between any two.
import _host
from uos import listdir, remove
from uos import rename as _rename


def replace(old_path, new_path):
    _host.ask(70, 2, new_path)  # F
    _rename(old_path, new_path)


def sync():
    _host.ask(70, 1)


def urandom(n):
    return _host.ask(85, n)  # U
