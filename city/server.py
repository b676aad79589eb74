"""The city in one process: it reports what the lanes stored to pages and gateways, and does what is due.

Threads: one for each lane (`city.consumer`), one for repeated stages and overdue incidents, one for retention. The
event loop of the pages belongs to the caller. The order is always: commit first, then report.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from city import incident_store, incidents, intake
from city import tables as t
from city.config import CityConfig
from city.consumer import Consumer
from city.incidents import AlarmProgress
from city.intake import Stored
from city.page_stream import PageStream
from city.store import Store, UnixClock, counters, prune
from gateway.uplink import StageNotice, Status

DUTY_S = 0.5
NOTICES_A_DUTY_MAX = 20
PRUNE_S = 3600.0
TAGS_MAX = 5000
"""Most rows of `latest` given to a page, the newest first."""
PASSAGES_MAX = 100
GATEWAYS_MAX = 1000

log = structlog.get_logger()


class City:
    """The running city."""

    def __init__(self, config: CityConfig, clock: UnixClock) -> None:
        """Open the store. Raises StoreError."""
        self.config, self.clock = config, clock
        self.store = Store(config.store.url)
        self.stream = PageStream(clock, lambda: {one.lane: one.subscribed for one in (self.sos, self.bulk)})
        make = {"site": config.site, "mqtt": config.mqtt, "store": self.store, "clock": clock, "listener": self}
        self.sos = Consumer("sos", **make)  # type: ignore[arg-type]
        self.bulk = Consumer("events", **make)  # type: ignore[arg-type]
        self._online: dict[str, Status] = {}
        self._sent: dict[tuple[str, str], float] = {}
        self._sent_lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._do_duty, name="duty", daemon=True),
            threading.Thread(target=self._do_retention, name="retention", daemon=True),
        ]
        self.store_ok_at = clock()

    def start(self) -> None:
        """Connect the lanes and start the threads."""
        self.sos.start()
        self.bulk.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the lanes and the threads, then close the store."""
        self._stopping.set()
        self.bulk.stop()
        self.sos.stop()
        for thread in self._threads:
            thread.join(timeout=10)
        self.store.close()

    # ---- from the lanes ----------------------------------------------------------------------------------------------

    def on_stored(self, stored: Stored, now_s: float) -> None:
        for number in stored.incidents:
            self.tell(number)
        if stored.lane == "sos" and stored.new:
            log.info("stored", lane="sos", gateway=stored.gateway, incidents=stored.incidents, at=now_s)
        self.stream.publish_words("word", stored.changed)

    def on_unreadable(self, incident: int | None) -> None:
        if incident is not None:
            self.tell(incident)

    def on_status(self, status: Status, now_s: float) -> None:
        if status.online and (status.gateway in self._online or len(self._online) < GATEWAYS_MAX):
            self._online[status.gateway] = status
        else:
            self._online.pop(status.gateway, None)
        if status.online:
            with self.store.read() as c:
                w = t.watermark.c
                rows = c.execute(select(w.epoch, w.lane, w.upto).where(w.gateway == status.gateway)).all()
                alarms = incident_store.alarms_of_gateway(c, status.gateway, now_s)
            for row in rows:
                if status.epochs.get(row.lane) == row.epoch:
                    (self.sos if row.lane == "sos" else self.bulk).remember(status.gateway, row.epoch, row.upto, now_s)
            self._notify(alarms)
        self.stream.publish_words("gateway", (self._gateway_view(status, status.online, now_s),))

    def is_online(self, gateway: str) -> bool:
        return gateway in self._online

    # ---- from the people ---------------------------------------------------------------------------------------------

    def acknowledge(self, number: int, who: str) -> dict[str, Any]:
        """Acknowledge an incident and send the stage to its lamps. Raises KeyError or WrongState."""
        with self.store.write(urgent=True) as c:
            incident_store.acknowledge(c, number, who, self.clock())
        log.info("acknowledged", incident=number, who=who, at=self.clock())
        return self.tell(number)

    def close(self, number: int, who: str) -> dict[str, Any]:
        """Close an incident and send the stage to its lamps. Raises KeyError or WrongState."""
        with self.store.write(urgent=True) as c:
            incident_store.close(c, number, who, self.clock())
        log.info("closed", incident=number, who=who, at=self.clock())
        return self.tell(number)

    def shown(self, numbers: Sequence[int], who: str) -> None:
        """Store that these incidents reached a screen, if they had not before."""
        for number in numbers:
            with self.store.write(urgent=True) as c:
                first = incident_store.mark_shown(c, number, who, self.clock())
            if first:
                self._publish(number)

    def looked(self, who: str, what: str, address: str) -> None:
        """Log who looked at what. Call this before the answer is given."""
        with self.store.write() as c:
            c.execute(t.look.insert().values(at=self.clock(), who=who[:64], what=what[:64], address=address[:64]))

    # ---- to the pages ------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return all that a page shows, with the stream's position from before the read."""
        position, now_s = self.stream.position, self.clock()
        with self.store.read() as c:
            newest = select(t.latest).order_by(t.latest.c.as_of.desc()).limit(TAGS_MAX)
            words = [intake.latest_view(row) for row in c.execute(newest).mappings()]
            passages = [
                intake.passage_of(row)
                for kind in ("arrival", "departure")
                for row in c.execute(
                    select(t.event)
                    .where(t.event.c.type == kind)
                    .order_by(t.event.c.stored_at.desc())
                    .limit(PASSAGES_MAX)
                ).mappings()
            ]
            gateways = [
                self._gateway_view(intake.status_of(row), row["online"], row["heard_at"])
                for row in c.execute(select(t.gateway).limit(GATEWAYS_MAX)).mappings()
            ]
            return {
                "at": now_s,
                "site": self.config.site,
                "position": position,
                "words": words,
                "passages": sorted(passages, key=lambda p: -float(p["as_of"]))[:PASSAGES_MAX],
                "gateways": gateways,
                "incidents": incident_store.views(c, limit=incident_store.OPEN_MAX),
                "lanes": self.lanes(),
            }

    def incident_list(self, *, open_only: bool, limit: int) -> dict[str, Any]:
        """Return incidents with their alarms, lamps and logs."""
        with self.store.read() as c:
            return {"at": self.clock(), "incidents": incident_store.views(c, open_only=open_only, limit=limit)}

    def stats(self) -> dict[str, Any]:
        """Return how much was stored, refused, duplicate and missed. It is exact: the transactions themselves count."""
        with self.store.read() as c:
            counts = counters(c)
            w = t.watermark
            marks = [dict(row) for row in c.execute(select(w).order_by(w.c.gateway, w.c.epoch, w.c.lane)).mappings()]
        stored = {name.removeprefix("stored."): n for name, n in counts.items() if name.startswith("stored.")}
        return {
            "at": self.clock(),
            "stored": stored,
            "duplicates": {
                lane: sum(m["duplicates"] for m in marks if m["lane"] == lane) for lane in ("sos", "events")
            },
            "gaps": {lane: sum(m["gaps"] for m in marks if m["lane"] == lane) for lane in ("sos", "events")},
            "watermarks": marks,
            "counters": counts,
            "lanes": self.lanes(),
            "streams": self.stream.streams,
        }

    def lanes(self) -> dict[str, Any]:
        """Return the state of each lane's connection."""
        return {
            one.lane: {
                "connected": one.subscribed,
                "protocol": one.protocol,
                "problem": one.problem,
                "messages": one.messages,
                "store_failures": one.transient_failures,
            }
            for one in (self.sos, self.bulk)
        }

    def tell(self, number: int) -> dict[str, Any]:
        """Send the present state of an incident to its gateways and to the pages. Return its view."""
        with self.store.read() as c:
            alarms = incident_store.alarms_of(c, number)
        self._notify([a for a in alarms if incidents.rank(a.told) < incidents.rank(a.stage)])
        return self._publish(number)

    def _publish(self, number: int) -> dict[str, Any]:
        with self.store.read() as c:
            (view,) = incident_store.views(c, numbers=[number])
        self.stream.publish_incident(number, view)
        return view

    def _notify(self, alarms: Sequence[AlarmProgress]) -> None:
        for alarm in alarms:
            at = datetime.fromtimestamp(alarm.stage_at, UTC)
            if self.sos.publish(alarm.gateway, StageNotice(alarm=alarm.alarm, stage=alarm.stage, at=at)):
                with self._sent_lock:
                    self._sent[alarm.gateway, alarm.alarm] = self.clock()

    def _gateway_view(self, status: Status, online: bool, heard_at: float) -> dict[str, Any]:
        return {
            "gateway": status.gateway,
            "online": online,
            "heard_at": heard_at,
            "at": status.at.timestamp(),
            "version": status.version[:64],
            "clock": status.clock,
            "backlog": dict(status.backlog),
            "readers_ok": status.readers_ok,
            "readers_silent": status.readers_silent,
        }

    # ---- duties ------------------------------------------------------------------------------------------------------

    def _do_duty(self) -> None:
        while not self._stopping.wait(DUTY_S):
            try:
                self.do_duty(self.clock())
            except SQLAlchemyError as error:
                log.error("duty_failed", detail=str(error)[:200])

    def do_duty(self, now_s: float) -> None:
        """Send again the stages that are due, and mark the incidents that nobody acknowledged in time."""
        with self.store.read() as c:
            waiting = incident_store.waiting(c, now_s)
            late = incident_store.overdue(c, now_s)
        self.store_ok_at = now_s
        names = {(a.gateway, a.alarm) for a in waiting}
        with self._sent_lock:
            sent = self._sent = {name: at for name, at in self._sent.items() if name in names}
            due = [a for a in waiting if incidents.notice_due(a, sent.get((a.gateway, a.alarm)), now_s)]
            due.sort(key=lambda a: sent.get((a.gateway, a.alarm), 0.0))
        self._notify(due[:NOTICES_A_DUTY_MAX])  # the rest next time: no new emergency waits behind repeats
        if late:
            with self.store.write(urgent=True) as c:
                marked = incident_store.mark_overdue(self.store, c, now_s)
            for number in marked:
                log.warning("overdue", incident=number)
                self._publish(number)

    def _do_retention(self) -> None:
        while not self._stopping.is_set():
            try:
                gone = prune(
                    self.store,
                    self.clock(),
                    positions_days=self.config.store.positions_days,
                    events_days=self.config.store.events_days,
                )
                self.store.checkpoint()
                if any(gone.values()):
                    log.info("pruned", **gone)
            except SQLAlchemyError as error:
                log.error("prune_failed", detail=str(error)[:200])
            self._stopping.wait(PRUNE_S)
