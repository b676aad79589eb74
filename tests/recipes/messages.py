"""An event, and a topic: each from where it happens to the city."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.recipes.recipe import Edit, Recipe


def event_works(folder: Path) -> None:
    """A place that is too vague goes from the core through the codec into the city's store and to its page."""
    from city import intake
    from city.store import Store, prune
    from gateway import events, uplink
    from gateway.core.alarms import Alarms
    from gateway.core.conclude import Concluder
    from gateway.core.resolve import Resolver
    from gateway.core.sightings import WallClock
    from gateway.fix import Fix
    from gateway.zone import Field
    from tests.city.test_store import NOW_S, batch
    from tests.gateway.core.bed import TAGS, UTC_S, zone

    counts: Counter[str] = Counter()
    wall = WallClock(100.0)
    wall.set(UTC_S, 100.0, "good")
    concluder = Concluder(Field(zone()), Resolver(TAGS, counts), Alarms("gw1", "e1", wall, counts), wall, counts)

    def said(accuracy_m: float, now_s: float) -> list[str]:
        fix = Fix(12.0, 30.0, 8.0, accuracy_m, (), now_s)
        commits.extend(concluder.position(3, fix, resting=False, moving=True, now_s=now_s))
        return [str(commit.event.__struct_config__.tag) for commit in commits[-2:]]

    commits: list[Any] = []
    assert said(20.0, 100.0) == ["position"]
    assert said(90.0, 110.0) == ["position", "vague"]
    vague = commits[-1].event
    assert not events.is_emergency(vague)
    sent = uplink.encode_batch(
        gateway="gw1",
        epoch="e1",
        after=0,
        sent_at=datetime.fromtimestamp(NOW_S, UTC),
        rows=[(1, uplink.encode_row(vague))],
    )
    received = uplink.decode_batch(sent)
    assert received.rows[0].event == vague
    store = Store(f"sqlite:///{folder}/city.db")
    try:
        stored = intake.store_batch(store, "ansim/v2/s/gw/gw1/events", received, NOW_S)
        assert [(word["kind"], word["tag"]) for word in stored.changed] == [("vague", "tag-003")]
        assert batch(1, vague).rows == received.rows
        gone = prune(store, NOW_S + 4 * 86400.0, positions_days=3, events_days=90)
        assert gone["latest"] == 1, "a place of a child is deleted with the positions"
    finally:
        store.close()


EVENT = Recipe(
    "a routine event about a tag",
    (
        Edit(
            "gateway/events.py",
            "class ReaderHealth(_Event",
            'class Vague(_Event, frozen=True, kw_only=True, tag="vague"):\n'
            '    """The place of a tag is too uncertain to find somebody by it."""\n\n'
            "    tag: str\n    where: Where\n\n\n"
            "class ReaderHealth(_Event",
        ),
        Edit("gateway/events.py", "| RouteDeviation | ReaderHealth", "| RouteDeviation | Vague | ReaderHealth"),
        Edit("gateway/core/conclude.py", "Presence, RouteDeviation\n", "Presence, RouteDeviation, Vague\n"),
        Edit(
            "gateway/core/conclude.py",
            "                    moving=moving,\n                )\n            )\n",
            "                    moving=moving,\n                )\n            )\n"
            "            if fix.accuracy_95_m > 50.0:\n"
            "                yield Commit(\n"
            "                    Vague(\n"
            "                        observed_at=self._wall.utc(fix.fixed_at_s),\n"
            "                        clock=self._wall.quality,\n"
            "                        tag=self._resolver.tags[tag].name,\n"
            "                        where=where_of(self._field, fix),\n"
            "                    )\n"
            "                )\n",
        ),
        Edit(
            "city/pages/phrases.js",
            "  const [glyph, kind, words] = stands(tag);\n",
            "  const [glyph, kind, place] = stands(tag);\n"
            "  const words = tag.vague ? `${place}; its place was vague ${ago(tag.vague.as_of)}` : place;\n",
        ),
        Edit(
            "docs/CONTRACT.md",
            "| `reader_health` | `reader`",
            "| `vague` | `tag`, `where` | its place is too uncertain to find somebody by it |\n"
            "| `reader_health` | `reader`",
        ),
    ),
    event_works,
    (
        "tests.test_docs::test_every_event_and_field_is_documented",
        "tests.test_nothing_missing::test_the_console_has_words_for_every_event",
    ),
)


