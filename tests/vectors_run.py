# Replays the golden frames of tests/vectors/ on the interpreter that runs this file, CPython or MicroPython:
#
#   python tests/vectors_run.py      micropython tests/vectors_run.py      (from the top of the repository)
#
# It uses readers/wire.py and the firmware's own HMAC. It prints what it replayed and ends with "ok"; the first
# frame that differs raises.
import json
import sys
from binascii import hexlify, unhexlify

ROOT = "/".join(__file__.split("/")[:-2]) or "."
sys.path[:0] = [ROOT + "/readers", ROOT + "/firmware"]


class config:  # what auth.py takes from a reader's config.py
    KEY = bytes(16)


sys.modules["config"] = config  # type: ignore[assignment]
import auth  # type: ignore[import-not-found]  # noqa: E402
import wire  # type: ignore[import-not-found]  # noqa: E402

FUNCTIONS = {  # kind: encode, decode, whether encode takes the fields one by one
    wire.SIGHTINGS: (wire.encode_sightings, wire.decode_sightings, False),
    wire.BINDINGS: (wire.encode_bindings, wire.decode_bindings, False),
    wire.SOS: (wire.encode_sos, wire.decode_sos, True),
    wire.BELL: (wire.encode_bell, wire.decode_bell, True),
    wire.HEARTBEAT: (wire.encode_heartbeat, wire.decode_heartbeat, False),
    wire.NEIGHBOURS: (wire.encode_neighbours, wire.decode_neighbours, False),
    wire.ACK: (wire.encode_ack, wire.decode_ack, True),
    wire.STAGE: (wire.encode_stage, wire.decode_stage, False),
    wire.SETTINGS: (wire.encode_settings, wire.decode_settings, False),
}


def key_for(key: bytes) -> None:
    auth._inner = bytes([byte ^ 0x36 for byte in key + bytes(64 - len(key))])
    auth._outer = bytes([byte ^ 0x5C for byte in key + bytes(64 - len(key))])


def plain(value):  # type: ignore[no-untyped-def]
    """JSON's lists are the codec's tuples; its strings are bytes in hexadecimal."""
    if isinstance(value, str):
        return unhexlify(value)
    return tuple([plain(item) for item in value]) if isinstance(value, (list, tuple)) else value


def same(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError("%s: got %r, wanted %r" % (what, got, wanted))


def pack(kind, vector):  # type: ignore[no-untyped-def]
    """The same frame from the functions that a reader uses, in a buffer that still holds an older frame."""
    buf = bytearray(b"\xa5" * wire.FRAME_MAX)
    end = wire.begin(buf, kind, vector["reader"], vector["boot"], vector["sequence"])
    fields = plain(vector["fields"])
    if kind == wire.SIGHTINGS:
        for row in fields:
            end = wire.pack_row(buf, end, *row)
    elif kind == wire.BINDINGS:
        for row in fields:
            end = wire.pack_binding(buf, end, *row)
    elif kind == wire.NEIGHBOURS:
        for reader, boot, counter, power, proof, rssi, packets in fields:
            beacon = wire.struct.pack(">BHHHb", wire.BEACON_VERSION, reader, boot, counter, power) + bytes(7) + proof
            end = wire.pack_neighbour(buf, end, wire.RSSI_NONE if rssi is None else rssi, packets, beacon)
    elif kind == wire.SOS:
        end = wire.pack_sos(buf, end, *fields)
    elif kind == wire.BELL:
        end = wire.pack_bell(buf, end, *fields)
    else:
        end = wire.pack_heartbeat(buf, end, *fields)
    return wire.seal(buf, end, auth.mac)


def replay_good(vector) -> None:  # type: ignore[no-untyped-def]
    name = vector["name"]
    kind = vector["kind"]
    encode, decode, spread = FUNCTIONS[kind]
    frame = unhexlify(vector["frame"])
    fields = plain(vector["fields"])
    key_for(unhexlify(vector["key"]))
    body = encode(*fields) if spread else encode(fields)
    got = wire.encode(kind, vector["reader"], vector["boot"], vector["sequence"], body, auth.mac)
    same(name + ": encoded", hexlify(got), hexlify(frame))
    if kind < wire.ACK:
        same(name + ": packed", hexlify(pack(kind, vector)), hexlify(frame))
    same(name + ": header", wire.peek(frame), (kind, vector["reader"], vector["boot"], vector["sequence"]))
    decoded = plain(decode(wire.body_of(frame, auth.mac)))
    same(name + ": decoded", decoded, plain(vector.get("decoded", vector["fields"])))


def replay_bad(vector) -> None:  # type: ignore[no-untyped-def]
    frame = unhexlify(vector["frame"])
    key_for(unhexlify(vector["key"]))
    try:
        kind = wire.peek(frame)[0]
        FUNCTIONS[kind][1](wire.body_of(frame, auth.mac))
    except wire.WireError as error:
        same(vector["name"] + ": refusal", str(error), vector["error"])
        return
    raise AssertionError(vector["name"] + ": was taken")


def main() -> None:
    for name in ("uplink", "downlink", "malformed"):
        with open(ROOT + "/tests/vectors/" + name + ".json") as file:
            vectors = json.load(file)
        for vector in vectors:
            (replay_bad if name == "malformed" else replay_good)(vector)
        print(name, len(vectors))
    print("ok on", sys.implementation[0] if isinstance(sys.implementation, tuple) else sys.implementation.name)


main()
