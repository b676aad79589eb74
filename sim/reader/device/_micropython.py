import _host
from micropython import const, mem_info, stack_use  # noqa: F401


def kbd_intr(a):
    _host.left[1] = a == -1
