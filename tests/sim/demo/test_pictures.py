"""The pictures of the terminal in docs: small, of no other host, and with what the pages promise."""

import html
import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.pictures import FOLDER, SIZES, svg
from tests.sim.demo.test_show import lines, view

SIZE_MAX_B = 60_000


def words(text: str) -> str:
    """Return what a picture says, without blanks."""
    shown = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", text))
    return re.sub(r"\s", "", html.unescape(shown))


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_a_picture_of_the_docs_is_small_and_shows_what_matters(columns: int, rows: int) -> None:
    path = FOLDER / f"terminal-{columns}.svg"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < SIZE_MAX_B
    hosts = set(re.findall(r"\w+://[^/\"'<\s)]+", html.unescape(text)))
    assert {re.sub(r":\d+$", "", host) for host in hosts} == {"http://www.w3.org", "http://127.0.0.1"}
    assert "url(h" not in text
    said = words(text)
    assert re.search(r"pagehttp://127\.0\.0\.1:\d+/namedeskpasscode[a-z0-9]{5}(-[a-z0-9]{5}){3}", said)
    assert re.search(r"BELLbell\d\d:openthepage,login,pressAcknowledge", said)
    assert "helpiscoming:" in said, "and a lamp has answered the press before"
    assert re.search(r"page:incident\d+,bellofbell\d\d", said)
    assert columns == 40 or "tagwhereitisfromthegatethecitysayswithinseen" in said, "all columns of children"
    assert ElementTree.fromstring(text).tag.endswith("svg")


def test_a_picture_is_made_of_the_lines_that_the_terminal_shows() -> None:
    said = words(svg(view(1), lines(), 80, 24))
    for must in ("SOStag-001:openthepage,login,pressAcknowledge", "page:incident2,bellofbell04", "and17more"):
        assert must in said
