"""The pages and the HTTP interface: FastAPI over a `city.server.City`. Nothing on a page comes from another host.

The login page, the static files, /healthz, /openapi.json and, on this machine, /metrics are open. Everything else needs
a session (a browser) or a token (a program). A POST with a session must come from a page of this host. Every look,
except at the map, and every action is logged with the name of the account.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import prometheus_client
import xstatic.pkg.leaflet
from fastapi import Depends, FastAPI, Form, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from city.config import first_line
from city.incidents import WrongState
from city.page_stream import STREAMS_MAX
from city.pages.login import Busy, Login
from city.pages.metrics import metrics_of
from city.server import City

COOKIE = "ansim_session"
LOOK_S = 60.0
"""Seconds. The same look by the same account is logged once in this time."""
LOOKS_MAX = 4096
PROGRAM = "program"
STATIC = ("console.css", "login.css", "console.js", "dom.js", "map.js", "phrases.js")
DRAWN = ("street", "building", "school", "danger", "reader", "gate", "crossing")
"""Kinds of features in the site file that are drawn. Homes are not drawn: dispatchers do not need them."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
}


def make_app(city: City) -> FastAPI:
    """Return the app. Raises `OperatorsError` for an unusable operators' file, `ValueError` for an unusable map."""
    web = city.config.web
    token = first_line(web.token_file) if web.token_file else None
    login = Login(city.store, city.clock, Path(web.operators_file), token)
    site_map = (
        read_map(Path(city.config.map.file)) if city.config.map else {"type": "FeatureCollection", "features": []}
    )
    looked: dict[tuple[str, str, str], float] = {}
    pages = Environment(loader=PackageLoader("city", "pages"), autoescape=True, undefined=StrictUndefined)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        city.stream.attach(asyncio.get_running_loop())
        gathering = asyncio.create_task(city.stream.run())
        await run_in_threadpool(city.start)
        yield
        city.stream.close()
        await gathering
        await run_in_threadpool(city.stop)

    app = FastAPI(title="Ansim city", version="0.1", docs_url=None, redoc_url=None, lifespan=lifespan)

    app.add_middleware(_Headers)

    def who(request: Request, authorization: Annotated[str | None, Header()] = None) -> str:
        """Return the account that asks. 401 if there is none, 403 for a POST from a page of another host."""
        scheme, _, given = (authorization or "").partition(" ")
        if authorization is not None:
            if scheme.lower() == "bearer" and login.is_token(given.strip()):
                return PROGRAM
            raise HTTPException(401, "this token is not the one in web.token_file", {"WWW-Authenticate": "Bearer"})
        name = login.who(request.cookies.get(COOKIE))
        if name is None:
            raise HTTPException(401, "log in at /login, or send Authorization: Bearer", {"WWW-Authenticate": "Bearer"})
        if request.method == "POST":
            same_origin(request)
        return name

    def same_origin(request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is None or urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, "this press did not come from a page of this city")

    def look(request: Request, name: str, what: str) -> None:
        """Log the look before it is answered, the same one once a minute."""
        address = request.client.host if request.client else ""
        key, now_s = (name, what, address), city.clock()
        if now_s - looked.get(key, 0.0) >= LOOK_S:
            if len(looked) >= LOOKS_MAX:
                looked.clear()
            city.looked(name, what, address)
            looked[key] = now_s

    Who = Annotated[str, Depends(who)]

    # ---- pages ------------------------------------------------------------------------------------------------------

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> Response:
        name = login.who(request.cookies.get(COOKIE))
        if name is None:
            return RedirectResponse("/login", 303)
        look(request, name, "page")
        return HTMLResponse(
            pages.get_template("console.html").render(operator=name, site=city.config.site, timezone=web.timezone)
        )

    @app.get("/login", response_class=HTMLResponse, include_in_schema=False)
    def login_page() -> Response:
        return HTMLResponse(pages.get_template("login.html").render(site=city.config.site, problem="", name=""))

    @app.post("/login", response_class=HTMLResponse, include_in_schema=False)
    def log_in(
        request: Request,
        operator: Annotated[str, Form(max_length=64)],
        passcode: Annotated[str, Form(max_length=256)],
    ) -> Response:
        same_origin(request)
        address = request.client.host if request.client else ""
        wait_s = login.brake.wait_s(operator, address)
        try:
            good = not wait_s and login.check(operator, passcode)
        except Busy:
            wait_s = 2.0
        if wait_s:
            problem, code = f"Too many attempts. Try again in {wait_s:.0f} s.", 429
        elif not good:
            login.brake.failed(operator, address)
            city.looked(operator if operator.isprintable() else "?", "login refused", address)
            problem, code = "Name or passcode is wrong.", 401
        else:
            cookie = login.open(operator)
            city.looked(operator, "login", address)
            response = RedirectResponse("/", 303)
            response.set_cookie(
                COOKIE, cookie, httponly=True, samesite="strict", secure=web.secure_cookie, max_age=12 * 3600
            )
            return response
        page = pages.get_template("login.html").render(site=city.config.site, problem=problem, name=operator)
        headers = {"Retry-After": f"{wait_s:.0f}"} if wait_s else None
        return HTMLResponse(page, code, headers)

    @app.post("/logout", include_in_schema=False)
    def log_out(request: Request, name: Who) -> Response:
        login.end(request.cookies.get(COOKIE, ""))
        city.looked(name, "logout", request.client.host if request.client else "")
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    @app.get("/map.geojson", include_in_schema=False)
    def map_file(name: Who) -> Response:
        return JSONResponse(site_map, media_type="application/geo+json")

    @app.get("/static/{file}", include_in_schema=False)
    def static(file: str) -> Response:
        if file not in STATIC:
            raise HTTPException(404)
        path = resources.files("city.pages") / file
        return FileResponse(str(path))

    app.mount("/leaflet", StaticFiles(directory=xstatic.pkg.leaflet.BASE_DIR))

    # ---- the interface ----------------------------------------------------------------------------------------------

    @app.get("/api/state")
    def state(request: Request, name: Who) -> dict[str, Any]:
        """Everything that the page shows, and `position`, from where GET /events?after= continues."""
        look(request, name, "state")
        snapshot = city.snapshot()
        new = [i["number"] for i in snapshot["incidents"] if i["shown_at"] is None and i["state"] == "new"]
        city.shown(new, name)
        return snapshot

    @app.get("/api/incidents")
    def incident_list(
        request: Request, name: Who, open: bool = False, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> dict[str, Any]:
        """Incidents with the time of every hop, their alarms, what each lamp shows, and the log. Unix seconds."""
        look(request, name, "incidents")
        return city.incident_list(open_only=open, limit=limit)

    @app.post("/api/incidents/{number}/acknowledge")
    def acknowledge(number: int, name: Who) -> dict[str, Any]:
        """Acknowledge an incident: the child's lamp will show that help comes. A second time does not change it."""
        return _act(city.acknowledge, number, name)

    @app.post("/api/incidents/{number}/close")
    def close(number: int, name: Who) -> dict[str, Any]:
        """Close an acknowledged incident. 409 for a new one."""
        return _act(city.close, number, name)

    @app.get("/api/stats")
    def stats(request: Request, name: Who) -> dict[str, Any]:
        """How much was stored, duplicate, missed and refused, and the watermarks of each lane."""
        look(request, name, "stats")
        return city.stats()

    def room() -> None:
        if city.stream.streams >= STREAMS_MAX:
            raise HTTPException(503, f"{STREAMS_MAX} streams are open; close a page", {"Retry-After": "10"})

    @app.get("/events", response_class=EventSourceResponse, dependencies=[Depends(room)])
    async def events(
        request: Request,
        name: Who,
        after: str | None = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """The stream: `incident`, `words`, `tick`; `reset` if it cannot resume from the id: read the state again."""
        await run_in_threadpool(look, request, name, "events")
        checked_s = time.monotonic()
        async for item in city.stream.listen(last_event_id or after):
            if name != PROGRAM and time.monotonic() - checked_s > LOOK_S:  # a session may have ended meanwhile
                checked_s = time.monotonic()
                if await run_in_threadpool(login.who, request.cookies.get(COOKIE)) != name:
                    return
            yield ServerSentEvent(raw_data=item.data, event=item.event, id=item.id or None)
            if item.incident is not None and '"shown_at":null' in item.data:
                await run_in_threadpool(city.shown, [item.incident], name)

    @app.get("/healthz")
    def healthz() -> Response:
        """200 while both lanes and the store work, else 503."""
        lanes = {lane: bool(of["connected"]) for lane, of in city.lanes().items()}
        store_ok = city.clock() - city.store_ok_at < 10
        ok = store_ok and all(lanes.values())
        return JSONResponse({"ok": ok, "lanes": lanes, "store": store_ok}, 200 if ok else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request, authorization: Annotated[str | None, Header()] = None) -> Response:
        """Prometheus text, for this machine or with the token. A request through a proxy is not this machine's."""
        local = request.client is not None and request.client.host in ("127.0.0.1", "::1")
        proxied = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via"))
        trusted = local and not proxied and authorization is None
        if not trusted and who(request, authorization) != PROGRAM:
            raise HTTPException(403, "metrics are for this machine, or for a program with the token")
        return Response(metrics_of(city), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    return app


class _Headers:
    """Adds HEADERS to every answer. It is plain ASGI, so a stream passes through unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                kept = scope["path"].startswith(("/static/", "/leaflet/"))
                headers.setdefault("Cache-Control", "no-cache" if kept else "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _act(action: Callable[[int, str], dict[str, Any]], number: int, who: str) -> dict[str, Any]:
    try:
        return action(number, who)
    except KeyError:
        raise HTTPException(404, f"no incident {number}") from None
    except WrongState as error:
        raise HTTPException(409, str(error)) from None


def read_map(path: Path) -> dict[str, Any]:
    """Return the site's map, only what is drawn. Raises ValueError if it is not GeoJSON or has no attribution."""
    try:
        site = json.loads(path.read_text("utf-8"))
        features = [f for f in site["features"] if f["properties"].get("kind") in DRAWN and f["geometry"]]
        if not str(site["attribution"]).strip():
            raise KeyError("attribution")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"map {path}: {type(error).__name__} {error}; it must be a GeoJSON FeatureCollection with `attribution`, "
            f"its features with properties.kind of {', '.join(DRAWN)}"
        ) from None
    return {"type": "FeatureCollection", "attribution": site["attribution"], "features": features}
