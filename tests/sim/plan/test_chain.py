"""From children at a gate to a gateway's words: rows are those of readers, and words are held against the truth."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gateway.zone import Zone
from sim.plan import chain
from sim.plan.chain import Conditions, Decider, GateWord, Rows, judged, reported
from sim.plan.scenes import GateScene, Premises, scene
from sim.street import site as sites
from sim.street.children import Walk
from sim.street.site import Site
from sim.street.zone import zone_of

SEED, COUNT = 21, 12


@pytest.fixture(scope="module")
def site() -> Site:
    return sites.load()


@pytest.fixture(scope="module")
def zone(site: Site) -> Zone:
    return zone_of(site, [*chain.gate_poles(site.entrances[0], 901), *[p for p in site.poles if p.gate is None][:2]])


@pytest.fixture(scope="module")
def children(site: Site) -> list[GateScene]:
    return [scene("arrive", Premises(site), SEED, n) for n in range(COUNT)]


def rows_of(
    site: Site, zone: Zone, children: list[GateScene], conditions: Conditions | None = None, **more: object
) -> Rows:
    wanted = conditions or Conditions()
    return reported(children, zone, chain.air_of(site, zone, SEED, wanted), SEED, wanted, **more)  # type: ignore[arg-type]


def test_rows_come_in_the_order_of_time_one_for_a_reader_a_window_and_a_tag(
    site: Site, zone: Zone, children: list[GateScene]
) -> None:
    rows = rows_of(site, zone, children)
    assert (np.diff(rows.at_s) >= 0).all()
    assert ((rows.at_s - rows.heard_at_s > 0) & (rows.at_s - rows.heard_at_s <= 2.0)).all()
    assert set(rows.packets.tolist()) <= {1, 2, 3}
    assert len(set(zip(rows.at_s.tolist(), rows.reader.tolist(), rows.tag.tolist(), strict=True))) == len(rows.tag)
    assert set(rows.reader.tolist()) == {reader.number for reader in zone.readers}
    again = rows_of(site, zone, children)
    assert all((one == other).all() for one, other in zip(rows, again, strict=True))


def test_a_child_has_its_own_luck_whoever_else_is_there(site: Site, zone: Zone, children: list[GateScene]) -> None:
    whole, alone = rows_of(site, zone, children), rows_of(site, zone, children[3:4], numbers=[3])
    kept = whole.tag == 3
    assert (whole.rssi_dbm[kept] == alone.rssi_dbm).all()
    assert (whole.at_s[kept] == alone.at_s).all()


def test_conditions_cost_packets(site: Site, zone: Zone, children: list[GateScene]) -> None:
    usual = rows_of(site, zone, children)
    gate = {reader.number for reader in zone.readers if reader.gate}
    heard = usual.packets[np.isin(usual.reader, list(gate))].sum()
    more = rows_of(site, zone, children, Conditions(gate_duty=1.0), only=lambda reader: reader.gate is not None)
    assert 2.1 < more.packets.sum() / heard < 2.5, "a gate reader of the zone listens 7 ms in 16"
    lossy = rows_of(site, zone, children, Conditions(loss=0.3))
    assert 0.6 < lossy.packets.sum() / usual.packets.sum() < 0.8
    dead = rows_of(site, zone, children, Conditions(dead_s={901: 50.0}))
    assert dead.heard_at_s[dead.reader == 901].max() < 50.0 < dead.heard_at_s[dead.reader == 902].max()
    bodies = rows_of(site, zone, children, Conditions(bodies_db=12.0))
    assert bodies.packets.sum() < usual.packets.sum()
    silent = rows_of(site, zone, children, Conditions(silences=True))
    lost = [(silent.tag == tag).sum() - (usual.tag == tag).sum() for tag in range(COUNT)]
    assert min(lost) < -10, "somebody's id changes"
    assert max(lost) == 0, "and somebody's does not, in five minutes of fifteen"
    fast = rows_of(site, zone, children, Conditions(moving_beacon_s=0.5))
    assert fast.packets.sum() > 1.1 * usual.packets.sum()


def test_shed_rows_are_the_quiet_ones(site: Site, zone: Zone, children: list[GateScene]) -> None:
    usual = rows_of(site, zone, children)
    loud = rows_of(site, zone, children, Conditions(shed=0.5))
    some = rows_of(site, zone, children, Conditions(shed=0.5, loud_first=False))
    assert 0.45 < len(loud.tag) / len(usual.tag) < 0.65
    assert len(loud.tag) == len(some.tag)
    assert loud.rssi_dbm.mean() > usual.rssi_dbm.mean() + 1.0 > some.rssi_dbm.mean()


def test_an_engine_that_agrees_and_the_gate_tell_nearly_all_arrivals(
    site: Site, zone: Zone, children: list[GateScene]
) -> None:
    rows = rows_of(site, zone, children, only=lambda reader: reader.gate is not None)
    words, silent = chain.run(
        rows,
        [Decider(each, site.plane, children, site.school_id) for each in (zone, without_gates(zone))],
        None,
        inside=0.97,
    )
    verdict = judged(children, words)
    assert np.mean(np.array(verdict.arrivals_s) <= 20.0) > 0.9
    assert silent == [], "a zone without gates hears no crossing"


def without_gates(zone: Zone) -> Zone:
    return Zone(readers=zone.readers, places=zone.places)


def test_words_are_held_against_crossings() -> None:
    out_and_back = GateScene("made", Walk([0.0, 900.0], [(0.0, 0.0)] * 2), ((100.0, False), (300.0, True)), True)
    stays = replace(out_and_back, crossings=())
    words = [
        GateWord(0, 90.0, False),  # 10 s before the line: false
        GateWord(0, 112.0, False),
        GateWord(0, 297.5, True),  # in the gate already
        GateWord(0, 400.0, True),  # a second time: false
        GateWord(1, 50.0, False),
    ]
    verdict = judged([out_and_back, stays], words)
    assert verdict.departures_s == (12.0,)
    assert verdict.arrivals_s == (0.0,)
    assert set(verdict.false) == {words[0], words[3], words[4]}
    assert judged([out_and_back], []).arrivals_s == (math.inf,)
