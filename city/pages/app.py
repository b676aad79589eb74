"""The pages and the HTTP interface: FastAPI over a `city.server.City`. Nothing on a page comes from another host.

The login page, the static files, /healthz and /openapi.json are open. Everything else needs a session (a browser) or a
token (a program); /metrics needs the token. A POST with a session must come from a page of this host. Every look,
except at the map, and every action is logged with the name of the account.
"""

import asyncio
import contextlib
import hashlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
import prometheus_client
import structlog
import xstatic.pkg.leaflet
from fastapi import Depends, FastAPI, Form, Header, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from city.config import first_line
from city.incidents import WrongState
from city.page_stream import StreamsFull
from city.pages.calls import add_calls
from city.pages.connections import Connections
from city.pages.login import KNOWN_S, Busy, Login
from city.pages.metrics import metrics_of
from city.pages.site_map import read_map
from city.server import City
from city.standby import StandbyFull

COOKIE = "ansim_session"
KNOWN_COOKIE = "ansim_browser"
"""Says that an operator has logged in from this browser before. It opens nothing. The limit on wrong passcodes
does not count it."""
BODY_MAX = 16 * 1024
"""Bytes of a request's body. The longest form is the login's."""
READING_MAX = 4
"""Whole states that are put together at a time. The others wait without a thread: a press always finds one."""
REFUSED_MAX = 30
"""Refused logins that are logged in the store in a minute. Strangers cause them, and must not fill a disk."""
LOOK_S = 60.0
"""Seconds. The same look by the same account is logged once in this time."""
LOOKS_MAX = 4096
PROGRAM = "program"

log = structlog.get_logger()

