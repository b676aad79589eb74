"""The mesh between readers and coordinator: which readers are in, what is late or lost, and that senders learn it."""

import pytest

from sim.air.hops import HEAL_S
from sim.air.mesh import APS_TRIES, LOSS, STICK_WAIT_MS, TIMEOUT_MS, link_key
from sim.ncp.messages import Unicast
from tests.sim.air.bed import ENDPOINTS, JOINED_S, down, joined_mesh, mesh, run, up


def test_the_link_key_of_an_install_code_is_the_standards_own_example() -> None:
    code = bytes.fromhex("83FED3407A939723A5C639B26916D505C3B5")
    assert link_key(code).hex() == "66b6900981e1ee3ca4206b6b861c02bb"


def test_a_reader_that_is_not_in_is_told_so_at_once() -> None:
    made = mesh()
    made.mesh.on_transmit(made.readers[0], 0.0, b"x", ENDPOINTS)
    assert made.readers[0].done == [(0.0, "ENOTCONN")]


def test_readers_try_until_they_are_let_in_with_their_own_keys() -> None:
    made = mesh(3)
    made.coordinator.open = False
    made.mesh.start_joining()
    run(made, 10.0)
    assert made.mesh.joined() == []
    made.coordinator.open = True
    run(made, 13.0)
    assert made.mesh.joined() == [1, 2, 3]
    assert len(set(made.coordinator.keys)) == 3
    assert made.mesh.counts.joins == 3


def test_a_frame_arrives_late_and_its_sender_learns_later_still() -> None:
    made = joined_mesh(3, away_m=70.0)
    up(made, 3)
    run(made, JOINED_S + 3.0)
    (message,) = made.coordinator.received
    assert message["payload"] == b"report"
    assert (message["profile_id"], message["cluster_id"]) == (0xC105, 0x11)
    ((at_ms, error),) = made.readers[2].done
    assert error is None
    assert 3 * 2 * 4 <= at_ms - JOINED_S * 1000 <= 3 * 2 * 16, "three hops there and three back"
    assert made.mesh.stations[3].hops == 3
    assert made.mesh.counts.hops == 6


def test_fates_are_in_proportion_and_a_time_out_takes_its_time() -> None:
    made = joined_mesh(1)
    seen: list[bool] = []
    made.mesh.on_frame = lambda number, sent_s, payload, arrived: seen.append(arrived)
    for n in range(4000):
        up(made, 1, at_s=JOINED_S + n / 1000)
    run(made, 60.0)
    lost = seen.count(False)
    assert lost == made.mesh.counts.lost_up
    assert 0.4 * LOSS * 4000 < lost < 2 * LOSS * 4000
    errors = [error for _, error in made.readers[0].done if error]
    assert len(errors) == lost + made.mesh.counts.ack_lost
    assert set(errors) == {"ETIMEDOUT"}
    assert made.mesh.counts.ack_lost > 0
    assert made.mesh.counts.aps_repeats == (APS_TRIES - 1) * len(errors)
    assert made.mesh.counts.lost_up_scanning == made.mesh.counts.ack_lost_scanning == 0


def test_one_readers_frames_change_nothing_for_anothers() -> None:
    def fates(others: int) -> list[tuple[float, str | None]]:
        made = joined_mesh(2)
        for n in range(200):
            up(made, 1, at_s=JOINED_S + n / 1000)
            for _ in range(others):
                up(made, 2, b"y", at_s=JOINED_S + n / 1000)
        run(made, 30.0)
        done: list[tuple[float, str | None]] = made.readers[0].done
        return done

    assert fates(0) == fates(3)


@pytest.mark.parametrize(("room", "ok"), [(4, True), (0, False)])
def test_the_gateway_learns_whether_a_reader_took_its_frame(room: int, ok: bool) -> None:
    made = joined_mesh()
    made.readers[0].room = room
    down(made, 1, handle=7)
    made.coordinator.on_unicast(Unicast(8, 0x0BAD, 0xC105, 0x11, 0xE8, 0xE8, b"stage", 1, True))
    run(made, JOINED_S + 2 * APS_TRIES * STICK_WAIT_MS / 1000)
    assert sorted(made.coordinator.fates) == [(7, ok), (8, False)]
    assert made.readers[0].queue == ([b"stage"] if ok else [])
    assert made.mesh.counts.lost_down == (not ok)


def test_a_full_queue_that_is_emptied_in_time_takes_the_repetition() -> None:
    made = joined_mesh()
    made.readers[0].room = 0
    made.clock.after(1.0, lambda: setattr(made.readers[0], "room", 4))
    down(made, 1, handle=7)
    run(made, JOINED_S + 10)
    assert made.coordinator.fates == [(7, True)]
    assert made.mesh.counts.aps_repeats == 1


