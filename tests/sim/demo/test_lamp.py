"""What a person sees of a lamp, by its pattern, its dips and its blips. Real firmware's pins: test_switches.py."""

from collections.abc import Iterable, Iterator

from sim.demo.lamp import Eye, Sight

Edges = Iterable[tuple[float, int]]


def edges(*spans: float, begin_ms: float = 0.0) -> Iterator[tuple[float, int]]:
    """Yield changes: on for the first span, off for the second, ..."""
    for n, span in enumerate(spans):
        yield begin_ms, 1 - n % 2
        begin_ms += span


def watched(changes: Edges, until_ms: float, every_ms: float = 50.0) -> list[Sight]:
    """Return what is seen at every_ms, 2 every_ms, ..."""
    lamp, sights, rows = Eye(), [], sorted(changes, key=lambda row: row[0])
    now_ms = every_ms
    while now_ms <= until_ms:
        while rows and rows[0][0] <= now_ms:
            lamp.feed(*rows.pop(0))
        sights.append(lamp.seen(now_ms))
        now_ms += every_ms
    return sights


def test_received_is_a_second_of_light_and_a_second_of_dark() -> None:
    sights = watched(edges(*[1000] * 10), 12_000)
    assert sights[:10] == ["unclear"] * 9 + ["received"]
    assert set(sights[10:200]) == {"received"}
    assert sights[-1] == "dark", "2.5 s after the last light"


def test_help_is_two_flashes_and_a_pause() -> None:
    sights = watched(edges(*[200, 200, 200, 900] * 5), 10_500)
    assert set(sights[:23]) == {"unclear"}, "the pause belongs to it"
    assert set(sights[23:140]) == {"help"}
    assert sights[-1] == "dark"


def test_a_lamp_that_stays_lit_is_steady_and_so_is_one_that_only_flickers() -> None:
    assert set(watched(edges(100_000), 60_000)[30:]) == {"steady"}
    assert set(watched(edges(*[400, 60] * 200), 60_000)[30:]) == {"steady"}
    assert watched(edges(4000, 0), 4100)[-1] == "steady"
    assert watched(edges(4000, 0), 6600)[-1] == "dark"


def test_light_of_one_call_is_not_seen() -> None:
    """EAGAIN in every pass: on, off at once before the send, 20 ms of sleep."""
    assert set(watched(edges(*[0, 20] * 400), 8000)) == {"dark"}


def test_dips_before_what_may_block_change_nothing() -> None:
    received = [1000, 1000]
    for dip_ms in (0, 20, 45, 90):
        dipped = [300, dip_ms, 700 - dip_ms, 1000]
        assert set(watched(edges(*received, *dipped, *received, *dipped), 8000)[9:]) == {"received"}, dip_ms
        cut = [200, 200, 60, dip_ms, 140 - dip_ms, 900]
        assert set(watched(edges(*[200, 200, 200, 900], *cut, *cut), 5000)[23:]) == {"help"}, dip_ms


def test_no_single_gap_makes_help_of_received() -> None:
    """A send of any length, at any time, in one phase of light: it never looks like two flashes."""
    for begins_ms in range(0, 1000, 20):
        for lasts_ms in range(10, 1000 - begins_ms, 10):
            cut = [begins_ms, lasts_ms, 1000 - begins_ms - lasts_ms, 1000]
            assert "help" not in watched(edges(1000, 1000, *cut, 1000, 1000), 7000, 130.0), (begins_ms, lasts_ms)


def test_help_may_begin_at_any_moment_of_received_and_is_seen_within_two_periods() -> None:
    for at_ms in range(0, 2000, 50):
        rows = [row for row in edges(*[1000] * 8) if row[0] < 2000 + at_ms]
        rows += edges(*[200, 200, 200, 900] * 4, begin_ms=2000 + at_ms)
        sights = watched(rows, 2000 + at_ms + 3000)
        assert sights[-1] == "help", at_ms
        assert "steady" not in sights


def test_an_answer_counts_from_the_first_light_though_a_send_cut_it() -> None:
    lamp = Eye()
    for at_ms, level in edges(300, 500, 200, 1000, 1000, 1000, begin_ms=5000):
        lamp.feed(at_ms, level)
    assert lamp.seen(9000) == "received"
    assert [(spell.sight, spell.since_ms, spell.after) for spell in lamp.spells][1:] == [
        ("unclear", 5000, "dark"),
        ("received", 5000, "dark"),
    ]
