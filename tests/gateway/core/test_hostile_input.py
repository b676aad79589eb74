"""No frame, clock value or snapshot breaks the core, and no flood makes a table grow without limit."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.effects import Commit
from gateway.events import Event, ReaderHealth, Sos, is_emergency
from gateway.uplink import Urgent, decode_urgent, encode_row, encode_urgent
from readers import wire
from tests.gateway.core.bed import KEYS, MACS, Pole, Shell, advertisement, alarms, events


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x94\x01", b"{}", bytes(300)])
def test_a_snapshot_that_cannot_be_read_changes_nothing(garbage: bytes) -> None:
    shell = Shell()
    before = pipeline.snapshot(shell.state)
    with pytest.raises(ValueError, match="snapshot"):
        pipeline.restore(shell.state, garbage)
    assert pipeline.snapshot(shell.state) == before


frames_ = st.one_of(
    st.binary(max_size=70),
    st.tuples(
        st.integers(0, 15), st.sampled_from(sorted(KEYS)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF),
        st.binary(max_size=wire.BODY_MAX),
    ).map(lambda f: wire.encode(f[0], f[1], f[2], f[3], f[4], MACS[f[1]])),
    st.tuples(st.integers(1, 200), st.binary(min_size=25, max_size=25)).map(
        lambda both: wire.encode(wire.SOS, 4, 1, both[0], both[1], MACS[4])
    ),
    st.tuples(st.integers(1, 200), st.binary(min_size=6, max_size=6)).map(
        lambda both: wire.encode(wire.BELL, 4, 1, both[0], both[1], MACS[4])
    ),
)  # fmt: skip


@given(
    st.lists(st.tuples(frames_, st.floats(0, 500), st.integers(0, 7)), max_size=30),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_nothing_from_the_air_and_no_clock_breaks_the_core(
    story: list[tuple[bytes, float, int]], clocks: list[float]
) -> None:
    shell = Shell()
    for payload, later_s, stage in story:
        for event in shell.carry(pipeline.on_frame(shell.state, Frame(1, None, None, payload), shell.now_s)):
            if isinstance(event, Commit):
                check(event.event)
        shell.carry(pipeline.on_tick(shell.state, shell.now_s + later_s))
        shell.now_s += later_s
        if shell.memories:
            shell.stage(next(iter(shell.memories.values())).alarm, stage)
        if clocks:
            pipeline.set_clock(shell.state, clocks.pop(), shell.now_s, "good")
    shell.restart()
    assert pipeline.next_deadline_s(shell.state) >= shell.now_s - 1


def check(event: Event) -> None:
    """Assert that the city can be sent this event, and that an emergency is read there as it was written."""
    if is_emergency(event):
        message = Urgent(gateway="gw1", epoch="e1", seq=1, after=0, queued_at=event.observed_at, event=event)  # type: ignore[arg-type]
        assert decode_urgent(encode_urgent(message)) == message
    else:
        assert encode_row(event)  # type: ignore[arg-type]


def test_a_storm_leaves_every_table_bounded() -> None:
    """10 000 frames: random bytes, forged tags, a faulty reader. One true cry comes in the middle."""
    shell, mad = Shell(), Pole(4)
    rng = random.Random(3)

    def storm() -> Iterator[Frame]:
        for n in range(10_000):
            kind = n % 4
            if kind == 0:
                yield Frame(1, None, None, rng.randbytes(66))
            elif kind == 1:
                yield mad.bind((rng.randrange(256), b"\x10" + rng.randbytes(18)))
            elif kind == 2:
                yield mad.see(*((rng.randrange(256), rng.randrange(32)) for _ in range(13)))
            else:
                yield mad.sos(b"\x10" + rng.randbytes(8) + b"\x01" + rng.randbytes(9), number=rng.randrange(256))

    for n, frame in enumerate(storm()):
        shell.frame(frame, later_s=0.001)
        if n == 5000:
            [true] = events(shell.frame(Pole(5).sos(advertisement(flags=wire.FLAG_SOS))), Sos)
            assert true.trust == "verified"
    counts = shell.counts
    assert counts["alarms"] <= 7
    assert counts["slots_bound"] <= 256
    assert counts["unknown_ids"] <= 4096
    assert len(alarms(shell.events)) <= 7
    assert counts["rebinds_asked"] <= 6
    assert len(pipeline.snapshot(shell.state)) < 1000
    assert not [e for e in shell.events if isinstance(e, ReaderHealth) and e.state == "silent"]
