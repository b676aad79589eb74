"""The city in one process: it reports what the lanes stored to pages and gateways, and does what is due.

Threads: one for each lane (`city.consumer`), one for repeated stages and overdue incidents, one for retention, one that
writes what is only in memory (`city.standby`). Each is started again if it ends (`city.threads`). The event loop of the
pages belongs to the caller. The order is always: commit first, then report; what cannot be committed is reported as
"only in memory".
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from city import incident_store, incidents, intake
from city import tables as t
from city.config import CityConfig
from city.consumer import Consumer
from city.incidents import AlarmProgress
from city.intake import Stored
from city.link import SILENT_S, Link
from city.logbook import Logbook
from city.page_stream import PageStream, shortened
from city.standby import FIRST_NUMBER, Standby, StandbyFull
from city.store import Store, StoreClaim, UnixClock, counters, prune
from city.threads import Kept
from gateway.uplink import StageNotice, Status

DUTY_S = 0.5
BACKLOG_S = 10.0
"""Emergencies that a gateway which is online still has after so long, while none arrives, are a problem."""
BACKLOG_ASK_S = 4.0
"""A gateway that has some is asked again so often: its answer says whether they are still there."""
REUSED_S = 3600.0
"""How long it is reported that a gateway has used numbers twice."""
NOTICES_A_DUTY_MAX = 20
GATEWAY_PROBLEMS_MAX = 20
PRUNE_S = 3600.0
TAGS_MAX = 5000
"""Most rows of `latest` given to a page, the newest first."""
PASSAGES_MAX = 100
GATEWAYS_MAX = 1000
NUMBER_MAX = 2**31 - 1
"""Most that the column of an incident's number holds on every database."""
HEALTH_MAX = 5000
"""Most readers and gateways' own reports given to a page. Tags do not push them out: a dead reader's row is old."""

log = structlog.get_logger()


