# Hide what an XBee 3 ZigBee lacks: an import finds the device's own modules and what is on flash, nothing else.
# ruff: noqa: I001, E401, F401
import _host
import builtins
import errno, hashlib, machine, os, struct, time, xbee
import _gc, _micropython
from digi import ble
from uos import listdir

_HAVE = " binascii digi errno gc hashlib io json machine micropython os struct sys time xbee "
_OURS = {"gc": "_gc", "micropython": "_micropython"}  # modules that no file can stand in for
_real = builtins.__import__, builtins.open, listdir
del listdir


def _import(name, *data):
    _host.step()
    top = name.split(".")[0]
    if top[0] == "u" and " %s " % top[1:] in _HAVE:
        name = name[1:]
    elif " %s " % top not in _HAVE:
        files = _real[2]()
        if top + ".mpy" not in files and top + ".py" not in files:
            raise ImportError(name)
    return _real[0](_OURS.get(name, name), *data)


def _open(name, mode="r"):
    _host.ask(70, 0 if mode[0] != "r" else 3, name)  # F
    _host.check()
    return _real[1](name, mode)


_flags = _host.ask(66)  # B: wait for the time, the pin levels, the reset cause and what this module has
_host.out[3] = _host.state[7]
_host.left[0] = _flags[1] | _flags[2] << 8 | _flags[3] << 16
if _host.left[0]:
    _host.left[0] += 1  # the import of main is no step of the program
if not _flags[0] & 1:
    del _gc.threshold
if not _flags[0] & 2:
    del _micropython.kbd_intr
if not _flags[0] & 4:
    del machine.WDT
builtins.__import__ = _import
builtins.open = _open
