# Loaded into the heap, so short: mount what runs in place, put the guard up, run main from flash.
import uos
import usys
import vfs
from uctypes import bytearray_at

_at, _size = uos.getenv("ANSIM_ROM").split()
vfs.mount(vfs.VfsRom(bytearray_at(int(_at), int(_size))), "/rom")
usys.path[:] = ["/rom", "/rom/flash", ""]
del uos, usys, vfs, bytearray_at, _at, _size
import _guard  # noqa: E402,F401
import main  # noqa: E402,F401