def topic_works(folder: Path) -> None:
    """A gateway publishes the new kind, and the city subscribes to it, unseals it and takes it."""
    from city.consumer import Consumer
    from city.link import Link
    from gateway import uplink
    from gateway.mqtt.connection import Connection
    from tests.city.bed import KEYS, write_keys

    sent: dict[str, bytes] = {}

    def publish(kind: str, payload: bytes, *, retain: bool = False) -> bool:
        sent[kind] = payload
        return True

    status = uplink.Status(online=True, gateway="gw1", site="s", at=datetime.now(UTC), version="1.2.3")
    Connection.publish_status(SimpleNamespace(_status=lambda _online: status, publish=publish))  # type: ignore[arg-type]
    write_keys(folder / "gw1.keys", KEYS)
    folder.chmod(0o700)
    filters: list[str] = []
    broker = SimpleNamespace(protocol=4, subscribe=lambda asked: filters.extend(name for name, _ in asked))
    mqtt: Any = SimpleNamespace(host="127.0.0.1", port=1883, protocol="auto", ca_file=None)
    nobody: Any = SimpleNamespace(active=False)
    lane = Consumer(
        "sos", site="s", mqtt=mqtt, store=nobody, standby=nobody, clock=lambda: 0.0, listener=nobody, link=Link(folder)
    )
    lane._on_connect(broker, None, None, SimpleNamespace(is_failure=False), None)  # type: ignore[arg-type]
    assert "ansim/v2/s/gw/+/hello" in filters
    name = uplink.topic("s", "gw1", "hello")  # type: ignore[arg-type]
    message = SimpleNamespace(topic=name, payload=uplink.seal(KEYS, name, sent["hello"]))
    taken: Any = lane._take(message)  # type: ignore[arg-type]
    assert taken is None
    assert not lane.link.forged, "it is no topic of ours"
    assert json.loads(sent["hello"]) == {"version": "1.2.3"}


TOPIC = Recipe(
    "a topic, gateway to city",
    (
        Edit(
            "gateway/uplink.py",
            'Literal["status", "sos", "events", "ack"]',
            'Literal["status", "sos", "events", "hello", "ack"]',
        ),
        Edit(
            "gateway/uplink.py",
            "    ansim/v2/{site}/gw/{gateway}/ack ",
            "    ansim/v2/{site}/gw/{gateway}/hello    gateway -> city   JSON, the version\n"
            "    ansim/v2/{site}/gw/{gateway}/ack ",
        ),
        Edit(
            "gateway/mqtt/connection.py",
            '            self.publish("status", encode_status(self._status(True)), retain=True)\n'
            "\n    # ---- one session",
            "            status = self._status(True)\n"
            '            self.publish("status", encode_status(status), retain=True)\n'
            '            self.publish("hello", b\'{"version": "%s"}\' % status.version.encode())\n'
            "\n    # ---- one session",
        ),
        Edit("city/consumer.py", '("sos", "status") if self.lane', '("sos", "status", "hello") if self.lane'),
        Edit(
            "city/consumer.py",
            "        if kind != self.lane:\n            raise MessageRefused(",
            '        if kind == "hello":\n'
            '            log.info("hello", gateway=gateway)\n'
            "            return None\n"
            "        if kind != self.lane:\n            raise MessageRefused(",
        ),
        Edit(
            "deploy/mosquitto/ansim.acl",
            "topic read ansim/v2/gongdeok/gw/+/events\n",
            "topic read ansim/v2/gongdeok/gw/+/events\ntopic read ansim/v2/gongdeok/gw/+/hello\n",
        ),
        Edit(
            "deploy/mosquitto/ansim.acl",
            "topic write ansim/v2/gongdeok/gw/gw1/events\n",
            "topic write ansim/v2/gongdeok/gw/gw1/events\ntopic write ansim/v2/gongdeok/gw/gw1/hello\n",
        ),
        Edit(
            "docs/CONTRACT.md",
            "| `ansim/v2/{site}/gw/{gateway}/ack` | city",
            "| `ansim/v2/{site}/gw/{gateway}/hello` | gateway | JSON, the version, at each connection | 1 |\n"
            "| `ansim/v2/{site}/gw/{gateway}/ack` | city",
        ),
    ),
    topic_works,
    (
        "tests.test_docs::test_every_topic_is_documented",
        "tests.test_nothing_missing::test_the_sample_broker_lets_every_topic_pass_for_both_sides_and_no_other",
    ),
)
