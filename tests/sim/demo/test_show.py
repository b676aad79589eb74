"""The picture in the terminal: whatever its size, what matters most is wholly there, and nothing is wider or higher."""

import asyncio
import io
import os

import pytest
from rich.cells import cell_len
from rich.console import ConsoleDimensions
from rich.text import Text

from sim.demo import show
from sim.demo.lamp import Sight
from sim.demo.show import ChildRow, PressRow, Said, Show, View, picture

ADDRESS, NAME, PASSCODE = "http://127.0.0.1:43211/", "desk", "7WQ2K-M9XRT-4HJPD-C3VNB"
LONG_ADDRESS = "http://127.0.0.1:43211/" + "a-very-long-path-" * 5
HOPS = ("gateway", "city", "page", "lamp: received", "acknowledged", "lamp: help is coming")
SIZES = ((40, 12), (40, 24), (80, 24), (120, 30), (160, 50))
MANY = [
    (columns, rows) for columns in (30, 33, 47, 59, 60, 79, 100, 119, 120, 133, 200) for rows in (8, 9, 13, 19, 20, 40)
]
ASK = "press Acknowledge"
FOLDER = "run/demo-20260301-101500"


def press(kind: str, who: str, reached: int) -> PressRow:
    """Return a press that has reached so many hops: 4 are those before somebody presses Acknowledge."""
    return PressRow(kind, who, [(name, 0.3 * n if n < reached else None) for n, name in enumerate(HOPS)])


def child(number: int, *, crying: bool = False, tag: str = "") -> ChildRow:
    inside = number % 4 == 0
    return ChildRow(
        tag or f"tag-{number:03d}",
        "in school" if inside else "walking",
        3.0 * number,
        crying,
        inside,
        "moving",
        12.0,
        2.0,
    )


def view(presses: int = 0, children: int = 20, *, address: str = ADDRESS, tag: str = "", done: int = 0) -> View:
    counts = {"heard": 341, "beacons": 597, "bytes_up": 7328, "lag_ms": 2337}
    lamps: dict[int, Sight] = {1: "received", 2: "received", 3: "received", 4: "dark", 5: "help", 7: "steady"}
    rows = [press("SOS", tag or f"tag-{n:03d}", 6 if n <= done else 4) for n in range(1, presses + done + 1)]
    kids = [child(n, crying=n == 17, tag=tag and f"{tag}{n}") for n in range(1, children + 1)]
    readers = [(n, n != 3) for n in range(1, 13)]
    return View(address, NAME, PASSCODE, 34.0, None, kids, rows, readers, counts, lamps, FOLDER)


def lines(last: str = "page: incident 2, bell of bell04") -> list[Said]:
    said = [Said(10.0 + n, f"pole {n} beeps, flashes twice and pauses: help is coming", "good") for n in range(40)]
    return [*said, Said(162.1, last, "alarm")]


BEFORE = View("", "", "", 0.0, None)
READY = View(ADDRESS, NAME, PASSCODE, 0.0, None)
LONG = "gateway: this reader joined the network again after it was away for 71 s, over pole 4 and pole 11"
KOREAN = "안심학교정문앞"
SCENES: dict[str, tuple[View, list[Said]]] = {
    "before": (BEFORE, lines()[:1]),
    "ready": (READY, lines()[:3]),
    "one": (view(1), lines()),
    "answered": (view(1, done=4), lines()),
    "crowd": (view(1, 500), lines()),
    "many": (view(9, 500), lines()),
    "address": (view(0, address=LONG_ADDRESS), lines()),
    "long": (view(1), lines(LONG)),
    "korean": (view(1, tag=KOREAN), lines(f"page: incident 2, sos of {KOREAN}")),
    "nobody said": (view(1), []),
}


def bare(text: str) -> str:
    """Return a text without its blanks, as it is when its lines are joined."""
    return "".join(text.split())


def check_is_whole(name: str, columns: int, rows: int) -> list[Text]:
    seen, said = SCENES[name]
    drawn = picture(seen, said, columns, rows)
    text = "\n".join(line.plain for line in drawn)
    assert len(drawn) <= rows, text
    assert all(cell_len(line.plain) <= columns for line in drawn), text
    assert "…" not in text
    joined = bare("".join(_left(line.plain) for line in drawn))
    for must in (seen.address or "starting ...", seen.operator, seen.passcode, said[-1].text if said else ""):
        assert bare(must) in joined, f"{must} is not in\n{text}"
    waiting = [row for row in seen.presses if row.waits]
    if waiting:
        assert bare(f"{waiting[0].kind} {waiting[0].who}: open the page, log in, {ASK}") in joined, text
        told = sum(line.plain.count("open the page") for line in drawn)
        assert told == len(waiting) or f"and{len(waiting) - told}morewait" in joined, text
    return drawn


