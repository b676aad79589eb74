"""The city's side of the seals: keys from a folder, what is forged is counted and never believed, old words are old."""

import os
import random
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import structlog
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from city import intake, link
from city.config import load
from city.link import ASK_AGAIN_S, ASK_S, CHECK_S, NAMED_MAX, QUIET_S, SILENT_S, Link, LinkError
from city.server import City as Server
from gateway import uplink
from gateway.uplink import CityKey, Forged, StageNotice, Status, seal
from tests.city.bed import KEYS, SITE, City, Gateway, on_both_brokers, position, sos, wait_for, when, write_keys

CONFIG = (
    f'site = "{SITE}"\n[mqtt]\nhost = "127.0.0.1"\n[store]\nurl = "sqlite:///city.db"\n'
    '[web]\noperators_file = "operators.json"\n'
)
STRANGE = (CityKey(1, b"s" * 32),)
ACK = uplink.topic(SITE, "gw1", "ack")
SOS = uplink.topic(SITE, "gw1", "sos")


class Watched:
    """A link on a clock that moves when told, with the keys of gw1."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.path = folder / "gw1.keys"
        write_keys(self.path, KEYS)
        self.link = Link(folder, now=lambda: self.now_s)

    def hear(self, keys: uplink.CityKeys, gateway: str = "gw1") -> bytes:
        name = uplink.topic(SITE, gateway, "sos")
        return self.link.unseal(gateway, "sos", name, seal(keys, name, b"cry"))

    def refused(self, keys: uplink.CityKeys, gateway: str = "gw1") -> str:
        with pytest.raises(Forged) as caught:
            self.hear(keys, gateway)
        return caught.value.reason


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_forger_who_invents_gateways_fills_no_table_and_hides_no_report(watched: Watched) -> None:
    assert watched.refused(STRANGE) == "wrong_mac"
    for n in range(1000):
        assert watched.refused(STRANGE, f"invented-{n}") == "no_key"
    assert watched.link.forged == {"sos.wrong_mac": 1, "sos.unknown_gateway": 1000}
    for table in (watched.link._suspects, watched.link._keys, watched.link._seen, watched.link._asked):
        assert len(table) <= NAMED_MAX
    write_keys(watched.path.with_name("gw2.keys"), KEYS)
    watched.now_s += CHECK_S
    watched.refused(STRANGE, "gw2")
    assert any("gateway gw2" in text for text in watched.link.problems()), "an enrolled one is always reported"
    assert len(watched.link.problems()) == NAMED_MAX
    watched.now_s += QUIET_S + 1
    assert watched.link.problems() == []
    assert watched.hear(KEYS) == b"cry"


def test_a_hundred_thousand_forged_cries_are_refused(watched: Watched) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    good = seal(KEYS, SOS, b'{"protocol":2,"gateway":"gw1"}')
    for _ in range(100_000):
        forged = bytearray(good)
        forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
        with pytest.raises(Forged):
            watched.link.unseal("gw1", "sos", SOS, bytes(forged))
    assert sum(watched.link.forged.values()) == 100_000
    assert len(watched.link.problems()) == 1


@pytest.mark.parametrize("broken", ["", "1 abc", "\xff", "mode"])
def test_a_broken_key_file_keeps_the_old_keys_and_one_that_is_gone_ends_the_trust(
    watched: Watched, broken: str
) -> None:
    assert watched.hear(KEYS) == b"cry"
    if broken == "mode":
        watched.path.chmod(0o640)
    else:
        watched.path.write_text(broken, "latin-1")
    watched.now_s += CHECK_S
    assert watched.hear(KEYS) == b"cry"
    (problem,) = watched.link.problems()
    assert "gw1.keys" in problem
    assert "the old keys stay" in problem
    assert KEYS[0].secret.hex() not in problem
    write_keys(watched.path, KEYS)
    watched.now_s += CHECK_S
    assert watched.link.problems() == []
    watched.path.unlink()
    watched.now_s += CHECK_S
    assert watched.refused(KEYS) == "no_key"
    assert watched.link.seal("gw1", ACK, b"") is None


def test_while_a_key_is_changed_the_city_answers_with_the_one_that_the_box_has(watched: Watched) -> None:
    assert watched.hear(KEYS) == b"cry"
    link.rotate(watched.path)
    both = link.read_keys(watched.path)
    watched.now_s += CHECK_S
    assert [key.number for key in both] == [2, 1]
    assert uplink.unseal(KEYS, ACK, watched.link.seal("gw1", ACK, b"a") or b"") == b"a", "the file is still on its way"
    assert watched.hear(both) == b"cry"
    answer = watched.link.seal("gw1", ACK, b"b") or b""
    assert uplink.sealed_with(answer) == 2
    assert watched.hear(KEYS) == b"cry", "a message that was under way"
    link.retire(watched.path)
    watched.now_s += CHECK_S
    assert watched.refused(KEYS) == "no_key"
    assert uplink.unseal(both, ACK, watched.link.seal("gw1", ACK, b"c") or b"") == b"c"


def test_online_is_believed_as_an_answer_only(watched: Watched) -> None:
    def status(echo: str, online: bool = True) -> Status:
        return Status(online=online, gateway="gw1", site=SITE, at=when(), version="t", echo=echo)

    assert not watched.link.believes(status("")), "nobody was asked yet"
    assert watched.link.believes(status("", online=False))
    assert watched.link.due() == ["gw1"]
    words = []
    for _ in range(3):
        ask = watched.link.ask("gw1")
        assert ask is not None
        assert watched.link.ask("gw1") is None, "a storm of old words makes no storm of questions"
        words.append(ask.word)
        watched.now_s += ASK_AGAIN_S
    assert watched.link.due() == []
    assert [watched.link.believes(status(word)) for word in words] == [False, True, True]
    watched.now_s += ASK_S
    assert watched.link.due() == ["gw1"]
    assert watched.link.ask("unknown") is None
    assert watched.link.believes(status(words[2]))
    assert watched.link.believes(status("", online=False))
    assert not watched.link.believes(status(words[2])), "from before it went offline"


@on_both_brokers
def test_a_forged_cry_is_counted_reported_and_blocks_nothing(city: City, gateway: Gateway) -> None:
    gateway.urgent(1, sos("gw1-e1-1"))
    wait_for("the true one", lambda: gateway.upto("sos") == 1)
    gateway.keys = STRANGE
    gateway.urgent(2, sos("gw1-e1-2", tag="t-02"))
    gateway.send("sos", b"in the name of a gateway that nobody enrolled", name="gw77")
    gateway.batch(1, [position("t-02")])
    live = Status(online=True, gateway="gw1", site=SITE, at=when(), version="t", echo=gateway.word)
    gateway.send("status", uplink.encode_status(live), retain=True)
    gateway.client.publish(SOS, b"no room", qos=1)
    gateway.keys = KEYS
    gateway.urgent(2, sos("gw1-e1-3", tag="t-03"))
    wait_for("the next true one", lambda: gateway.upto("sos") == 2)
    assert {i["subject"] for i in city.incidents()} == {"t-01", "t-03"}
    assert city.get("/api/state")["gateways"] == []
    stats = city.get("/api/stats")
    wanted = {"sos.wrong_mac": 1, "sos.size": 1, "sos.unknown_gateway": 1, "events.wrong_mac": 1, "status.wrong_mac": 1}
    assert stats["forged"] == wanted
    assert "quarantine.seen" not in stats["counters"]
    links = [text for text in stats["problems"] if text.startswith("link: ")]
    assert len(links) == 2
    assert "gateway gw77 are refused: it has no key here" in links[1]
    assert city.get("/api/state")["problems"] == stats["problems"]
    health = httpx.get(f"{city.address}/healthz", timeout=10)
    assert (health.status_code, health.json()["ok"]) == (200, True), "no stranger's message makes the city unhealthy"
    assert health.json()["problems"] == ["link"]
    login = {"Authorization": f"Bearer {city.token}"}
    text = httpx.get(f"{city.address}/metrics", headers=login, timeout=10).text
    assert 'ansim_city_forged_total{reason="wrong_mac",topic="sos"} 1.0' in text


@on_both_brokers
def test_an_old_status_sent_again_brings_no_dead_gateway_to_life(city: City, gateway: Gateway) -> None:
    def online() -> list[bool]:
        return [each["online"] for each in city.get("/api/state")["gateways"]]

    gateway.status()
    wait_for("online", lambda: online() == [True])
    name = uplink.topic(SITE, "gw1", "status")
    old = seal(KEYS, name, uplink.encode_status(
        Status(online=True, gateway="gw1", site=SITE, at=when(), version="old", echo=gateway.word)))  # fmt: skip
    gateway.status(False)
    wait_for("offline", lambda: online() == [False])
    for seq in (1, 2):  # the second time for a city that has started again, and finds it retained
        gateway.client.publish(name, old, qos=1, retain=True)
        gateway.urgent(seq, sos(f"gw1-e1-{seq}"))
        wait_for("what came after it", lambda n=seq: gateway.upto("sos") == n)  # type: ignore[misc]
        assert online() == [False]
        if seq == 1:
            city.kill()
            city.start()
    gateway.status()
    wait_for("its return", lambda: online() == [True])


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "city", *arguments], capture_output=True, text=True, check=False)


def test_a_gateway_is_enrolled_its_key_is_changed_and_the_old_one_retired(tmp_path: Path) -> None:
    (tmp_path / "operators.json").write_text("{}")
    config = tmp_path / "city.toml"
    config.write_text(CONFIG)
    out = tmp_path / "to-the-box.keys"

    def run(word: str, name: str = "gw1") -> str:
        done = _command("gateway", word, name, "--config", str(config), "--out", str(out))
        return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"

    path = tmp_path / "gateway_keys" / "gw1.keys"
    assert "no key file" in run("rotate") or "cannot be read" in run("rotate")
    assert "gateway gw1, keys 1" in run("enrol")
    assert path.stat().st_mode & 0o777 == out.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    first = link.read_keys(path)
    assert "ansim-city gateway rotate" in run("enrol"), "a second time would lock the box out"
    assert link.read_keys(path) == first
    said = run("rotate")
    assert "keys 2, 1" in said
    assert first[0].secret.hex() not in said
    assert link.read_keys(out) == link.read_keys(path)
    assert "keys 2;" in run("retire")
    assert [key.number for key in link.read_keys(out)] == [2]
    assert "failed" in run("enrol", "../gw1")
    assert sorted(each.name for each in path.parent.iterdir()) == ["gw1.keys"]


def test_a_folder_of_keys_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError, match="cannot be written"):
        link.enrol(tmp_path / "file" / "gw1.keys")


@pytest.mark.parametrize("where", ["no-folder-but-a-file/x.keys", "a-folder"])
def test_a_copy_that_cannot_be_written_changes_no_key(tmp_path: Path, where: str) -> None:
    (tmp_path / "no-folder-but-a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    path, out = tmp_path / "keys" / "gw1.keys", tmp_path / where
    with pytest.raises(LinkError, match=f"{out}: cannot be written .* no key was changed"):
        link.enrol(path, out)
    assert not path.exists(), "the next `enrol` is the first"
    link.enrol(path, tmp_path / "good.keys")
    link.rotate(path)
    before = path.read_bytes()
    for change in (link.rotate, link.retire):
        with pytest.raises(LinkError, match="no key was changed"):
            change(path, out)
        assert path.read_bytes() == before
    with pytest.raises(LinkError, match="the city's own file"):
        link.rotate(path, path.parent / ".." / "keys" / "gw1.keys")
    assert [each.name for each in path.parent.iterdir()] == ["gw1.keys"]


def test_no_key_that_the_box_may_use_is_pushed_out(tmp_path: Path) -> None:
    path, out = tmp_path / "gw1.keys", tmp_path / "out.keys"
    link.enrol(path)
    for _ in range(uplink.KEYS_MAX - 1):
        link.rotate(path)
    before = path.read_bytes()
    with pytest.raises(LinkError, match=r"push out key 1.*gateway show.*gateway retire.*--force"):
        link.rotate(path, out)
    assert (path.read_bytes(), out.exists()) == (before, False)
    assert link.show(path, out) == [4, 3, 2, 1]
    assert link.read_keys(out) == link.read_keys(path)
    assert link.rotate(path, force=True) == [5, 4, 3, 2]
    assert link.retire(path) == [5]
    assert link.rotate(path) == [6, 5]


def test_a_changed_key_file_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "gw1.keys"
    link.enrol(path)
    path.chmod(0o400)
    link.rotate(path)
    assert path.stat().st_mode & 0o777 == 0o400
    if os.geteuid() == 0:
        os.chown(path, 12345, 12346)
        link.rotate(path)
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
        os.chown(tmp_path, 12345, 12346)
        link.enrol(tmp_path / "gw2.keys")
        assert (tmp_path / "gw2.keys").stat().st_uid == 12345, "made by root, read by the city"


def test_the_file_for_the_box_is_written_again_by_a_command(tmp_path: Path) -> None:
    config, out = tmp_path / "city.toml", tmp_path / "again.keys"
    config.write_text(CONFIG)
    (tmp_path / "operators.json").write_text("{}")
    link.enrol(tmp_path / "gateway_keys" / "gw1.keys")
    done = _command("gateway", "show", "gw1", "--config", str(config), "--out", str(out))
    assert (done.returncode, "gateway gw1, keys 1;" in done.stdout) == (0, True), done.stderr
    assert link.read_keys(out) == link.read_keys(tmp_path / "gateway_keys" / "gw1.keys")
    assert out.stat().st_mode & 0o777 == 0o600


def test_what_a_broker_does_wrong_is_counted_in_memory_and_logged_once_a_minute(
    watched: Watched,
) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            watched.link.blame("sos", "wrong_site", "of another site")
            watched.now_s += 0.1
    assert [(line["event"], line["so_far"]) for line in lines] == [("wrong_site", 1), ("wrong_site", 601)]
    assert watched.link.forged == {"sos.wrong_site": 1000}
    assert watched.link.problems() == ["lane sos: of another site"]
    watched.now_s += QUIET_S
    assert watched.link.problems() == []


def test_messages_of_another_site_make_no_rows(tmp_path: Path) -> None:
    (tmp_path / "operators.json").write_text("{}")
    (tmp_path / "city.toml").write_text(CONFIG)
    there = Server(load(tmp_path / "city.toml"), lambda: 1_800_000_000.0)
    try:
        for name in (uplink.topic("other", "gw1", "sos"), "no topic of ours"):
            for mid in range(1, 51):
                message = MQTTMessage(mid, name.encode())
                message.payload = b"x"
                there.sos._handle(Client(CallbackAPIVersion.VERSION2), message)
        assert there.link.forged == {"sos.wrong_site": 50, "sos.bad_topic": 50}
        assert not [name for name in there.stats()["counters"] if name.startswith("refused")]
        assert len(there.problems()) == 2
    finally:
        there.standby.close()


def test_stages_are_sealed_too(city: City, gateway: Gateway) -> None:
    heard: list[bytes] = []
    gateway.client.on_message = lambda _c, _d, message: heard.append(bytes(message.payload))
    gateway.urgent(1, sos("gw1-e1-1"))
    wait_for("a stage", lambda: any(b"stage" in data for data in heard))
    for data in list(heard):
        ack = uplink.decode_ack(uplink.unseal(KEYS, ACK, data))
        with pytest.raises(Forged):
            uplink.unseal(STRANGE, ACK, data)
        assert isinstance(ack, StageNotice | uplink.Watermark | uplink.Ask)


def test_a_gateway_that_answers_nothing_is_shown_as_offline_though_no_will_came(tmp_path: Path) -> None:
    """A broker may keep back the last will, or lose it."""
    now_s = 1_800_000_000.0
    (tmp_path / "operators.json").write_text("{}")
    (tmp_path / "city.toml").write_text(CONFIG)
    there = Server(load(tmp_path / "city.toml"), lambda: now_s)
    try:
        status = Status(online=True, gateway="gw1", site=SITE, at=when(now_s), version="t")
        intake.store_status(there.store, status, now_s)
        there.on_status(status, now_s)
        now_s += SILENT_S
        there.do_duty(now_s)
        assert there.is_online("gw1")
        assert there.snapshot()["gateways"][0]["online"]
        now_s += 1
        there.do_duty(now_s)
        assert not there.is_online("gw1")
        assert not there.snapshot()["gateways"][0]["online"]
    finally:
        there.standby.close()


def test_check_names_a_key_file_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "operators.json").write_text("{}")
    (tmp_path / "operators.json").chmod(0o600)
    config = tmp_path / "city.toml"
    config.write_text(CONFIG)
    (tmp_path / "gateway_keys").mkdir(mode=0o700)
    broken = tmp_path / "gateway_keys" / "gw1.keys"
    broken.write_text(f"1 {'ab' * 31}")
    broken.chmod(0o600)
    done = _command("check", str(config))
    assert done.returncode == 1
    assert f"{broken}: line 1 is not a key number" in done.stderr
    assert "abab" not in done.stderr


def test_a_key_folder_that_cannot_be_read_for_a_while_keeps_the_old_keys(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every cry of every gateway would be refused as forged."""
    assert watched.hear(KEYS) == b"cry"

    def unreadable(_path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(link.os, "scandir", unreadable)
    watched.now_s += CHECK_S
    assert watched.hear(KEYS) == b"cry"
    assert any("the old keys stay" in text for text in watched.link.problems())


def test_the_copy_for_the_box_is_in_place_before_the_citys_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut between the two leaves a copy that opens nothing, and the command can be given again."""
    order: list[str] = []
    right = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append(Path(new).name), right(old, new)))
    link.enrol(tmp_path / "gw1.keys", tmp_path / "carried")
    assert order == ["carried", "gw1.keys"]
