"""ASH: frames byte for byte as UG101 prints them, and the NCP's end of a link under a clock that moves when told."""

from __future__ import annotations

import random

import bellows.ash
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.ncp import ash
from sim.ncp.ash import CANCEL, DATA_FIELD_MAX, AshFrame, Decoder, FrameKind, MalformedAsh, encode
from sim.ncp.ash_link import (
    ERROR_ACK_TIMEOUTS,
    INBOX_MAX,
    OUTBOX_MAX,
    RESET_SOFTWARE,
    T_RX_ACK_MAX_S,
    T_RX_ACK_START_S,
    T_TX_ACK_DELAY_S,
    T_XOFF_MAX_S,
    WINDOW_MAX,
    AshLink,
    Reset,
)

RST = bytes((CANCEL,)) * 32 + encode(AshFrame(FrameKind.RST))


def frames(data: bytes) -> list[AshFrame | MalformedAsh | bool]:
    decoder, out = Decoder(), []
    decoder.receive_data(data)
    while (frame := decoder.next_frame()) is not None:
        out.append(frame)
    return out


def inbox(link: AshLink) -> list[bytes | Reset]:
    return list(iter(link.next_frame, None))


def data(number: int, payload: bytes = b"\x00\x00\x00\x02", *, ack: int = 0, again: bool = False) -> bytes:
    return encode(AshFrame(FrameKind.DATA, payload, number, again, ack))


def ack(number: int, *, not_ready: bool = False) -> bytes:
    return encode(AshFrame(FrameKind.ACK, ack=number, not_ready=not_ready))


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (AshFrame(FrameKind.RST), "c0 38 bc 7e"),
        (AshFrame(FrameKind.RSTACK, b"\x02\x02"), "c1 02 02 9b 7b 7e"),
        (AshFrame(FrameKind.DATA, bytes((0, 0, 0, 2)), 2, False, 5), "25 42 21 a8 56 a6 09 7e"),
        (AshFrame(FrameKind.ACK, ack=1), "81 60 59 7e"),
        (AshFrame(FrameKind.ACK, ack=6, not_ready=True), "8e 91 b6 7e"),
        (AshFrame(FrameKind.NAK, ack=6), "a6 34 dc 7e"),
        (AshFrame(FrameKind.NAK, ack=5, not_ready=True), "ad 85 b7 7e"),
    ],
)
def test_the_frames_printed_in_ug101(frame: AshFrame, line: str) -> None:
    assert encode(frame) == bytes.fromhex(line)
    assert frames(bytes.fromhex(line)) == [frame]


def test_reserved_bytes_are_escaped_and_only_they() -> None:
    raw = bytes(range(256))
    stuffed = ash.stuff(raw)
    assert len(stuffed) == 256 + 6
    assert not set(stuffed) & (ash.RESERVED - {ash.ESC})


@given(
    payload=st.binary(min_size=3, max_size=128), number=st.integers(0, 7), wanted=st.integers(0, 7), again=st.booleans()
)
def test_another_implementation_reads_what_is_written_and_writes_what_is_read(
    payload: bytes, number: int, wanted: int, again: bool
) -> None:
    ours = encode(AshFrame(FrameKind.DATA, payload, number, again, wanted))
    theirs = bellows.ash.DataFrame(frm_num=number, re_tx=again, ack_num=wanted, ezsp_frame=payload)
    assert bellows.ash.AshProtocol._stuff_bytes(theirs.to_bytes()) + b"\x7e" == ours


@given(payload=st.binary(max_size=DATA_FIELD_MAX))
def test_any_payload_comes_back(payload: bytes) -> None:
    assert frames(data(3, payload, ack=6)) == [AshFrame(FrameKind.DATA, payload, 3, False, 6)]


def test_a_payload_too_long_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="at most 220"):
        AshLink().send(bytes(DATA_FIELD_MAX + 1))
    with pytest.raises(ValueError, match="at most 220"):
        data(0, bytes(DATA_FIELD_MAX + 1))


