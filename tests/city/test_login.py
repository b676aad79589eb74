"""The pages need a login: wrong passcodes are slowed down, and requests from another origin are refused."""

import httpx
import pytest
from playwright.sync_api import expect

from city.pages.app import COOKIE, KNOWN_COOKIE
from tests.city.bed import City
from tests.city.screen import Watched, shot

pytestmark = pytest.mark.browser


def test_login_is_asked_for_braked_and_bound_to_this_host(city: City, watched: Watched) -> None:
    for path in ("/api/state", "/api/incidents", "/api/stats", "/events", "/map.geojson"):
        assert httpx.get(city.address + path).status_code == 401
        assert httpx.get(city.address + path, headers={"Authorization": "Bearer " + "x" * 40}).status_code == 401
    page = watched.log_in("wrong")
    shot(page, city.folder, "login")
    expect(page.get_by_role("alert")).to_have_text("Name or passcode is wrong.")
    watched.log_in()
    expect(page.locator("#link-words")).to_have_text("live")
    cookies = {cookie["name"]: cookie for cookie in watched.context.cookies()}
    assert set(cookies) == {COOKIE, KNOWN_COOKIE}
    assert all((cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict") for cookie in cookies.values())
    assert cookies[KNOWN_COOKIE]["path"] == "/login"
    jar = {COOKIE: cookies[COOKIE]["value"]}
    for origin in (None, "http://evil.example", "null"):
        headers = {"Origin": origin} if origin else {}
        answer = httpx.post(f"{city.address}/api/incidents/1/acknowledge", cookies=jar, headers=headers)
        assert answer.status_code == 403
    form: dict[str, str | float | bool] = {"operator": "kim", "passcode": "wrong"}
    own = {"Origin": city.address}
    codes = [httpx.post(f"{city.address}/login", data=form, headers=own, timeout=20).status_code for _ in range(9)]
    assert codes[-1] == 429
    assert httpx.post(f"{city.address}/login", data=form | {"passcode": city.passcode}, headers=own).status_code == 429
    assert httpx.get(f"{city.address}/", cookies=jar).status_code == 200
    known = watched.context.request
    right = form | {"passcode": city.passcode}
    assert known.post(f"{city.address}/login", form=right, headers=own, max_redirects=0).status == 303
