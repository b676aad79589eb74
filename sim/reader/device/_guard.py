# Hide what an XBee 3 ZigBee lacks: an import finds the device's own modules and what is on flash, nothing else.
# ruff: noqa: I001, E401, F401
import _host
import builtins
import errno, hashlib, machine, os, time, xbee
from digi import ble
from uos import listdir

_HAVE = " binascii digi errno gc hashlib io json machine micropython os struct sys time xbee "
_real = builtins.__import__, builtins.open, listdir
del listdir


def _import(name, *data):
    top = name.split(".")[0]
    if top[0] == "u" and " %s " % top[1:] in _HAVE:
        name = name[1:]
    elif " %s " % top not in _HAVE:
        files = _real[2]()
        if top + ".mpy" not in files and top + ".py" not in files:
            raise ImportError(name)
    return _real[0](name, *data)


def _open(name, mode="r"):
    if mode[0] != "r":
        _host.ask(70, 0, name)  # F
    return _real[1](name, mode)


_host.ask(66)  # B: wait for the time, the pin levels and the reset cause
_host.out[3] = _host.state[7]
builtins.__import__ = _import
builtins.open = _open
