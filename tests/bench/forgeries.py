"""Forged, flipped and replayed bytes: how many does a side take as true? It must be none.

- frames to the gateway: bytes of chance behind a true header, true frames with 1 to 8 bits flipped, and true frames
  that were read before, sent again in any order. *Taken*: a new frame, a verified alarm, a sighting.
- advertisements to the gateway: a true id with any other bytes, and true ones with bits flipped.
- downlinks to a reader, in its own firmware: forged, flipped, of another reader, of another boot, and replayed beyond
  the freshness that ADR 4 gives them.
- watermarks, stages and rows between gateway and city: forged, flipped, sealed for another topic or with another key.
"""

import random
from collections import Counter
from datetime import UTC, datetime

from gateway import uplink
from gateway.core import frames, pipeline
from gateway.core.frames import Frame, Malformed, ReaderLinks
from gateway.core.resolve import Resolver
from gateway.events import Bell, Sos
from gateway.uplink import CityKey, Forged, StageNotice, Watermark
from readers import wire
from readers.advertisement import AdvertisementError, epoch_at, parse
from tests.firmware.hosted import Hosted
from tests.gateway.core.bed import KEYS, MACS, TAGS, UTC_S, Pole, Shell, advertisement, cry

SEED = 90902
FORGED, FLIPPED, REPLAYED, ADVERTISEMENTS, DOWNLINKS, ACKS = 300_000, 300_000, 300_000, 100_000, 60_000, 60_000


def flip(chance: random.Random, data: bytes) -> bytes:
    """Return data with 1 to 8 different bits flipped."""
    whole = int.from_bytes(data, "big")
    for bit in chance.sample(range(8 * len(data)), chance.randint(1, 8)):
        whole ^= 1 << bit
    return whole.to_bytes(len(data), "big")


def true_frames(chance: random.Random) -> list[Frame]:
    """Return what three readers send in some minutes: tags, cries, bells, heartbeats."""
    found = []
    poles = [Pole(n, boot=chance.randint(2, 9)) for n in (2, 4, 7)]
    for n in range(600):
        pole = chance.choice(poles)
        tag = f"tag-{chance.randrange(20):03d}"
        raw = advertisement(tag, count=n, press=1)
        found.append(
            chance.choice(
                [
                    pole.bind((chance.randrange(60), raw)),
                    pole.see((chance.randrange(60), n)),
                    pole.sos(cry(1 + n % 3, n, tag), number=1 + n % 255),
                    pole.bell(number=1 + n % 255),
                    pole.beat(uptime_s=n),
                ]
            )
        )
    return found


def frames_taken(chance: random.Random, forged: int, flipped: int) -> int:
    """Return how many forged or flipped frames were read as a frame of a reader."""
    links = ReaderLinks.of(KEYS)
    true = [frame.payload for frame in true_frames(chance)]
    taken = 0
    for _ in range(forged):
        head = chance.choice(true)[: wire.HEADER_SIZE]
        taken += not isinstance(frames.read(links, head + chance.randbytes(chance.randint(0, 58))), Malformed)
    for _ in range(flipped):
        taken += not isinstance(frames.read(links, flip(chance, chance.choice(true))), Malformed)
    return taken


def replays_taken(chance: random.Random, count: int) -> tuple[int, Counter[str]]:
    """Return how many replayed frames had an effect that only a new one may have, and what they were told as."""
    shell = Shell()
    true = true_frames(chance)
    for frame in true:
        shell.frame(frame, later_s=0.2)
    shell.wait(10)
    verified = {event.alarm for event in shell.events if isinstance(event, Sos | Bell) and event.trust == "verified"}
    new = {kind: shell.counts.get(f"frames_kind_{kind}", 0) for kind in range(8)}
    sightings = shell.counts.get("sightings", 0)
    shell.events.clear()
    told: Counter[str] = Counter()
    taken = 0
    for n in range(count):
        shell.now_s += chance.choice((0.0, 0.001, 0.01))
        for effect in pipeline.on_frame(shell.state, chance.choice(true), shell.now_s):
            event = getattr(effect, "event", None)
            if isinstance(event, Sos | Bell) and event.alarm not in verified:
                told[event.trust] += 1
                taken += event.trust == "verified"
        if n % 500 == 0:
            pipeline.set_clock(shell.state, UTC_S + shell.now_s - 1000.0, shell.now_s, "good")
            list(pipeline.on_tick(shell.state, shell.now_s))
    for kind, before in new.items():
        taken += shell.counts.get(f"frames_kind_{kind}", 0) - before
    return taken + shell.counts.get("sightings", 0) - sightings, told


