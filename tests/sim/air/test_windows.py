"""What scan windows cost the mesh from end to end: repetitions, failed sends, lost frames, each with its cause."""

import pytest

from sim.air.hops import Mac
from sim.air.mesh import APS_TRIES, READER_WAIT_MS, STICK_WAIT_MS, TIMEOUT_MS
from tests.sim.air.bed import JOINED_S, down, joined_mesh, run, up

ALWAYS = (20.0, 20.0, 0.0)
NOW_MS = JOINED_S * 1000


def test_a_reader_that_listens_all_the_time_is_deaf_and_dumb() -> None:
    made = joined_mesh()
    made.readers[0].duty = ALWAYS
    up(made, 1)
    down(made, 1, handle=3)
    run(made, JOINED_S + 10)
    counts = made.mesh.counts
    assert made.coordinator.received == made.readers[0].queue == []
    assert made.readers[0].done == [(NOW_MS + TIMEOUT_MS, "ETIMEDOUT")]
    assert made.coordinator.fates == [(3, False)]
    assert (counts.lost_up, counts.lost_up_scanning, counts.lost_down, counts.lost_down_scanning) == (1, 1, 1, 1)
    assert counts.tries_lost_own == counts.tries_lost_theirs == APS_TRIES * Mac().tries
    assert counts.hops_lost_scanning == 2 * APS_TRIES
    assert counts.aps_repeats == 2 * (APS_TRIES - 1)


def test_a_relay_that_listens_all_the_time_relays_nothing() -> None:
    made = joined_mesh(2, away_m=70.0)
    made.readers[0].duty = ALWAYS
    up(made, 2)
    run(made, JOINED_S + 3)
    assert made.coordinator.received == []
    assert made.mesh.counts.lost_up_scanning == 1
    assert made.mesh.counts.tries_lost_own == 0
    assert made.mesh.counts.tries_lost_theirs == APS_TRIES * Mac().tries
    up(made, 1)
    made.readers[0].duty = None
    run(made, JOINED_S + 5)
    assert len(made.coordinator.received) == 1


def test_the_coordinator_never_listens_so_one_hop_down_needs_only_the_receivers_window() -> None:
    made = joined_mesh(1, mac=Mac(own_windows=False))
    made.readers[0].duty = ALWAYS
    up(made, 1)
    run(made, JOINED_S + 3)
    assert len(made.coordinator.received) == 1, "it can send, and hears no acknowledgement"
    assert made.readers[0].done == [(NOW_MS + TIMEOUT_MS, "ETIMEDOUT")]
    counts = made.mesh.counts
    assert (counts.lost_up, counts.ack_lost, counts.ack_lost_scanning, counts.aps_repeats) == (0, 1, 1, APS_TRIES - 1)


def test_a_frame_whose_first_try_meets_a_window_arrives_one_wait_later() -> None:
    made = joined_mesh()
    seen: list[tuple[float, bool]] = []
    made.mesh.on_frame = lambda number, sent_s, payload, arrived: seen.append((made.clock.now_s, arrived))
    made.readers[0].duty = (100.0, 1e9, NOW_MS)
    up(made, 1)
    run(made, JOINED_S + 3)
    ((at_s, arrived),) = seen
    assert arrived
    assert READER_WAIT_MS + 4 <= at_s * 1000 - NOW_MS <= READER_WAIT_MS + 16
    assert made.readers[0].done[0][1] is None
    assert made.mesh.counts.aps_repeats == 1


def test_a_repetition_of_a_frame_that_arrived_is_dropped_and_acknowledged() -> None:
    made = joined_mesh()
    reader = made.readers[0]

    def listen(*_: object) -> None:
        reader.duty = (400.0, 1e9, made.clock.now_s * 1000)

    made.mesh.on_frame = listen
    up(made, 1)
    run(made, JOINED_S + 3)
    assert len(made.coordinator.received) == 1
    ((at_ms, error),) = reader.done
    assert error is None
    assert at_ms > NOW_MS + READER_WAIT_MS
    assert (made.mesh.counts.aps_repeats, made.mesh.counts.ack_lost) == (1, 0)
    assert made.mesh.counts.tries_lost_theirs == Mac().tries


def test_a_disturbed_frame_down_waits_as_the_stick_does() -> None:
    made = joined_mesh()
    seen: list[tuple[float, float, bool]] = []
    made.mesh.on_delivery = lambda number, sent_s, payload, arrived: seen.append((sent_s, made.clock.now_s, arrived))
    made.readers[0].duty = (100.0, 1e9, NOW_MS)
    down(made, 1, handle=1)
    run(made, JOINED_S + 8)
    ((sent_s, at_s, arrived),) = seen
    assert arrived
    assert sent_s == JOINED_S
    assert STICK_WAIT_MS + 4 <= at_s * 1000 - NOW_MS <= STICK_WAIT_MS + 16
    assert made.coordinator.fates == [(1, True)]


@pytest.mark.parametrize(("window_ms", "interval_ms", "least", "most"), [(5, 20, 0, 0), (10, 40, 0.05, 0.16)])
def test_windows_of_the_same_duty_differ_in_what_they_cost_one_hop(
    window_ms: float, interval_ms: float, least: float, most: float
) -> None:
    made = joined_mesh(1, seed=4)
    made.readers[0].duty = (window_ms, interval_ms, 3.0)
    for n in range(1000):
        up(made, 1, bytes(66), at_s=JOINED_S + n * 0.0437)
    run(made, 60.0)
    counts = made.mesh.counts
    print(f"seed 4: {counts}")
    assert least <= counts.hops_lost_scanning / counts.hops <= most
    assert (counts.lost_up_scanning > 0) == (least > 0), "600 ms later the window is where it was"
    assert counts.lost_up_scanning < 30


def test_readers_windows_cost_more_with_every_relay() -> None:
    lost = []
    for hops in (1, 2, 4):
        made = joined_mesh(4, away_m=70.0, seed=5)
        for n, reader in enumerate(made.readers):
            reader.duty = (5.0, 20.0, 20.0 * (n * 0.618 % 1))
        for n in range(600):
            up(made, hops, bytes(66), at_s=JOINED_S + n * 0.1037)
        run(made, 80.0)
        failed = sum(error is not None for _, error in made.readers[hops - 1].done)
        lost.append((made.mesh.counts.aps_repeats, failed))
    print(f"seed 5: {lost}")
    assert lost == sorted(lost)
    assert lost[0][0] < 0.1 * lost[-1][0]


def test_the_same_seed_and_windows_are_the_same_mesh_and_anothers_windows_matter() -> None:
    def done(seed: int, relay_phase_ms: float) -> list[tuple[float, str | None]]:
        made = joined_mesh(2, away_m=70.0, seed=seed)
        made.readers[0].duty, made.readers[1].duty = (5.0, 20.0, relay_phase_ms), (5.0, 20.0, 0.0)
        for n in range(200):
            up(made, 2, bytes(50), at_s=JOINED_S + n * 0.0337)
        run(made, 30.0)
        result: list[tuple[float, str | None]] = made.readers[1].done
        return result

    assert done(1, 5.0) == done(1, 5.0)
    assert done(1, 5.0) != done(1, 11.0)
    assert done(1, 5.0) != done(2, 5.0)