def _left(line: str) -> str:
    """Return the left one of two columns: five blanks or more are between them, and none within a line."""
    return line.split("     ")[0] if line[:1] != " " else "   " + line.strip().split("     ")[0]


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_what_matters_is_wholly_there(name: str, columns: int, rows: int) -> None:
    check_is_whole(name, columns, rows)


@pytest.mark.parametrize(("columns", "rows"), MANY)
def test_a_press_that_waits_is_there_in_any_terminal(columns: int, rows: int) -> None:
    for name in ("before", "ready", "one", "answered", "many")[: 4 if rows < 9 else 5]:
        check_is_whole(name, columns, rows)


@pytest.mark.parametrize("columns", [1, 2, 5, 12, 29, 300])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_no_terminal_is_too_small_to_draw(columns: int, rows: int) -> None:
    for seen, said in SCENES.values():
        drawn = picture(seen, said, columns, rows)
        assert len(drawn) <= rows
        assert columns < 16 or all(cell_len(line.plain) <= columns for line in drawn)


@pytest.mark.parametrize(
    ("reached", "said"), [(1, "on its way to the page"), (2, "on its way to the page"), (3, "open the page, log in")]
)
def test_nobody_is_sent_to_a_page_that_has_no_incident_yet(reached: int, said: str) -> None:
    seen = View(ADDRESS, NAME, PASSCODE, 34.0, None, presses=[press("SOS", "tag-001", reached)])
    (line,) = (line.plain for line in picture(seen, lines(), 80, 24) if "SOS tag-001: " in line.plain)
    assert line.startswith(f"SOS tag-001: {said}")


def test_of_a_terminal_of_five_lines_the_page_and_the_press_have_all() -> None:
    text = "".join(line.plain for line in picture(view(1), lines(LONG), 40, 5))
    assert bare(PASSCODE) in text
    assert bare(ASK) in bare(text)


def test_a_narrow_terminal_leaves_out_columns_and_a_wide_one_has_them_beside_the_lines() -> None:
    heads = {}
    for columns, rows in ((40, 40), (80, 40), (160, 50)):
        drawn = check_is_whole("one", columns, rows)
        heads[columns] = next(line.plain for line in drawn if "the city says" in line.plain)
    assert heads[40].split() == ["tag", "where", "it", "is", "the", "city", "says"]
    assert heads[80].endswith("within  seen")
    assert heads[160].startswith(f"SOS tag-001: open the page, log in, {ASK}"), "beside what to do next"
    assert heads[160].endswith("within  seen")


def test_as_many_children_as_fit_and_the_one_who_presses_first() -> None:
    text = [line.plain for line in check_is_whole("crowd", 80, 24)]
    at = next(n for n, line in enumerate(text) if "where it is" in line)
    assert text[at + 1].startswith("tag-017 SOS")
    assert [line for line in text if line.startswith("and ") and line.endswith(" more")] == ["and 497 more"]
    text = [line.plain for line in check_is_whole("one", 160, 50)]
    assert sum("tag-0" in line and ("walking" in line or "in school" in line) for line in text) == 20


def test_a_line_for_lamps_counts_neighbours_together() -> None:
    text = "\n".join(line.plain for line in check_is_whole("one", 80, 24))
    assert "lamps received: 1-3   help is coming: 5   lit and stuck: 7" in text
    assert "readers 11 of 12   without power or network: 3" in text


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def run(screen: Show, seen: View, *said: str) -> None:
    async def story() -> None:
        screen.start(lambda: seen)
        for text in said:
            screen.say(text)
        screen.stop()

    asyncio.run(story())


@pytest.mark.parametrize("term", ["", "dumb"])
def test_a_terminal_without_movement_has_plain_lines_and_the_login_once(
    plain_environment: pytest.MonkeyPatch, term: str
) -> None:
    plain_environment.setenv("TERM", term)
    out = Terminal()
    run(Show(out), view(1), "first", "second")
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count(f"page {ADDRESS}  name {NAME}  passcode {PASSCODE}") == 1
    assert [line.split("  ")[-1] for line in out.getvalue().splitlines()][::2] == ["first", "second"]