def advertisements_taken(chance: random.Random, count: int) -> int:
    """Return how many forged or flipped advertisements the gateway took as a tag's."""
    resolver = Resolver(TAGS, Counter())
    resolver.set_epoch(epoch_at(UTC_S), unsure=False)
    true = [advertisement(tag, count=n, press=n, flags=n % 2) for n, tag in enumerate(TAGS)]
    taken = 0
    for n in range(count):
        raw = chance.choice(true)
        body = raw[:9] + chance.randbytes(10) if n % 2 else flip(chance, raw)
        try:
            read = parse(body)
        except AdvertisementError:
            continue
        taken += resolver.identify(read, float(n)).outcome not in ("unknown", "forged")
    return taken


def downlinks_taken(chance: random.Random, count: int) -> int:
    """Return how many forged downlinks a reader's firmware took."""
    hosted = Hosted(seed=SEED)
    key = bytes(range(100, 116))
    own, other = frames.mac_of(key), MACS[2]
    bodies = {
        wire.ACK: wire.encode_ack(1, [(3, 5, 9)]),
        wire.STAGE: wire.encode_stage([(1, wire.ACKNOWLEDGED)]),
        wire.SETTINGS: wire.encode_settings([9, 2000, 20, 5, 60, 60, 0xFFFF]),
    }
    hosted.link.boot, hosted.link.sequence = 7, 500
    taken = 0
    for n in range(count):
        kind = chance.choice(list(bodies))
        true = wire.encode(kind, 7, 7, 500, bodies[kind], own)
        body = bodies[kind]
        hosted.deliver(
            (
                flip(chance, true),
                true[: -wire.MAC_SIZE] + chance.randbytes(wire.MAC_SIZE),
                wire.encode(kind, 7, 7, 500, body, other),
                wire.encode(kind, 8, 7, 500, body, own),
                wire.encode(kind, 7, chance.choice((6, 8, 0x8007)), 500, body, own),
                wire.encode(kind, 7, 7, chance.choice((0, 400, 435, 501, 0xFFFFFF)), body, own),
                true[: chance.randrange(len(true))],
            )[n % 7]
        )
        taken += hosted.call(hosted.link.receive) is not None
    hosted.deliver(wire.encode(wire.STAGE, 7, 7, 499, bodies[wire.STAGE], own))
    assert hosted.call(hosted.link.receive) is not None, "this reader takes nothing at all"
    return taken


def seals_taken(chance: random.Random, count: int) -> int:
    """Return how many forged messages of either direction between gateway and city were opened."""
    keys = (CityKey(3, chance.randbytes(32)), CityKey(2, chance.randbytes(32)))
    strange = (CityKey(3, chance.randbytes(32)),)
    topics = [uplink.topic("s", gateway, kind) for gateway in ("gw1", "gw2") for kind in ("ack", "sos", "events")]
    bodies = [
        uplink.encode_ack(Watermark(epoch="e1", lane="sos", upto=2**31)),
        uplink.encode_ack(StageNotice(alarm="gw1-e1-1", stage="acknowledged", at=datetime(2027, 1, 1, tzinfo=UTC))),
    ]
    taken = 0
    for n in range(count):
        topic, body = chance.choice(topics), chance.choice(bodies)
        true = uplink.seal(keys, topic, body)
        assert n % 1000 or uplink.unseal(keys, topic, true) == body
        other = chance.choice([each for each in topics if each != topic])
        data = (
            flip(chance, true),
            body,
            body + chance.randbytes(17),
            uplink.seal(strange, topic, body),
            uplink.seal(keys, other, body),
            true[:-1],
        )[n % 6]
        try:
            uplink.unseal(keys, topic, data)
            taken += 1
        except Forged:
            pass
    return taken


def run(scale: float = 1.0, *, seed: int = SEED) -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    forged, flipped, replayed = (int(scale * each) for each in (FORGED, FLIPPED, REPLAYED))
    advertisements, downlinks, acks = (int(scale * each) for each in (ADVERTISEMENTS, DOWNLINKS, ACKS))
    replays, told = replays_taken(chance, replayed)
    return {
        "frames": forged + flipped + replayed + advertisements,
        "frames_taken": frames_taken(chance, forged, flipped),
        "replays_taken": replays,
        "replays_told_as": ", ".join(f"{trust} {count}" for trust, count in sorted(told.items())) or "nothing",
        "advertisements_taken": advertisements_taken(chance, advertisements),
        "downlinks_and_acks": downlinks + acks,
        "downlinks_taken": downlinks_taken(chance, downlinks),
        "acks_taken": seals_taken(chance, acks),
    }