def test_what_a_receiver_lost_is_ignored_up_to_the_next_flag() -> None:
    whole = ack(3)
    assert frames(whole[:2] + b"\x18" + whole) == []
    assert frames(whole[:2] + b"\x18" + whole + ack(4)) == [AshFrame(FrameKind.ACK, ack=4)]
    assert frames(whole[:2] + b"\x1a" + whole) == [AshFrame(FrameKind.ACK, ack=3)]
    assert frames(whole[:2] + b"\x11\x13" + whole[2:]) == [True, False, AshFrame(FrameKind.ACK, ack=3)]


def test_any_flipped_bit_is_refused() -> None:
    whole = data(1, bytes(range(20)))
    for at in range(8 * (len(whole) - 1)):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        assert not any(isinstance(f, AshFrame) for f in frames(bytes(damaged))), at


_noise = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(data, st.integers(0, 7), st.binary(max_size=30), ack=st.integers(0, 7), again=st.booleans()),
        st.builds(ack, st.integers(0, 7), not_ready=st.booleans()),
        st.builds(lambda n: encode(AshFrame(FrameKind.NAK, ack=n)), st.integers(0, 7)),
        st.just(RST),
    ),
    max_size=20,
).map(b"".join)


@given(noise=_noise, sends=st.integers(1, 7))
@settings(max_examples=200)
def test_whole_is_the_same_as_byte_by_byte(noise: bytes, sends: int) -> None:
    whole, bitwise = AshLink(), AshLink()
    for link in (whole, bitwise):
        for number in range(sends):
            link.send(bytes((number,)) * 4)
        assert link.data_to_send(0.0)
    whole.receive_data(noise, 0.5)
    for byte in noise:
        bitwise.receive_data(bytes((byte,)), 0.5)
    assert whole.data_to_send(0.6) == bitwise.data_to_send(0.6)
    assert inbox(whole) == inbox(bitwise)
    assert whole.counters == bitwise.counters
    assert whole.next_deadline_s() == bitwise.next_deadline_s()


@given(noise=st.binary(max_size=6000))
@settings(max_examples=50)
def test_noise_neither_raises_nor_grows(noise: bytes) -> None:
    link = AshLink()
    link.receive_data(noise, 0.0)
    assert len(inbox(link)) <= INBOX_MAX + 1
    assert len(link.data_to_send(1.0)) <= 5 * len(noise) + 8


def test_the_host_resets_a_link_with_cancels_and_rst() -> None:
    link = AshLink()
    link.send(b"lost")
    link.data_to_send(0.0)
    link.receive_data(b"\x7d\x21garbage" + RST, 1.0)
    assert inbox(link) == [Reset()]
    link.receive_data(data(0), 1.0)
    assert inbox(link) == [], "a chip that restarts hears nothing"
    link.reset()
    assert frames(link.data_to_send(1.0)) == [AshFrame(FrameKind.RSTACK, bytes((2, RESET_SOFTWARE)))]
    link.receive_data(data(0), 1.1)
    assert inbox(link) == [b"\x00\x00\x00\x02"]


def test_at_most_five_frames_are_on_the_way_and_each_ack_lets_more_go() -> None:
    link = AshLink()
    for number in range(12):
        assert link.send(bytes((number,)) * 8)
    out = frames(link.data_to_send(0.0))
    assert [f.number for f in out] == [0, 1, 2, 3, 4]
    assert link.in_flight == WINDOW_MAX
    assert link.data_to_send(0.0) == b""
    link.receive_data(ack(3), 0.1)
    assert [f.number for f in frames(link.data_to_send(0.1))] == [5, 6, 7]
    link.receive_data(ack(0), 0.2)
    assert [(f.number, f.data[0]) for f in frames(link.data_to_send(0.2))] == [(0, 8), (1, 9), (2, 10), (3, 11)]
    link.receive_data(ack(7), 0.2)
    assert link.counters.bad_ack_numbers == 1, "7 was acknowledged before; it is no longer in the window"


