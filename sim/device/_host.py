# The stand-ins' one line to the simulator: file descriptor 0 is a socket, and every wait of the firmware is a read on it.
#
#   device -> host   op u8 | length u8 | fed u8 | 0 | argument u32 LE | data     (sim/reader.py names the ops)
#   host -> device   ticks u32 LE | advertisements u8 | frames u8 | length u8 | status u8 | pin levels u32 LE | data
#
# Lock-step: between two reads no time passes. The parent's death is an end of file here and ends the process.
# These modules share the firmware's 32 KB, so they are few, flat and without docstrings' worth of comfort.
import struct

port = open(0, "rb")  # kept for good: a collected file would close the descriptor
state = bytearray(12)
out = bytearray(96)


def tell(op, argument=0, data=b""):
    n = len(data)
    struct.pack_into("<BBBBI", out, 0, op, n, out[2], 0, argument)
    struct.pack_into("%ds" % n, out, 8, data)
    port.write(out, 8 + n)
    out[2] = 0


def ask(op, argument=0, data=b""):
    tell(op, argument, data)
    if port.readinto(state) != 12:
        raise SystemExit
    return port.read(state[6]) if state[6] else b""
