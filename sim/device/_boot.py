# What the module does at power-up: hide what an XBee 3 ZigBee lacks, then run main from flash.
import builtins
import _host
import binascii, errno, gc, hashlib, io, json, machine, micropython, os, struct, sys, time, xbee  # noqa: E401,F401
from digi import ble  # noqa: F401

_HAVE = " builtins binascii digi errno gc hashlib io json machine micropython os struct sys time xbee "
_real_import = builtins.__import__
_real_open = builtins.open


def _import(name, *rest):
    top = name.split(".")[0]
    if top[0] == "u" and " %s " % top[1:] in _HAVE:
        name = name[1:]
    elif " %s " % top not in _HAVE and top + ".mpy" not in os.listdir() and top + ".py" not in os.listdir():
        raise ImportError("no module named '%s'" % name)
    return _real_import(name, *rest)


def _open(name, mode="r"):
    if "w" in mode or "a" in mode:
        _host.ask(70, 0, name)  # F
    return _real_open(name, mode)


_host.ask(66)  # B: wait for the time, the pin levels and the reset cause
_host.out[3] = _host.state[7]
builtins.__import__ = _import
builtins.open = _open
import main  # noqa: E402,F401
