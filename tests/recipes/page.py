"""A page of the city: behind the login, logged as a look, with a style of its own."""

import re
from pathlib import Path
from typing import Any

from tests.recipes.recipe import Edit, Recipe

HOME = "city/pages"


def logged_in(app: Any, folder: Path) -> Any:
    """Return a browser in which the operator of a tested city has logged in."""
    from tests.city.test_interface import HOST, TestedApp

    browser = TestedApp(app, headers={"Origin": HOST})
    form = {"operator": "kim", "passcode": (folder / "passcode").read_text()}
    assert browser.post("/login", data=form).status_code == 303
    return browser


def page_works(folder: Path) -> None:
    """It is closed to strangers, answers who may look with its style sheet, logs the look and escapes what it shows."""
    from sqlalchemy import select

    from city import tables as t
    from city.pages.app import make_app
    from tests.city.test_interface import Clock, TestedApp, made_city

    city = made_city(folder, Clock())
    try:
        app = make_app(city)
        assert TestedApp(app).get("/roster").status_code == 401
        someone = logged_in(app, folder)
        answer = someone.get("/roster")
        assert answer.status_code == 200
        assert "site s" in answer.text
        sheets = re.findall(r'href="(/static/[^"]+)"', answer.text)
        assert sheets
        for sheet in sheets:
            assert someone.get(sheet).status_code == 200, sheet
        with city.store.read() as c:
            assert "roster" in c.execute(select(t.look.c.what)).scalars().all()
    finally:
        city.standby.close()


PAGE = Recipe(
    "a page of the city",
    (
        Edit(
            f"{HOME}/roster.html",
            "",
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Readers - Ansim {{ site }}</title>\n'
            '<link rel="stylesheet" href="/static/roster.css">\n<h1>Readers of site {{ site }}</h1>\n',
        ),
        Edit(f"{HOME}/roster.css", "", "h1 { font-size: 1.2rem; }\n"),
        Edit(
            f"{HOME}/roster.py",
            "",
            '"""The list of the readers of a site."""\n\n'
            "from collections.abc import Callable\n\n"
            "from fastapi import FastAPI, Request, Response\n"
            "from fastapi.responses import HTMLResponse\n"
            "from jinja2 import Environment\n\n"
            "from city.server import City\n\n\n"
            "def add_roster(\n"
            "    app: FastAPI,\n    city: City,\n    pages: Environment,\n    *,\n"
            "    who: Callable[[Request], str],\n    look: Callable[[Request, str, str], None],\n"
            ") -> None:\n"
            '    """Add `/roster`. who: returns the operator of a request, or raises HTTPException."""\n\n'
            '    @app.get("/roster", response_class=HTMLResponse, include_in_schema=False)\n'
            "    def roster(request: Request) -> Response:\n"
            '        look(request, who(request), "roster")\n'
            '        return HTMLResponse(pages.get_template("roster.html").render(site=city.config.site))\n',
        ),
        Edit(
            "city/pages/app.py",
            "    add_calls(app, city, pages, who=who, look=look)\n",
            "    add_calls(app, city, pages, who=who, look=look)\n"
            "    add_roster(app, city, pages, who=who, look=look)\n",
        ),
        Edit(
            "city/pages/app.py",
            "from city.pages.metrics import metrics_of\n",
            "from city.pages.metrics import metrics_of\nfrom city.pages.roster import add_roster\n",
        ),
        Edit(
            "docs/CITY.md",
            "| `GET /healthz` |",
            "| `GET /roster` | the readers of the site as HTML |\n| `GET /healthz` |",
        ),
    ),
    page_works,
    ("tests.test_nothing_missing::test_every_address_of_the_city_is_documented",),
    name="roster",
)