STATIC = tuple(
    sorted(file.name for file in resources.files("city.pages").iterdir() if file.name.endswith((".css", ".js")))
)
"""Scripts and style sheets: what a browser may fetch without a login."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
}


def make_app(city: City, connections: Connections | None = None) -> FastAPI:
    """Return the app. Raises `OperatorsError` for an unusable operators' file.

    connections: of the server that will serve it, for its figures.
    """
    web = city.config.web
    token = first_line(web.token_file) if web.token_file else None
    login = Login(city.store, city.clock, Path(web.operators_file), token)
    site_map = (
        read_map(Path(city.config.map.file)).site if city.config.map else {"type": "FeatureCollection", "features": []}
    )
    build = _build()
    looked: dict[tuple[str, str, str], float] = {}
    refused: deque[float] = deque(maxlen=REFUSED_MAX)
    said: dict[str, tuple[float, int]] = {}
    reading = asyncio.Semaphore(READING_MAX)
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

    app = FastAPI(
        title="Ansim city", version="0.1", docs_url=None, redoc_url=None, lifespan=lifespan, max_body_size=BODY_MAX
    )

    app.add_middleware(_Headers)
    if web.proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(web.proxies))

    def say(words: str, **more: str) -> None:
        """Log what strangers can cause, once in LOOK_S for the same words, with the count of those not logged."""
        at_s, times = said.get(words, (None, 0))
        now_s = time.monotonic()
        if at_s is None or now_s - at_s >= LOOK_S:
            log.warning(words, not_logged=times, **more)
            at_s, times = now_s, -1
        said[words] = (at_s, times + 1)

    @app.exception_handler(RequestValidationError)
    def not_understood(_request: Request, error: RequestValidationError) -> Response:
        """400 with the part that is wrong. What was sent is not repeated: it may be a passcode."""
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
        return JSONResponse({"detail": "; ".join(wrong)}, 400)

    @app.exception_handler(SQLAlchemyError)
    def no_store(request: Request, error: SQLAlchemyError) -> Response:
        """503: the store is away, locked or full. The lanes and the duty report the same to the pages."""
        say("store_failed", path=request.url.path[:80], detail=str(error)[:200])
        text = "the city cannot reach its store now; nothing was changed; try again"
        return JSONResponse({"detail": text}, 503, {"Retry-After": "2"})

    def who(request: Request, authorization: Annotated[str | None, Header()] = None) -> str:
        """Return the account that asks. 401 if there is none, 403 for a POST from a page of another host."""
        scheme, _, given = (authorization or "").partition(" ")
        if authorization is not None:
            if scheme.lower() == "bearer" and login.is_token(given.strip()):
                prove(request, PROGRAM)
                return PROGRAM
            raise HTTPException(401, "this token is not the one in web.token_file", {"WWW-Authenticate": "Bearer"})
        name = login.who(request.cookies.get(COOKIE))
        if name is None:
            raise HTTPException(401, "log in at /login, or send Authorization: Bearer", {"WWW-Authenticate": "Bearer"})
        prove(request, name)
        if request.method == "POST":
            same_origin(request)
        return name

    def prove(request: Request, name: str) -> None:
        """Tell the server whose connection this is, if it is ours (`city.pages.connections`)."""
        of_connection = request.scope.get("state", {}).get("prove")
        if of_connection is not None:
            of_connection(name)

    def same_origin(request: Request) -> None:
        _, _, host = request.headers.get("origin", "").partition("://")
        if not host or host != request.headers.get("host"):
            raise HTTPException(403, "this press did not come from a page of this city")

    def address_of(request: Request) -> str:
        """Return where a request comes from: what a proxy of `web.proxies` says, else the peer."""
        return request.client.host if request.client else ""

    def note_refused(name: str, address: str) -> None:
        now_s = city.clock()
        if len(refused) < REFUSED_MAX or now_s - refused[0] >= 60.0:
            refused.append(now_s)
            city.looked(name if name.isprintable() else "?", "login refused", address)

    def look(request: Request, name: str, what: str) -> None:
        """Log the look before it is answered, the same one once a minute."""
        address = address_of(request)
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
        prove(request, name)
        look(request, name, "page")
        return HTMLResponse(
            pages.get_template("console.html").render(
                operator=name, site=city.config.site, timezone=web.timezone, build=build
            )
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
        address = address_of(request)
        if not web.proxies and "x-forwarded-for" in request.headers:
            say("proxy_unknown", peer=address, next="name the proxy in web.proxies, or all share one address")
        known = login.is_known(operator, request.cookies.get(KNOWN_COOKIE))
        wait_s = 0.0 if known else login.brake.wait_s(operator, address)
        try:
            good = not wait_s and login.check(operator, passcode, address, known=known)
        except Busy:
            wait_s = 2.0
        if wait_s:
            problem, code = f"Too many attempts. Try again in {wait_s:.0f} s.", 429
        elif not good:
            if not known:
                login.brake.failed(operator, address)
            note_refused(operator, address)
            problem, code = "Name or passcode is wrong.", 401
        else:
            cookie = login.open(operator)
            prove(request, operator)
            city.looked(operator, "login", address)
            response = RedirectResponse("/", 303)
            response.set_cookie(
                COOKIE, cookie, httponly=True, samesite="strict", secure=web.secure_cookie, max_age=12 * 3600
            )
            response.set_cookie(
                KNOWN_COOKIE,
                login.browser_cookie(operator),
                path="/login",
                httponly=True,
                samesite="strict",
                secure=web.secure_cookie,
                max_age=int(KNOWN_S),
            )
            return response
        page = pages.get_template("login.html").render(site=city.config.site, problem=problem, name=operator)
        headers = {"Retry-After": f"{wait_s:.0f}"} if wait_s else None
        return HTMLResponse(page, code, headers)

    @app.post("/logout", include_in_schema=False)
    def log_out(request: Request, name: Who) -> Response:
        login.end(request.cookies.get(COOKIE, ""))
        city.looked(name, "logout", address_of(request))
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

    add_calls(app, city, pages, who=who, look=look)

    # ---- the interface ----------------------------------------------------------------------------------------------

    @app.get("/api/state")
    async def state(request: Request, name: Who) -> Response:
        """Everything that the page shows, and `position`, from where GET /events?after= continues."""

        def read() -> Response:
            look(request, name, "state")
            snapshot = city.snapshot()
            new = [i["number"] for i in snapshot["incidents"] if i["shown_at"] is None and i["state"] == "new"]
            return _json(snapshot, BackgroundTask(city.shown, new, name))  # no operator waits for thirty commits

        async with reading:
            return await run_in_threadpool(read)

    @app.get("/api/incidents")
    async def incident_list(
        request: Request, name: Who, open: bool = False, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> Response:
        """Incidents with the time of every hop, their alarms, what each lamp shows, and the log. Unix seconds."""

        def read() -> Response:
            look(request, name, "incidents")
            return _json(city.incident_list(open_only=open, limit=limit))

        async with reading:
            return await run_in_threadpool(read)

    @app.post("/api/incidents/{number}/acknowledge")
    def acknowledge(number: str, name: Who) -> dict[str, Any]:
        """Acknowledge an incident: the child's lamp will show that help comes. A second time does not change it."""
        return _act(city.acknowledge, number, name)

    @app.post("/api/incidents/{number}/close")
    def close(number: str, name: Who) -> dict[str, Any]:
        """Close an acknowledged incident. 409 for a new one."""
        return _act(city.close, number, name)

    @app.get("/api/stats")
    def stats(request: Request, name: Who) -> dict[str, Any]:
        """How much was stored, duplicate, missed and refused, and the watermarks of each lane."""
        look(request, name, "stats")
        return city.stats()

    async def seat(name: Who) -> AsyncIterator[None]:
        """Hold a place from before the stream is answered until it has ended; 503 if there is none."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(city.stream.seat(name))
            except StreamsFull as error:
                raise HTTPException(503, str(error), {"Retry-After": "10"}) from None
            yield

    @app.get("/events", response_class=EventSourceResponse, dependencies=[Depends(seat, scope="request")])
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
        """200 while both lanes, the store, every thread and the log work and emergencies arrive, else 503. `problems`
        names the parts; of them only `link` makes no 503."""
        lanes = {lane: bool(of["connected"]) for lane, of in city.lanes().items()}
        store_ok = city.clock() - city.store_ok_at < 10 and not city.standby.active
        problems = sorted({problem.partition(":")[0] for problem in city.problems()})  # the words are for operators
        ok = store_ok and all(lanes.values()) and not set(problems) - {"link"}  # anyone may forge a message
        return JSONResponse({"ok": ok, "lanes": lanes, "store": store_ok, "problems": problems}, 200 if ok else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request, authorization: Annotated[str | None, Header()] = None) -> Response:
        """Prometheus text for a program with the token, from wherever it asks: a proxy makes every peer look local."""
        if who(request, authorization) != PROGRAM:
            raise HTTPException(403, "metrics are for a program with the token, or at web.metrics_port of this machine")
        return Response(metrics_of(city, connections), media_type=prometheus_client.CONTENT_TYPE_LATEST)

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


def _json(value: Any, after: BackgroundTask | None = None) -> Response:
    """Return an answer that the city has put together itself: it needs no check by a schema, which takes long."""
    return Response(msgspec.json.encode(value), media_type="application/json", background=after)


def _act(action: Callable[[int, str], dict[str, Any]], number: str, who: str) -> dict[str, Any]:
    try:
        if not re.fullmatch(r"[0-9]{1,10}", number):
            raise KeyError(number)
        return action(int(number), who)
    except KeyError:
        raise HTTPException(404, f"no incident {number[:20]}") from None
    except WrongState as error:
        raise HTTPException(409, str(error)) from None
    except StandbyFull as error:
        raise HTTPException(503, str(error)) from None
    except SQLAlchemyError as error:  # not even memory could take it now
        raise HTTPException(503, f"the city cannot write now ({type(error).__name__})") from None


def _build() -> str:
    """Return a name of the page's files as they are: a tab never shares the worker of an older page."""
    home = resources.files("city.pages")
    return hashlib.sha256(b"".join((home / name).read_bytes() for name in STATIC)).hexdigest()[:16]
