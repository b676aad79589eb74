# The stand-ins' one line to the simulator: descriptor 0 is a socket, and every wait of the firmware is a read on it.
#
#   device -> host   op u8 | length u8 | done u8 | reset cause u8 | argument u32 LE | data  (ops: sim/reader/process.py)
#   host -> device   ticks u32 LE | advertisements u8 | frames u8 | length u8 | status u8 | pin levels u32 LE |
#                    flags u8 (1: a byte 0x03 came, 2: a scan runs) | data
#   done, since the message before: 1 the watchdog was fed, 2 an input pin was read
#
# Lock-step: between two reads no time passes. The parent's death is an end of file here and ends the process.
# What these modules keep counts against the firmware's heap, so they are few, flat, and short of names: a name a
# reader's MicroPython has in its flash costs 40 bytes of heap here. Parameters that nobody names are called a, b, c.
import ustruct

port = open(0, "rb")  # kept for good: a collected file would close the descriptor
state = bytearray(13)
out = bytearray(96)
left = [0, 0]  # calls until the KeyboardInterrupt (0: none comes), whether kbd_intr(-1) was called


def tell(op, a=0, data=b""):
    n = len(data)
    ustruct.pack_into("<BBBBI", out, 0, op, n, out[2], out[3], a)
    ustruct.pack_into("%ds" % n, out, 8, data)
    port.write(out, 8 + n)
    out[2] = 0


def ask(op, a=0, data=b""):
    tell(op, a, data)
    if port.readinto(state) != 13:
        raise SystemExit
    data = port.read(state[6]) if state[6] else b""
    if state[12] & 1:
        left[0] = 1
        step()
    return data


def step():
    """One call of the module: the serial line may interrupt here."""
    if left[0]:
        left[0] -= 1
        if not left[0] and not left[1]:
            raise KeyboardInterrupt


def check():
    """Raise what the host's status says."""
    a = state[7]
    if a > 252:
        raise (ValueError, TypeError, RuntimeError)[a - 253]
    if a:
        raise OSError(7000 + a)
