"""Whatever a client asks, the answer is no 500, and it is not megabytes because a gateway sent much."""

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from city import intake
from city.page_stream import EVIDENCE_MAX, LOG_FIRST, LOG_LAST, shortened
from city.pages.app import BODY_MAX, make_app
from city.server import City
from gateway.events import Heard
from tests.city.bed import place, position, sos
from tests.city.test_interface import HOST, TOKEN, Clock, TestedApp, made_city
from tests.city.test_store import NOW_S, batch, urgent

ODD = (
    "", "0", "-1", "9223372036854775808", "1" * 5000, "nan", "1e400", "%00", "%ff%fe", "%ed%a0%80", "..%2f..%2fetc",
    "a" * 3000, "٣", "%0d%0aX:y", "'--", "{{7*7}}", "[", "//", "%", "true", "inf",
)  # fmt: skip
BODIES = (
    b"", b"operator=kim", b"operator=kim&passcode=%00%ed%a0%80", b"operator=%00&passcode=x", b"{" * 3000, b"\xff" * 999,
    b"a=b&" * 3000, b"--x\r\nContent-Disposition: form-data; name=operator\r\n\r\nkim\r\n--x--", b"\r\n--x", b"[1e999]",
)  # fmt: skip
TYPES = (
    "application/x-www-form-urlencoded", "application/json", "multipart/form-data", "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=x; charset=utf-99", "text/plain; charset=\x00", "",
    "multipart/form-data; boundary=" + "y" * 2000,
)  # fmt: skip
HEADERS = (
    {"Origin": "http://["}, {"Origin": "null"}, {"Origin": HOST}, {"Cookie": "ansim_session=" + "x" * 120},
    {"Cookie": 'ansim_session="\\377"; =; ;;'}, {"Authorization": "Bearer"}, {"Authorization": "Bearer \xe9"},
    {"Last-Event-ID": "9" * 5000}, {"X-Forwarded-For": "[::1, ,"}, {"Range": "bytes=9-1,-,x"}, {"If-None-Match": '"'},
    {"Content-Length": "7"}, {},
)  # fmt: skip