def test_a_pipe_has_plain_lines_and_no_passcode(plain_environment: pytest.MonkeyPatch) -> None:
    plain_environment.setenv("TERM", "xterm-256color")
    plain_environment.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    run(Show(out), view(1), "first", "x" * 300)
    assert "\x1b" not in out.getvalue()
    assert PASSCODE not in out.getvalue()
    assert len(out.getvalue().splitlines()) == 2, "a long line is one line"


def test_a_start_in_the_background_has_plain_lines_for_no_ctrl_c_reaches_it(
    plain_environment: pytest.MonkeyPatch,
) -> None:
    plain_environment.setenv("TERM", "xterm")
    plain_environment.setattr(show, "in_background", lambda _: True)
    out = Terminal()
    run(Show(out), view(1), "first")
    assert "\x1b[?1049h" not in out.getvalue()
    assert PASSCODE in out.getvalue()


def test_a_terminal_that_is_gone_is_an_error(plain_environment: pytest.MonkeyPatch) -> None:
    plain_environment.setenv("TERM", "xterm")
    out = Terminal()
    screen = Show(out)
    plain_environment.setattr(Terminal, "isatty", lambda _: False)
    with pytest.raises(BrokenPipeError):
        run(screen, view(1), "first")


def test_a_reader_that_is_gone_is_an_error_and_no_answer() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        Show(os.fdopen(writing, "w", closefd=False)).say("first")
    os.close(writing)


def test_a_pipe_has_each_line_when_it_is_said(plain_environment: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as writer:
        screen = Show(writer)
        screen.say("first")
        assert reader.read(100).endswith(b"first\n")
        screen.say("\x1b[2Jsecond\nline \udcff")
        assert b"\x1b" not in (told := reader.read(100))
        assert told.endswith(b"second line  \n")


def test_colours_go_with_no_color_and_the_picture_stays(plain_environment: pytest.MonkeyPatch) -> None:
    plain_environment.setenv("TERM", "xterm-256color")
    for value, coloured in (("", True), ("1", False)):
        plain_environment.setenv("NO_COLOR", value)
        out = Terminal()
        screen = Show(out)
        screen._console.size = ConsoleDimensions(80, 24)
        run(screen, view(1), "first")
        assert "\x1b[?1049h" in out.getvalue(), "a screen of its own"
        assert ("\x1b[1;36m" in out.getvalue()) == coloured


def test_what_stays_on_the_screen_ends_with_the_lines_the_presses_and_the_folder(
    plain_environment: pytest.MonkeyPatch,
) -> None:
    plain_environment.setenv("TERM", "xterm")
    out = Terminal()
    screen = Show(out)
    screen._console.size = ConsoleDimensions(80, 24)
    run(screen, view(0, done=1), *(f"line {n}" for n in range(50)))
    _, _, after = out.getvalue().rpartition("\x1b[?1049l")
    said = [line.plain for line in map(Text.from_ansi, after.splitlines()) if line.plain.strip()]
    assert [line.split("  ")[-1] for line in said[:50]] == [f"line {n}" for n in range(50)]
    assert said[50].startswith("SOS tag-001   gateway +0.00 s")
    assert said[-1] == f"files of this run: {FOLDER}"


def test_the_picture_follows_the_size_of_the_terminal_and_is_drawn_by_the_loop(
    plain_environment: pytest.MonkeyPatch,
) -> None:
    plain_environment.setenv("TERM", "xterm")
    plain_environment.setattr(show, "REFRESH_PER_S", 200)
    out, looks, drawn = Terminal(), [0], asyncio.Event()
    screen = Show(out)

    def look() -> View:
        """Two looks at one size: the first of them has been drawn."""
        width = screen._console.width
        looks.append(width)
        if looks[-2] == width:
            drawn.set()
        return view(1)

    async def story() -> None:
        screen._console.size = ConsoleDimensions(80, 24)
        screen.start(look)
        await asyncio.wait_for(drawn.wait(), 20)
        drawn.clear()
        screen._console.size = ConsoleDimensions(40, 12)
        await asyncio.wait_for(drawn.wait(), 20)
        rows = out.getvalue().rpartition("\x1b[H")[2].splitlines()
        assert [cell_len(Text.from_ansi(row).plain) for row in rows] == [40] * 12
        screen.stop()

    asyncio.run(story())