def test_long_frames_never_fill_a_hosts_receive_buffer() -> None:
    link = AshLink()
    for _ in range(8):
        link.send(bytes.fromhex("7e7d1113181a") * 36)
    assert len(frames(out := link.data_to_send(0.0))) >= 2
    assert len(out) < 1024


def test_an_ack_waits_20_ms_for_data_to_ride_on() -> None:
    link = AshLink()
    link.receive_data(data(0), 1.0)
    assert link.data_to_send(1.0) == b""
    assert link.next_deadline_s() == pytest.approx(1.0 + T_TX_ACK_DELAY_S)
    assert frames(link.data_to_send(1.0 + T_TX_ACK_DELAY_S)) == [AshFrame(FrameKind.ACK, ack=1)]
    assert link.next_deadline_s() is None
    link.receive_data(data(1), 2.0)
    link.send(b"answer")
    assert frames(link.data_to_send(2.0)) == [AshFrame(FrameKind.DATA, b"answer", 0, False, 2)]
    assert frames(link.data_to_send(2.1)) == [], "the ack has gone with the data"


def test_a_frame_sent_again_is_acknowledged_at_once_and_not_taken_twice() -> None:
    link = AshLink()
    link.receive_data(data(0), 0.0)
    link.data_to_send(0.1)
    link.receive_data(data(0, again=True), 2.0)
    assert frames(link.data_to_send(2.0)) == [AshFrame(FrameKind.ACK, ack=1)]
    assert len(inbox(link)) == 1
    assert link.counters.duplicates == 1


def test_a_damaged_frame_is_rejected_once_until_the_right_one_comes() -> None:
    link = AshLink()
    damaged = bytearray(data(0))
    damaged[3] ^= 1
    link.receive_data(bytes(damaged) + data(1) + bytes(damaged) + data(2), 0.0)
    assert frames(link.data_to_send(0.0)) == [AshFrame(FrameKind.NAK, ack=0)]
    assert inbox(link) == []
    link.receive_data(data(0, again=True) + data(1, again=True), 0.1)
    assert len(inbox(link)) == 2
    link.receive_data(data(5), 0.2)
    assert [f.kind for f in frames(link.data_to_send(0.2))] == [FrameKind.NAK], "the condition was lifted in between"


def test_a_damaged_ack_is_ignored() -> None:
    link = AshLink()
    damaged = bytearray(ack(1))
    damaged[1] ^= 1
    link.receive_data(bytes(damaged), 0.0)
    assert link.data_to_send(0.1) == b""
    assert link.counters.malformed == 1


def test_a_nak_sends_everything_from_that_frame_again() -> None:
    link = AshLink()
    for number in range(4):
        link.send(bytes((number,)) * 4)
    link.data_to_send(0.0)
    link.receive_data(encode(AshFrame(FrameKind.NAK, ack=2)), 0.1)
    again = frames(link.data_to_send(0.1))
    assert [(f.number, f.retransmitted) for f in again] == [(2, True), (3, True)]


def test_unanswered_frames_go_again_slower_each_time_then_the_link_fails_and_only_rst_heals() -> None:
    link = AshLink()
    link.send(b"data")
    link.data_to_send(0.0)
    now_s, waits = 0.0, []
    while link.failed_code is None:
        deadline_s = link.next_deadline_s()
        assert deadline_s is not None
        waits.append(deadline_s - now_s)
        now_s = deadline_s
        link.on_time(now_s)
        out = frames(link.data_to_send(now_s))
    assert waits == pytest.approx([T_RX_ACK_START_S, T_RX_ACK_MAX_S, T_RX_ACK_MAX_S, T_RX_ACK_MAX_S])
    assert out == [AshFrame(FrameKind.ERROR, bytes((2, ERROR_ACK_TIMEOUTS)))]
    assert link.counters.retransmitted == 3
    assert not link.send(b"more")
    for heard in (data(0), ack(1), b"\x01\x02\x03\x04\x7e"):
        link.receive_data(heard, now_s)
        assert frames(link.data_to_send(now_s)) == [AshFrame(FrameKind.ERROR, bytes((2, ERROR_ACK_TIMEOUTS)))]
    link.receive_data(RST, now_s)
    assert inbox(link) == [Reset()]
    assert link.failed_code is None