class City:
    """The running city."""

    def __init__(self, config: CityConfig, clock: UnixClock) -> None:
        """Open the store. Raises StoreError."""
        self.config, self.clock = config, clock
        self.store = Store(config.store.url)
        self.standby = Standby(self.store, clock, self._written)
        self.stream = PageStream(clock, self._lanes_in_short, self.problems)
        self.link = Link(Path(config.mqtt.gateway_keys))
        make = {"site": config.site, "mqtt": config.mqtt, "store": self.store, "clock": clock, "listener": self}
        make |= {"link": self.link, "standby": self.standby}
        self.sos = Consumer("sos", **make)  # type: ignore[arg-type]
        self.bulk = Consumer("events", **make)  # type: ignore[arg-type]
        self._online: dict[str, Status] = {}
        self._heard: dict[str, float] = {}
        """When a gateway in `_online` last answered."""
        self._kept_back: dict[str, float] = {}
        """Gateways in `_online` with emergencies that are not stored here -> since when none has come on."""
        self._reused: dict[str, tuple[float, int]] = {}
        """Gateway -> (when it last used the number of an emergency for another one, how often)."""
        self._sent: dict[tuple[str, str], float] = {}
        self._sent_lock = threading.Lock()
        self._stopping = threading.Event()
        self.book: Logbook | None = None
        """The log of this process, if it has one, for what it lost."""
        self.claim: StoreClaim | None = None
        """The right to the store, if this process has taken it."""
        self._threads = [
            Kept("duty", self._do_duty, wait=self._stopping.wait),
            Kept("retention", self._do_retention, wait=self._stopping.wait, pause_max_s=PRUNE_S),
            Kept("standby", lambda: self.standby.run(self._stopping), wait=self._stopping.wait),
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
        self.standby.stop()
        for thread in self._threads:
            thread.join(10)
        self.standby.close()

    # ---- from the lanes ----------------------------------------------------------------------------------------------

    def on_stored(self, stored: Stored, now_s: float) -> None:
        for number in stored.incidents:
            self.tell(number)
        if stored.lane == "sos" and stored.new and not stored.gap and stored.gateway in self._kept_back:
            self._kept_back[stored.gateway] = now_s
        if stored.reused and (stored.gateway in self._reused or len(self._reused) < GATEWAYS_MAX):
            self._reused[stored.gateway] = (now_s, self._reused.get(stored.gateway, (0.0, 0))[1] + 1)
            log.error("seq_reused", gateway=stored.gateway, epoch=stored.epoch, incidents=stored.incidents)
        if stored.lane == "sos" and stored.new:
            log.info("stored", lane="sos", gateway=stored.gateway, incidents=stored.incidents, at=now_s)
        self.stream.publish_words("word", stored.changed)

    def on_held(self, incidents: Sequence[int]) -> None:
        for number in incidents:
            self.tell(number)

    def on_unreadable(self, incident: int | None) -> None:
        if incident is not None:
            self.tell(incident)

    def on_status(self, status: Status, now_s: float) -> None:
        if status.online and (status.gateway in self._online or len(self._online) < GATEWAYS_MAX):
            self._online[status.gateway], self._heard[status.gateway] = status, now_s
            if status.backlog.get("sos", 0) > 0:
                self._kept_back.setdefault(status.gateway, now_s)
            else:
                self._kept_back.pop(status.gateway, None)
        else:
            self._online.pop(status.gateway, None)
            self._kept_back.pop(status.gateway, None)
            self.on_doubt(status.gateway)
        if status.online:
            self._notify(self.standby.ask(lambda c: incident_store.alarms_of_gateway(c, status.gateway, now_s)))
            rows: Sequence[Any] = ()
            with contextlib.suppress(SQLAlchemyError), self.store.read() as c:  # the next status sends them
                w = t.watermark.c
                rows = c.execute(select(w.epoch, w.lane, w.upto).where(w.gateway == status.gateway)).all()
            for row in rows:
                if status.epochs.get(row.lane) == row.epoch:
                    (self.sos if row.lane == "sos" else self.bulk).remember(status.gateway, row.epoch, row.upto, now_s)
        self.stream.publish_words("gateway", (self._gateway_view(status, status.online, now_s),))

    def on_doubt(self, gateway: str) -> None:
        """Ask a gateway how it is: its newest status may be an old one, sent again."""
        ask = self.link.ask(gateway)
        if ask is not None:
            self.sos.publish(gateway, ask)

    def is_online(self, gateway: str) -> bool:
        return gateway in self._online

    # ---- from the people ---------------------------------------------------------------------------------------------

    def acknowledge(self, number: int, who: str) -> dict[str, Any]:
        """Acknowledge an incident and send the stage to its lamps. Raises KeyError, WrongState or StandbyFull.

        If the store cannot be written, it is done in memory, and the answer says so: `only_in_memory`.
        """
        return self._press("acknowledged", incident_store.acknowledge, number, who)

    def close(self, number: int, who: str) -> dict[str, Any]:
        """Close an incident and send the stage to its lamps. As `acknowledge`."""
        return self._press("closed", incident_store.close, number, who)

    def _press(
        self, word: str, action: Callable[[Connection, int, str, float], None], number: int, who: str
    ) -> dict[str, Any]:
        now_s = self.clock()
        if not 0 < number <= NUMBER_MAX:  # a database would raise an error of its own
            raise KeyError(number)

        def work(store: Store) -> None:
            with store.write(urgent=True) as c:
                action(c, self.standby.number(store, number), who, now_s)

        _, held = self.standby.do("press", work, numbers=lambda _: (number,), needs=number)
        log.info(word, incident=number, who=who, at=now_s, only_in_memory=held)
        return self.tell(self.standby.shown_number(number))

    def shown(self, numbers: Sequence[int], who: str) -> None:
        """Store that these incidents reached a screen, if they had not before."""
        for number in numbers:
            now_s = self.clock()

            def work(store: Store, number: int = number, now_s: float = now_s) -> bool:
                with store.write(urgent=True) as c:
                    return incident_store.mark_shown(c, self.standby.number(store, number), who, now_s)

            with contextlib.suppress(StandbyFull, KeyError):  # counted; or the incident has its number of the store now
                first, _ = self.standby.do("shown", work, key=(number,), numbers=lambda _, n=number: (n,), needs=number)  # type: ignore[misc]
                if first:
                    self._publish(self.standby.shown_number(number))

    def looked(self, who: str, what: str, address: str) -> None:
        """Log who looked at what. Call this before the answer is given.

        If the store cannot be written, the look is held in memory and written later. If memory is full too, it is
        counted: a look at an emergency is not refused.
        """
        look = {"at": self.clock(), "who": who[:64], "what": what[:64], "address": address[:64]}

        def work(store: Store) -> None:
            with store.write(urgent=store is self.store) as c:
                c.execute(t.look.insert().values(**look))

        with contextlib.suppress(StandbyFull):
            self.standby.do("look", work)

    # ---- to the pages ------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return all that a page shows, with the stream's position from before the read."""
        position, now_s = self.stream.position, self.clock()
        words, passages, gateways = self._words(now_s)
        return {
            "at": now_s,
            "site": self.config.site,
            "position": position,
            "words": words,
            "passages": passages,
            "gateways": gateways,
            "incidents": [shortened(view) for view in self.standby.views(limit=incident_store.OPEN_MAX)],
            "lanes": self.lanes(),
            "problems": self.problems(),
        }

    def _words(self, now_s: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Return what is known of tags and readers, the arrivals and departures, and the gateways.

        If the store cannot be read, only the gateways: an emergency is shown without them.
        """
        try:
            with self.store.read() as c:
                health = t.latest.c.kind.in_(("reader_health", "gateway_health"))
                by_age = select(t.latest).order_by(t.latest.c.as_of.desc())
                newest = (by_age.where(health).limit(HEALTH_MAX), by_age.where(~health).limit(TAGS_MAX))
                words = [shortened(intake.latest_view(row)) for query in newest for row in c.execute(query).mappings()]
                passages = [
                    shortened(intake.passage_of(row))
                    for kind in ("arrival", "departure")
                    for row in c.execute(
                        select(t.event)
                        .where(t.event.c.type == kind)
                        .order_by(t.event.c.observed_at.desc())
                        .limit(PASSAGES_MAX)
                    ).mappings()
                ]
                gateways = [
                    self._gateway_view(
                        intake.status_of(row), row["online"] and now_s - row["heard_at"] <= SILENT_S, row["heard_at"]
                    )
                    for row in c.execute(select(t.gateway).limit(GATEWAYS_MAX)).mappings()
                ]
        except SQLAlchemyError:  # `views` reports it
            return [], [], [self._gateway_view(status, True, now_s) for status in list(self._online.values())]
        return words, sorted(passages, key=lambda p: -float(p["as_of"]))[:PASSAGES_MAX], gateways

    def incident_list(self, *, open_only: bool, limit: int) -> dict[str, Any]:
        """Return incidents with their alarms, lamps and logs."""
        views = self.standby.views(open_only=open_only, limit=limit)
        return {"at": self.clock(), "incidents": [shortened(view) for view in views]}

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
            "forged": dict(self.link.forged),
            "restarts": {one.name: one.restarts for one in self._kept()}
            | {f"{one.lane}-connection": one.crashes for one in (self.sos, self.bulk)},
            "log_lost": self.book.lost if self.book else 0,
            "held": self.standby.held,
            "not_held": dict(self.standby.dropped),
            "problems": self.problems(),
        }

    def problems(self) -> list[str]:
        """Return what the operators should know about the city itself, each as "part: what, and the next step"."""
        found = [
            ("store", self.standby.problem),
            ("store", self.claim.problem if self.claim else ""),
            ("disk", self.store.problem),
            ("log", self.book.problem if self.book else ""),
        ]
        found += [("thread", one.problem) for one in self._kept()]
        found += [("lane", one.stuck) for one in (self.sos, self.bulk)]
        found += [("lane", self.sos.rival or self.bulk.rival)]
        found += [("pages", self.stream.problem)]
        found += [("gateway", text) for text in self._gateway_problems()]
        found += [("link", text) for text in self.link.problems()]
        return [f"{part}: {text}" for part, text in found if text]

    def _gateway_problems(self) -> list[str]:
        now_s, found = self.clock(), []
        for gateway, since_s in sorted(self._kept_back.copy().items()):
            status = self._online.get(gateway)
            n = 0 if status is None else status.backlog.get("sos", 0)
            if not n or now_s - since_s <= BACKLOG_S or self.standby.active:  # then they wait for our store
                continue
            found.append(
                f"{gateway} has {n} emergencies that do not arrive, or whose answers do not "
                f"arrive there, for {now_s - since_s:.0f} s: call the site; look at the broker's access list"
            )
        for gateway, (at_s, times) in sorted(self._reused.copy().items()):
            if now_s - at_s <= REUSED_S:
                found.append(
                    f"{gateway} has given numbers of old emergencies to {times} new ones; all have their incidents. "
                    "Somebody put an old copy of its disk back: ask the site, and copy no outbox (docs/CITY.md)"
                )
        return found[:GATEWAY_PROBLEMS_MAX]

    def _kept(self) -> list[Kept]:
        return [*self._threads, self.sos.thread, self.bulk.thread]

    def lanes(self) -> dict[str, Any]:
        """Return the state of each lane's connection."""
        return {
            one.lane: {
                "connected": one.subscribed,
                "protocol": one.protocol,
                "problem": one.problem,
                "store_problem": one.store_problem,
                "messages": one.messages,
                "store_failures": one.transient_failures,
            }
            for one in (self.sos, self.bulk)
        }

    def _lanes_in_short(self) -> dict[str, dict[str, Any]]:
        return {
            one.lane: {"connected": one.subscribed, "problem": one.problem, "store_problem": one.store_problem}
            for one in (self.sos, self.bulk)
        }

    def tell(self, number: int) -> dict[str, Any]:
        """Send the present state of an incident to its gateways and to the pages. Return its view."""
        alarms = self.standby.ask(lambda c: incident_store.alarms_of(c, number))
        self._notify([a for a in alarms if incidents.rank(a.told) < incidents.rank(a.stage)])
        return self._publish(number)

    def _publish(self, number: int) -> dict[str, Any]:
        view = shortened(self.standby.views(numbers=[number])[0])
        self.stream.publish_incident(number, view)
        self.standby.follow(number)
        return view

    def _written(self, numbers: Sequence[int], moved: Sequence[tuple[int, int]]) -> None:
        """What was only in memory is in the store: report it, and that some incidents have another number there."""
        for number in numbers:
            with contextlib.suppress(SQLAlchemyError, LookupError):  # the store failed again: the next time reports it
                view = self.tell(number)
                for old in (old for old, new in moved if new == number):
                    gone = {"state": "closed", "closed_at": self.clock(), "closed_by": "city", "only_in_memory": False}
                    gone |= {"number": old, "moved_to": number, "version": view["version"] + FIRST_NUMBER}
                    gone["log"] = [
                        {
                            "at": self.clock(),
                            "word": "moved",
                            "who": "city",
                            "detail": f"written to the store as #{number}",
                        }
                    ]
                    self.stream.publish_incident(old, view | gone)

    def _notify(self, alarms: Sequence[AlarmProgress]) -> None:
        for alarm in alarms:
            if alarm.stage == "stored" and self.standby.active:
                continue  # perhaps only in memory: the lamp learns it when it is true
            at = datetime.fromtimestamp(alarm.stage_at, UTC)
            name = incident_store.plain_name(alarm.alarm)
            if self.sos.publish(alarm.gateway, StageNotice(alarm=name, stage=alarm.stage, at=at)):
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
            self.do_duty(self.clock())

    def do_duty(self, now_s: float) -> None:
        """Send again the stages that are due, and mark the incidents that nobody acknowledged in time."""
        waiting = self.standby.ask(lambda c: incident_store.waiting(c, now_s))
        late = self.standby.ask(lambda c: incident_store.overdue(c, now_s))
        if not self.standby.problem:
            self.store_ok_at = now_s
        names = {(a.gateway, a.alarm) for a in waiting}
        with self._sent_lock:
            sent = self._sent = {name: at for name, at in self._sent.items() if name in names}
            due = [a for a in waiting if incidents.notice_due(a, sent.get((a.gateway, a.alarm)), now_s)]
            due.sort(key=lambda a: sent.get((a.gateway, a.alarm), 0.0))
        self._notify(due[:NOTICES_A_DUTY_MAX])  # the rest next time: no new emergency waits behind repeats
        self._ask_gateways(now_s)
        if late:

            def work(store: Store) -> list[int]:
                with store.write(urgent=True) as c:
                    return incident_store.mark_overdue(store, c, now_s)

            marked, _ = self.standby.do("count", work, numbers=lambda marked: marked)
            for number in marked:
                log.warning("overdue", incident=number)
                self._publish(number)

    def _ask_gateways(self, now_s: float) -> None:
        """Ask each gateway how it is, and report those that no longer answer."""
        for gateway in self.link.due() if self.sos.subscribed else []:
            self.on_doubt(gateway)
        for gateway, status in list(self._online.items()):
            heard_s = self._heard.get(gateway, now_s)
            if gateway in self._kept_back and now_s - heard_s > BACKLOG_ASK_S:
                self.on_doubt(gateway)
            if now_s - heard_s > SILENT_S:
                self._online.pop(gateway, None)
                self._kept_back.pop(gateway, None)
                log.warning("gateway_silent", gateway=gateway, quiet_s=round(now_s - heard_s))
                self.stream.publish_words("gateway", (self._gateway_view(status, False, heard_s),))

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
