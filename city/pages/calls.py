"""The plain list of open calls: HTML and forms only. It stands when the page's script fails, or never comes.

The page holds it in a frame, which its style sheet shows when the script no longer says that it works (console.css).
"""

import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any

import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment
from sqlalchemy.exc import SQLAlchemyError

from city import incident_store
from city.incidents import WrongState
from city.server import City

log = structlog.get_logger()

REFRESH_S = 5
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
TITLES = {"sos": "SOS", "bell": "Bell", "danger": "Danger area", "unreadable": "Unreadable emergency"}


def add_calls(
    app: FastAPI,
    city: City,
    pages: Environment,
    *,
    who: Callable[[Request], str],
    look: Callable[[Request, str, str], None],
) -> None:
    """Add `/calls` and its presses. who: returns the operator of a request, or raises HTTPException (401, 403)."""
    zone = zone_of(city.config.web.timezone)

    def answer(problem: str = "", code: int = 200) -> Response:
        known, found = True, []
        clock = ZoneClock(city.clock(), zone)
        try:
            views = city.incident_list(open_only=True, limit=incident_store.OPEN_MAX)["incidents"]
            found = [worded(view, clock) for view in sorted(views, key=urgency)]
        except SQLAlchemyError as error:
            known, code = False, 503
            problem = f"{problem} The city cannot read its store: {type(error).__name__}.".strip()
        text = pages.get_template("calls.html").render(
            site=city.config.site,
            at=clock.now,
            refresh_s=REFRESH_S,
            calls=found,
            known=known,
            problems=[*([problem] if problem else []), *city.problems()],
        )
        return HTMLResponse(text, code, {"Content-Security-Policy": POLICY})

    def refused(error: HTTPException) -> Response:
        if error.status_code == 401:
            text = (
                '<!doctype html><title>Log in</title><link rel="stylesheet" href="/static/calls.css">'
                '<p class="problem">You are logged out: whether there are open calls is not known.</p>'
                '<p><a href="/login" target="_top">Log in</a></p>'
            )
            return HTMLResponse(text, 401, {"Content-Security-Policy": POLICY})
        return answer(str(error.detail), error.status_code)

    @app.get("/calls", response_class=HTMLResponse, include_in_schema=False)
    def calls(request: Request) -> Response:
        try:
            look(request, who(request), "calls")
        except HTTPException as error:
            return refused(error)
        return answer()

    @app.post("/calls/{number}/{action}", response_class=HTMLResponse, include_in_schema=False)
    def press(request: Request, number: int, action: str) -> Response:
        try:
            name = who(request)
        except HTTPException as error:
            return refused(error)
        if action not in ("acknowledge", "close"):
            return answer(f"{action} is no press", 404)
        try:
            if not 0 < number < 2**31:  # the store holds no other number
                raise KeyError(number)
            (city.acknowledge if action == "acknowledge" else city.close)(number, name)
        except KeyError:
            return answer(f"There is no incident {number}.", 404)
        except WrongState as error:
            return answer(f"#{number}: {error}.", 409)
        except SQLAlchemyError as error:
            return answer(
                f"#{number}: not done, the city cannot write into its store ({type(error).__name__}). Press again.", 503
            )
        return RedirectResponse("/calls", 303)


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name, UTC if it cannot be used: no clock keeps a call from the screen."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def urgency(view: dict[str, Any]) -> tuple[int, bool, bool, bool, float, int]:
    """Order incidents as the page does: calls, repeated cries, danger notices; new ones first, then the oldest."""
    group = 2 if view["kind"] == "danger" else 1 if view["trust"] == "replayed" else 0
    return (
        group,
        view["state"] != "new",
        view["drill"],
        view["cleared_at"] is not None,
        view["stored_at"],
        view["number"],
    )


class ZoneClock:
    """Says a time of the city's zone, with its day if that is not today."""

    def __init__(self, now_s: float, zone: tzinfo) -> None:
        self._zone = zone
        self._today = datetime.fromtimestamp(now_s, zone).date()
        self.now = self(now_s)

    def __call__(self, at: float | None) -> str:
        if at is None:
            return "a time unknown"
        there = datetime.fromtimestamp(at, self._zone)
        day = "" if there.date() == self._today else f"{there:%Y-%m-%d} "
        return f"{day}{there:%H:%M:%S}{' UTC' if self._zone is UTC else ''}"


def worded(view: dict[str, Any], clock: ZoneClock) -> dict[str, Any]:
    try:
        return _call(view, clock)
    except Exception as error:  # one incident that cannot be worded takes no other along, and stands with its press
        log.error("call_not_worded", incident=view["number"], error=type(error).__name__, detail=str(error)[:200])
        words = f"Not all of this incident can be shown ({type(error).__name__})."
        action = {"new": "acknowledge", "acknowledged": "close"}.get(view["state"])
        return {key: view[key] for key in ("number", "state")} | {
            "title": f"{view['kind']} {view['subject']}",
            "words": words,
            "action": action,
        }


def _call(view: dict[str, Any], clock: ZoneClock) -> dict[str, Any]:
    title = "Repeated cry" if view["trust"] == "replayed" else TITLES.get(view["kind"], str(view["kind"]))
    words = [f"Pressed at {clock(view['observed_at'])}."]
    if view["kind"] == "danger":
        words = [f"Near {view['area']} at {clock(view['observed_at'])}."]
    elif view["kind"] == "unreadable":
        words = [f"The gateway sent an emergency that cannot be read: {view['detail']}. Call the site."]
    elif view["trust"] == "replayed":
        words = [f"Somebody repeats this tag's cry{_near(view['readers'])}, since {clock(view['observed_at'])}."]
    if view.get("only_in_memory"):
        words.append("ONLY IN THE CITY'S MEMORY: its store takes nothing now.")
    if view["drill"]:
        words.insert(0, "DRILL.")
    if view["overdue"] and view["state"] == "new":
        words.insert(0, "OVERDUE: nobody has acknowledged.")
    if view["trust"] == "unverified":
        words.append("UNVERIFIED: call before you send anyone.")
    where = view["where"]
    if where:
        lon, lat = where["geometry"]["coordinates"][:2]
        words.append(f"Within {where['accuracy_95_m']:.0f} m of {lat:.6f}, {lon:.6f} at {clock(view['where_at'])}.")
    elif view["kind"] != "unreadable":
        words.append("Place unknown.")
    if view["readers"] and view["trust"] != "replayed":
        words.append(f"Heard{_near(view['readers']).replace(' near', ' by')}.")
    if view["acknowledged_by"]:
        words.append(f"Acknowledged by {view['acknowledged_by']}.")
    action = {"new": "acknowledge", "acknowledged": "close"}.get(view["state"])
    subject = "unknown tag" if view["kind"] == "sos" and view["subject"] == "unknown" else view["subject"]
    return {
        "number": view["number"],
        "state": view["state"],
        "title": f"{title} {subject}",
        "words": " ".join(words),
        "action": action,
    }


def _near(readers: list[int]) -> str:
    if not readers:
        return ""
    return f" near {'reader' if len(readers) == 1 else 'readers'} {', '.join(map(str, readers))}"