def test_the_time_out_follows_the_line() -> None:
    link = AshLink()
    link.send(b"data")
    link.data_to_send(10.0)
    link.receive_data(ack(1), 10.2)
    assert link.t_rx_ack_s == pytest.approx(7 / 8 * 1.6 + 0.1)
    for number in range(1, 60):
        link.send(b"data")
        link.data_to_send(20.0)
        link.receive_data(ack((number + 1) & 7), 20.01)
    assert link.t_rx_ack_s == pytest.approx(0.4)


def test_a_host_that_is_not_ready_gets_no_callbacks_for_a_second_at_most() -> None:
    link = AshLink()
    link.receive_data(ack(0, not_ready=True), 5.0)
    assert not link.host_ready
    assert link.next_deadline_s() == pytest.approx(6.0)
    link.on_time(6.0)
    assert link.host_ready
    link.receive_data(ack(0, not_ready=True), 7.0)
    link.receive_data(ack(0), 7.1)
    assert link.host_ready


def test_xoff_holds_the_line_until_xon_or_its_own_limit() -> None:
    link = AshLink()
    link.receive_data(b"\x13", 0.0)
    link.send(b"data")
    assert link.data_to_send(0.1) == b""
    link.receive_data(b"\x11", 0.2)
    assert len(frames(link.data_to_send(0.2))) == 1
    link.receive_data(b"\x13", 1.0)
    link.receive_data(data(0, ack=1), 1.0)
    deadline_s = link.next_deadline_s()
    assert deadline_s == pytest.approx(1.0 + T_XOFF_MAX_S), "no busy loop on the acknowledgement that waits"
    link.on_time(deadline_s)
    assert frames(link.data_to_send(deadline_s)) == [AshFrame(FrameKind.ACK, ack=1)]


def test_every_queue_has_an_end() -> None:
    link = AshLink()
    taken = sum(link.send(b"data") for _ in range(100))
    assert taken == OUTBOX_MAX
    assert link.counters.outbox_full == 100 - OUTBOX_MAX
    for number in range(INBOX_MAX + 1):
        link.receive_data(data(number & 7), 0.0)
    assert link.counters.inbox_full == 1
    assert frames(link.data_to_send(0.0))[0] == AshFrame(FrameKind.NAK, ack=0), "no room: please send it again"
    assert len(inbox(link)) == INBOX_MAX
    link.receive_data(data(0, again=True), 0.1)
    assert len(inbox(link)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_over_a_bad_line_every_payload_arrives_once_and_in_order(seed: int) -> None:
    """Two ends of this implementation, bytes lost and flipped between them, time in steps of 10 ms."""
    rng = random.Random(seed)
    left, right = AshLink(), AshLink()
    wanted = [rng.randbytes(rng.randrange(3, 60)) for _ in range(120)]
    to_send, got, back = list(wanted), [], 0
    now_s = 0.0

    def damaged(line: bytes) -> bytes:
        out = bytearray()
        for byte in line:
            chance = rng.random()
            if chance > 0.0008:
                out.append(byte ^ (1 << rng.randrange(8)) if chance > 0.9992 else byte)
        return bytes(out)

    while len(got) < len(wanted) and now_s < 600:
        now_s += 0.01
        while to_send and left.room and left.send(to_send[0]):
            to_send.pop(0)
        for sender, receiver in ((left, right), (right, left)):
            sender.on_time(now_s)
            receiver.receive_data(damaged(sender.data_to_send(now_s)), now_s)
        for payload in inbox(right):
            assert not isinstance(payload, Reset)
            got.append(payload)
            right.send(payload[:3])
        back += len(inbox(left))
        assert (left.failed_code, right.failed_code) == (None, None), (seed, now_s)
    assert got == wanted, f"seed {seed}"
    assert left.counters.retransmitted > 0
    assert right.counters.malformed > 0
