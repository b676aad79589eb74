"""Whoever can publish at the broker, but has no key, deletes no row, makes no epoch and lights no lamp."""

import os
import random
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway import uplink
from gateway.mqtt import city_link, keys
from gateway.mqtt.keys import KeyFile
from gateway.uplink import Ask, CityKey, StageNotice, Watermark, encode_ack, format_keys, seal, topic
from tests.city.bed import KEYS, write_keys
from tests.gateway.mqtt.bed import AT, GATEWAY, SITE, Bed, Broker, City, needs_mosquitto, needs_nats, over

ACKS = topic(SITE, GATEWAY, "ack")
STRANGE = (CityKey(1, b"s" * 32),)
ON_BOTH = pytest.mark.parametrize(
    "kind", [pytest.param("mosquitto", marks=needs_mosquitto), pytest.param("nats", marks=needs_nats)]
)


@ON_BOTH
def test_a_forged_watermark_deletes_nothing_and_a_forged_stage_lights_nothing(tmp_path: Path, kind: str) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(3)
        await gateway.until("arrival", lambda: set(city.seqs("sos")) == {1, 2, 3})
        epoch = gateway.outbox.sos.epoch
        forged = [
            encode_ack(Watermark(epoch=epoch, lane="sos", upto=3)),
            encode_ack(Watermark(epoch=epoch, lane="sos", upto=900)),
            encode_ack(StageNotice(alarm="gw1-e-0", stage="dispatched", at=AT)),
            encode_ack(Ask(word="forged")),
        ]
        for body in forged:
            for data in (body, seal(STRANGE, ACKS, body), seal(KEYS, topic(SITE, "gw2", "ack"), body), b""):
                city.client.publish(ACKS, data, qos=1)
        city.send(StageNotice(alarm="the-true-one", stage="stored", at=AT))
        await gateway.until("the true one", lambda: gateway.stages)
        assert [stage.alarm for stage in gateway.stages] == ["the-true-one"]
        assert gateway.backlog()["sos"] == 3
        assert gateway.outbox.sos.epoch == epoch
        await gateway.until("both connections heard all", lambda: gateway.uplink.forged_acks == 2 * 4 * len(forged))
        assert gateway.uplink.counters()["uplink_forged_acks"] == 32
        (detail,) = [d for what, ok, d in gateway.said if (what, ok) == ("city_forged", False)]
        assert str(gateway.key_file) in detail
        assert not city.statuses[-1].echo

    over(tmp_path, story, kind, acks=False)


@needs_mosquitto
def test_the_report_of_forged_messages_ends_after_a_quiet_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(city_link, "FORGED_QUIET_S", 0.2)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        city.client.publish(ACKS, b"forged, and long enough", qos=1)
        await gateway.until("the report", lambda: ("city_forged", False) in gateway.words())

        def over_now() -> bool:
            gateway.uplink.publish_status()
            return ("city_forged", True) in gateway.words()

        await gateway.until("its end", over_now)

    over(tmp_path, story)


@needs_mosquitto
def test_a_true_watermark_sent_again_and_again_makes_one_new_epoch(tmp_path: Path) -> None:
    """The city was far ahead once, as an old copy of the outbox was put back. Its watermark is of an old epoch then."""

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(3)
        await gateway.until("arrival", lambda: len(set(city.seqs("sos"))) == 3)
        first = gateway.outbox.sos.epoch
        ahead = Watermark(epoch=first, lane="sos", upto=900)
        city.send(ahead)
        await gateway.until("a new epoch", lambda: gateway.outbox.sos.epoch != first)
        second = gateway.outbox.sos.epoch
        await gateway.until("the rows in it", lambda: {("sos", second, n) for n in (1, 2, 3)} <= set(city.seen))
        for _ in range(20):
            city.send(ahead)
        city.send(StageNotice(alarm="last", stage="stored", at=AT))
        await gateway.until("the last of it", lambda: gateway.stages)
        assert gateway.outbox.sos.epoch == second
        assert gateway.backlog()["sos"] == 3
        assert [what for what, _, _ in gateway.said].count("sos_store_rolled_back") == 1

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_the_city_is_answered_with_its_word_but_not_more_often_than_once_a_second(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        city.send(Ask(word="first"))
        await gateway.until("the answer", lambda: city.statuses and city.statuses[-1].echo == "first")
        before = len(city.statuses)
        for n in range(200):
            city.send(Ask(word=f"again-{n}"))
        city.send(StageNotice(alarm="last", stage="stored", at=AT))
        await gateway.until("the last of it", lambda: gateway.stages)
        assert len(city.statuses) - before <= 3
        gateway.uplink.publish_status()
        await gateway.until("the newest word", lambda: city.statuses[-1].echo == "again-199")

    over(tmp_path, story)


@needs_mosquitto
def test_a_new_key_is_taken_while_running_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "CHECK_S", 0.02)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        city.keys = both = uplink.with_new_key(KEYS, b"n" * 32)
        await gateway.cry()
        await gateway.until("the cry, sealed with the old key", lambda: city.seqs("sos"))
        write_keys(gateway.key_file, both)
        await gateway.until("the word", lambda: ("city_keys", True) in gateway.words())
        city.acks = True
        city.keys = both[:1]  # from here on the old key is worth nothing
        await gateway.until("a session with a will of the new key", lambda: gateway.uplink.sos.session >= 2)
        await gateway.cry(2)
        await gateway.until("an empty outbox", lambda: not gateway.backlog()["sos"])
        await gateway.crash()
        gateway.uplink.sos._down()
        await gateway.until("the will, sealed with the new key", lambda: not city.statuses[-1].online)

    over(tmp_path, story, acks=False)


