"""The plain list of open calls: what it shows, who may see it and press in it, what it says when it fails."""

import re
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import httpx
import pytest

from city.pages import calls
from tests.city.bed import City, Gateway, danger, sos, wait_for


@pytest.fixture
def operator(city: City) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=city.address, headers={"Origin": city.address}, timeout=10) as client:
        client.post("/login", data={"operator": "kim", "passcode": city.passcode})
        assert client.cookies
        yield client


def cards(page: str) -> list[str]:
    return [f"{title} {state}" for title, state in re.findall(r"<strong>(.*?)</strong> #\d+, (\w+)", page)]


def test_the_plain_list_shows_the_open_calls_and_takes_presses(
    city: City, gateway: Gateway, operator: httpx.Client
) -> None:
    assert "No open incident." in operator.get("/calls").text
    gateway.urgent(1, danger("gw1-e1-1", "t-09"))
    gateway.urgent(2, sos("gw1-e1-2", tag="<b>t-01</b>", readers=(5, 8)))
    gateway.urgent(3, sos("gw1-e1-3", tag="unknown", trust="unverified", where=None, readers=()))
    wait_for("three incidents", lambda: len(city.incidents()) == 3)
    page = operator.get("/calls").text
    assert cards(page) == ["SOS &lt;b&gt;t-01&lt;/b&gt; NEW", "SOS unknown tag NEW", "Danger area t-09 NEW"]
    assert "Heard by readers 5, 8." in page
    assert "UNVERIFIED: call before you send anyone." in page
    assert "No open incident." not in page
    assert "<script" not in page

    answer = operator.post("/calls/2/acknowledge")
    assert (answer.status_code, answer.headers["location"]) == (303, "/calls")
    page = operator.get("/calls").text
    assert cards(page)[0] == "SOS unknown tag NEW"
    assert "Acknowledged by kim." in page
    assert operator.post("/calls/2/acknowledge").status_code == 303  # twice does no harm
    answer = operator.post("/calls/3/close")
    assert (answer.status_code, "acknowledge it first" in answer.text) == (409, True)
    assert operator.post("/calls/2/close").status_code == 303
    assert len(cards(operator.get("/calls").text)) == 2
    for number in (0, 99, 2**63 - 1, 10**30):
        answer = operator.post(f"/calls/{number}/acknowledge")
        assert (answer.status_code, f"There is no incident {number}." in answer.text) == (404, True)


def test_only_an_operator_sees_it_and_only_this_page_presses(
    city: City, gateway: Gateway, operator: httpx.Client
) -> None:
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    wait_for("an incident", city.incidents)
    stranger = httpx.get(f"{city.address}/calls", timeout=10)
    assert (stranger.status_code, "t-01" in stranger.text) == (401, False)
    assert "not known" in stranger.text
    for origin in ("http://elsewhere.example", "null"):
        forged = operator.post("/calls/1/acknowledge", headers={"Origin": origin})
        assert forged.status_code == 403
    assert city.incidents()[0]["state"] == "new"
    policy = operator.get("/calls").headers["content-security-policy"]
    assert "frame-ancestors 'self'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in operator.get("/").headers["content-security-policy"]


def view(**more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "number": 1, "kind": "sos", "state": "new", "subject": "t-01", "trust": "verified", "drill": False,
        "overdue": False, "observed_at": 1_764_500_000.0, "stored_at": 1_764_500_001.0, "cleared_at": None,
        "where": None, "where_at": None, "readers": [10], "acknowledged_by": None, "area": None, "detail": "",
    }  # fmt: skip
    return fields | more


def test_a_repeated_cry_is_below_the_calls_and_says_what_it_is() -> None:
    clock = calls.ZoneClock(1_764_500_010.0, UTC)
    again = calls.worded(view(trust="replayed"), clock)
    assert again["title"] == "Repeated cry t-01"
    assert again["words"].startswith("Somebody repeats this tag's cry near reader 10, since 10:53:20 UTC.")
    order = sorted([view(kind="danger", number=1), view(trust="replayed", number=2), view(number=3)], key=calls.urgency)
    assert [each["number"] for each in order] == [3, 2, 1]


def test_an_incident_that_cannot_be_worded_stands_with_its_press() -> None:
    clock = calls.ZoneClock(1_764_500_010.0, UTC)
    bare = calls.worded(view(where={"geometry": None}), clock)
    assert (bare["number"], bare["action"], bare["title"]) == (1, "acknowledge", "sos t-01")
    assert "Not all of this incident can be shown" in bare["words"]


@pytest.mark.parametrize("name", ["localtime", "right/Asia/Seoul", "Nowhere/Town", "../etc/passwd", ""])
def test_no_time_zone_keeps_the_list_from_the_screen(name: str) -> None:
    assert calls.ZoneClock(1_764_500_010.0, calls.zone_of(name)).now