def test_a_frame_that_the_host_does_not_take_is_refused_and_not_lost() -> None:
    made = joined_mesh()
    seen: list[bool] = []
    made.mesh.on_frame = lambda number, sent_s, payload, arrived: seen.append(arrived)
    made.coordinator.listens = False
    up(made, 1)
    run(made, JOINED_S + 3)
    assert (made.mesh.counts.refused_up, made.mesh.counts.lost_up, seen) == (1, 0, [False])
    assert made.readers[0].done == [(JOINED_S * 1000 + TIMEOUT_MS, "ETIMEDOUT")]


def test_nothing_gets_through_a_deaf_mesh() -> None:
    made = joined_mesh()
    made.mesh.deaf = True
    up(made, 1)
    run(made, JOINED_S + 3)
    assert made.coordinator.received == []
    assert made.readers[0].done == [(JOINED_S * 1000 + TIMEOUT_MS, "ETIMEDOUT")]


def test_a_module_that_was_reset_forgets_its_frame() -> None:
    made = joined_mesh()
    made.mesh.deaf = True
    up(made, 1)
    made.readers[0].transmissions += 1
    made.mesh.deaf = False
    run(made, JOINED_S + 3)
    assert len(made.coordinator.received) <= 1
    assert made.mesh.counts.aps_repeats == 0


# ---- relays ---------------------------------------------------------------------------------------------------------


def test_without_its_only_relay_a_reader_is_cut_off_and_learns_that_there_is_no_route() -> None:
    made = joined_mesh(2, away_m=70.0)
    made.mesh.power(1, False)
    up(made, 2)
    run(made, JOINED_S + HEAL_S + 1)
    up(made, 2)
    run(made, JOINED_S + HEAL_S + 4)
    assert made.coordinator.received == []
    assert [error for _, error in made.readers[1].done] == ["ETIMEDOUT", "ENOTCONN"]
    assert made.mesh.counts.hops_lost_power == APS_TRIES
    assert made.mesh.counts.no_route == APS_TRIES
    made.mesh.power(1, True)
    run(made, JOINED_S + 2 * HEAL_S + 4)
    up(made, 2)
    run(made, JOINED_S + 2 * HEAL_S + 5)
    assert len(made.coordinator.received) == 1


def test_a_reader_that_joined_before_its_relay_has_a_route_as_soon_as_that_has_joined() -> None:
    made = mesh(2, away_m=70.0)
    made.readers[0].alive = False
    made.mesh.start_joining()
    run(made, JOINED_S)
    assert made.mesh.joined() == [2]
    up(made, 2)
    run(made, JOINED_S + 2)
    made.readers[0].alive = True
    run(made, JOINED_S + 4)
    assert made.mesh.joined() == [1, 2]
    up(made, 2)
    run(made, JOINED_S + 5)
    assert [error for _, error in made.readers[1].done] == ["ENOTCONN", None]


def test_another_relay_takes_over_after_some_seconds() -> None:
    made = mesh(1, away_m=70.0)
    for number, at in ((2, (60.0, 20.0)), (3, (140.0, 0.0))):
        made.readers.append(type(made.readers[0])(number))
        made.mesh.add(made.readers[-1], bytes(7) + bytes([number]), at, (0.0, 0.0))
    made.mesh.start_joining()
    run(made, JOINED_S)
    relays = made.mesh._relays.way(3, JOINED_S, lambda _: True)
    assert relays == (1,), "the shorter hops"
    made.mesh.power(1, False)
    up(made, 3, b"lost")
    run(made, JOINED_S + HEAL_S + 0.1)
    up(made, 3, b"round")
    run(made, JOINED_S + HEAL_S + 1)
    assert [message["payload"] for message in made.coordinator.received] == [b"round"]
    assert [error for _, error in made.readers[2].done] == ["ETIMEDOUT", None]


@pytest.mark.parametrize(("relays", "fits"), [(0, 66), (1, 62), (2, 60), (8, 48)])
def test_a_frame_down_shares_its_66_bytes_with_the_source_route(relays: int, fits: int) -> None:
    made = mesh(relays + 1, away_m=70.0)
    made.mesh.start_joining()
    run(made, 20.0)
    down(made, relays + 1, bytes(fits), handle=1)
    run(made, 26.0)
    assert made.readers[relays].queue == [bytes(fits)]
    if relays:
        down(made, relays + 1, bytes(fits + 1), handle=2)
        run(made, 32.0)
        assert made.coordinator.fates == [(1, True), (2, False)]
        assert (made.mesh.counts.too_long_down, made.mesh.counts.lost_down) == (1, 1)
    up(made, relays + 1, bytes(66))
    run(made, 34.0)
    assert made.coordinator.received[-1]["payload"] == bytes(66), "a reader's frame carries no route"
