# The codes of MicroPython 1.20, which a module has; later ones know more (`x` came with 1.21).
import ustruct as _all


def _known(a):
    for code in a.encode():  # a letter of a text would become a name, and names stay in the heap
        if code not in b"@<>!0123456789bBhHiIlLqQfdsP":
            raise ValueError("bad typecode")
    return a


def calcsize(a):
    return _all.calcsize(_known(a))


def pack(a, *values):
    return _all.pack(_known(a), *values)


def pack_into(a, buffer, offset, *values):
    _all.pack_into(_known(a), buffer, offset, *values)


def unpack(a, data):
    return _all.unpack(_known(a), data)


def unpack_from(a, data, offset=0):
    return _all.unpack_from(_known(a), data, offset)