@pytest.fixture
def city(tmp_path: Path) -> Iterator[City]:
    city = made_city(tmp_path, Clock(), 'proxies = ["127.0.0.1"]\n')
    intake.store_urgent(city.store, "t", urgent(1, sos("a1")), NOW_S)
    yield city
    city.standby.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_odd_requests_to_every_route_are_never_an_error_of_the_city(city: City, tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    app = make_app(city)
    paths = {getattr(route, "path", "") for route in app.routes} - {"/events"} | {"/leaflet/{path}", "/static/{file}"}
    assert {"/login", "/api/state", "/api/incidents/{number}/acknowledge"} <= paths
    client = TestedApp(app, address="127.0.0.1")
    codes = set()
    for path in sorted(paths):
        for _ in range(25):
            full = re.sub(r"\{\w+\}", lambda _: chance.choice(ODD), path)
            if chance.random() < 0.4:
                full += f"?{chance.choice(('limit', 'open', 'after', 'x'))}={chance.choice(ODD)}"
            headers = dict(chance.choice(HEADERS))
            if chance.random() < 0.5:
                headers.setdefault("Authorization", f"Bearer {TOKEN}")
            method = chance.choice(("GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "BREW"))
            more = {}
            if method in ("POST", "PUT"):
                more["content"] = chance.choice(BODIES)
                headers["Content-Type"] = chance.choice(TYPES)
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = client.ask(method, full, headers=encoded, **more)  # an exception of the app fails here, too
            codes.add(answer.status_code)
            assert answer.status_code < 500 or answer.status_code == 503, (method, full, headers, more)
            assert "Traceback" not in answer.text
    assert {200, 400, 401, 404, 405} <= codes


def test_what_was_wrong_is_said_and_a_passcode_is_not_repeated(city: City) -> None:
    client = TestedApp(make_app(city), headers={"Origin": HOST, "Authorization": f"Bearer {TOKEN}"})
    answer = client.get("/api/incidents?limit=9223372036854775808")
    assert (answer.status_code, "query.limit" in answer.json()["detail"]) == (400, True)
    secret = "s3cret" * 60
    answer = client.post("/login", data={"operator": "kim", "passcode": secret})
    assert (answer.status_code, "body.passcode" in answer.text, "s3cret" in answer.text) == (400, True, False)


def test_a_long_body_is_refused_before_it_is_read(city: City) -> None:
    client = TestedApp(make_app(city), headers={"Origin": HOST})
    for kind in TYPES[:3]:
        answer = client.post("/login", content=b"a=" + b"b" * BODY_MAX, headers={"Content-Type": kind})
        assert answer.status_code == 413


def test_thirty_cries_with_3500_rows_of_evidence_are_a_small_state(city: City) -> None:
    evidence = tuple(Heard(reader=i % 200 + 1, rssi_dbm=-40 - i % 60, packets=4, age_s=0.4) for i in range(3500))
    where = msgspec.structs.replace(place(), evidence=evidence)
    for i in range(2, 32):
        intake.store_urgent(city.store, "t", urgent(i, sos(f"b{i}", tag=f"t-{i}", press=i, where=where)), NOW_S)
    intake.store_batch(city.store, "t", batch(1, *(position(f"p{i}", where=where) for i in range(30))), NOW_S)
    client = TestedApp(make_app(city), headers={"Authorization": f"Bearer {TOKEN}"})
    client.get("/api/state")  # all are marked as shown now
    began = time.perf_counter()
    answer = client.get("/api/state")
    took_s = time.perf_counter() - began
    assert len(answer.content) < 150_000
    assert took_s < 1.5
    cry = next(one for one in answer.json()["incidents"] if one["alarm"] == "b2")
    assert cry["where"]["evidence_more"] == 3500 - EVIDENCE_MAX
    assert {row["rssi_dbm"] for row in cry["where"]["evidence"]} == {-40}, "the strongest are shown"
    word = next(one for one in answer.json()["words"] if one["subject"] == "p2")
    assert len(word["where"]["evidence"]) == EVIDENCE_MAX
    (one, *_) = client.get("/api/incidents").json()["incidents"]
    assert len(one["where"]["evidence"]) == EVIDENCE_MAX


def test_a_state_is_sent_before_its_incidents_are_marked_as_shown(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty new incidents are thirty commits: no operator waits for them before they see the first."""
    order: list[str] = []
    monkeypatch.setattr(city, "shown", lambda numbers, who: order.append(f"shown {numbers} to {who}"))
    app = make_app(city)

    async def told(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            order.append(message["type"])
            await send(message)

        await app(scope, receive, note)

    client = TestedApp(told, headers={"Authorization": f"Bearer {TOKEN}"})  # type: ignore[arg-type]
    assert client.get("/api/state").status_code == 200
    assert order == ["http.response.start", "http.response.body", "shown [1] to program"]


def test_a_view_keeps_the_ends_of_its_long_lists_and_counts_the_rest() -> None:
    log = [{"at": float(i)} for i in range(500)]
    alarms = [{"alarm": f"a{i}", "told": list(range(300))} for i in range(150)]
    short = shortened({"number": 7, "where": None, "log": log, "alarms": alarms})
    assert [line["at"] for line in short["log"]] == [*range(LOG_FIRST), LOG_FIRST, *range(500 - LOG_LAST, 500)]
    assert short["log"][LOG_FIRST]["detail"] == "440 lines are not shown"
    assert (short["log_more"], short["alarms_more"], short["alarms"][-1]["alarm"]) == (440, 50, "a149")
    assert {tuple(alarm["told"]) for alarm in short["alarms"]} == {tuple(range(200, 300))}
    small = {"number": 7, "where": {"evidence": [1]}, "log": [1], "alarms": []}
    assert shortened(small) == small