class Watched:
    """A key file on a clock that moves when told."""

    def __init__(self, path: Path) -> None:
        self.path, self.now_s = path, 0.0
        self.said: list[tuple[str, bool, str]] = []
        write_keys(path, KEYS)
        self.file = KeyFile(path, on_health=lambda *each: self.said.append(each), now=lambda: self.now_s)

    def after(self, seconds: float = keys.CHECK_S) -> uplink.CityKeys:
        self.now_s += seconds
        return self.file.keys()


@pytest.mark.parametrize(
    "broken", ["", "1 abc", "\xff", "1 " + "ab" * 32 + "\n" + "x" * 5000, None, "readable", "folder"]
)
def test_a_broken_key_file_keeps_the_old_keys_and_is_reported_once(tmp_path: Path, broken: str | None) -> None:
    watched = Watched(tmp_path / "city.keys")
    assert watched.after() == KEYS
    if broken is None or broken == "folder":
        watched.path.unlink()
        if broken:
            watched.path.mkdir()
    elif broken == "readable":
        watched.path.chmod(0o644)
    else:
        watched.path.write_text(broken, "latin-1")
    for _ in range(3):
        assert watched.after() == KEYS
    ((what, ok, detail),) = watched.said
    assert (what, ok) == ("city_keys", False)
    assert "the old keys stay (1)" in detail
    assert "ansim-city gateway enrol" in detail
    assert KEYS[0].secret.hex() not in detail


def test_a_changed_key_file_is_looked_at_once_a_second(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "city.keys")
    assert watched.after() == KEYS
    new = uplink.with_new_key(KEYS, b"n" * 32)
    os.replace(_beside(watched.path, new), watched.path)
    assert watched.after(0.5) == KEYS
    assert watched.after(0.5) == new
    assert watched.said == [("city_keys", True, f"{watched.path}: 2 keys, key 2 is in use")]


def test_a_box_without_its_key_file_starts_and_says_so(tmp_path: Path) -> None:
    said: list[tuple[str, bool, str]] = []
    file = KeyFile(tmp_path / "city.keys", on_health=lambda *each: said.append(each))
    assert file.keys() == ()
    assert "nothing can be sent" in said[0][2]


def _beside(path: Path, new: uplink.CityKeys) -> Path:
    other = path.with_name(f"{path.name}.{random.randrange(10**9)}")
    other.write_text(format_keys(new))
    other.chmod(0o600)
    return other


@needs_mosquitto
def test_who_knows_the_names_cannot_throw_a_lane_off_the_broker(tmp_path: Path) -> None:
    """A broker lets in the newest client of a name: with a name that can be guessed, any account silences a zone."""

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        guessed = f"ansim-{SITE}-{GATEWAY}-sos"
        assert gateway.uplink.sos._client_id() != gateway.uplink.events._client_id()
        assert gateway.uplink.sos._client_id().startswith(f"{guessed}-")
        thief = paho.Client(CallbackAPIVersion.VERSION2, client_id=guessed)
        thief.connect("127.0.0.1", broker.port)
        thief.loop_start()
        try:
            await gateway.until("the thief's connection", thief.is_connected)
            await gateway.cry(3)
            await gateway.until("arrival", lambda: len(set(city.seqs("sos"))) == 3)
            assert gateway.uplink.sos.counters["connects"] == 1
        finally:
            thief.disconnect()
            thief.loop_stop()

    over(tmp_path, story)
