# What the firmware uses of the module's file system. Each step that touches flash is told to the host first, so that a
# power cut can fall between any two.
import _host
import uos


def listdir(a=""):
    _host.step()
    return uos.listdir(a)


def remove(a):
    _host.ask(70, 4, a)  # F
    _host.check()
    uos.remove(a)


def rename(a, b):
    _host.ask(70, 5, b)
    _host.check()
    uos.rename(a, b)


def replace(a, b):
    _host.ask(70, 2, b)
    _host.check()
    uos.rename(a, b)


def sync():
    _host.ask(70, 1)
    _host.check()


def urandom(a):
    return _host.ask(85, a)  # U
