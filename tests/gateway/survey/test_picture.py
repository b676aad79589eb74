"""Pictures: well-formed, readable on a phone, true to their data; and the error bound that they are made from."""

import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from gateway.antenna import gain_db
from gateway.recording import DeviceLaw, Floats, RecordedGate, RecordedSite, Survey, TimedFix, Track
from gateway.survey import picture
from gateway.survey.canvas import LINE_CHARS, SMALL_CHARS, TITLE_CHARS, Canvas, Scene
from gateway.survey.expected import NEAR_M, SPREAD_M, Expected, ExpectedLaw
from tests import programs

READERS = np.array([[0.0, 0.0, 3.5], [60.0, 0.0, 3.5], [0.0, 60.0, 3.5], [60.0, 60.0, 3.5]])
SCENE = Scene(
    title='The <yard> & "gate"',
    bounds_m=(-20.0, -20.0, 80.0, 60.0),
    readers=[("1", 0.0, 0.0), ("2", 60.0, 0.0)],
    places=[("school", [(10, 10), (40, 10), (40, 40)])],
    dangers=[("river", [(-20, 50), (80, 50), (80, 60)])],
    paths=[[(-20, 0), (80, 0)]],
    north_up=True,
)
SITE = RecordedSite("yard", (0.0, 0.0, 60.0, 60.0), ("a", "b", "c", "d"), READERS)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert "width" not in root.attrib, "a fixed width would not fit a telephone"
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    for node in root.iter(f"{SVG}text"):
        assert 0 <= float(node.attrib["x"]) <= wide
        assert 0 <= float(node.attrib["y"]) <= high
        most = {"title": TITLE_CHARS, "small": SMALL_CHARS}.get(node.attrib["class"], LINE_CHARS)
        assert len(node.text or "") <= most, f"too long for 360 px: {node.text}"
    return root


def words(root: ElementTree.Element) -> str:
    return "\n".join(node.text or "" for node in root.iter(f"{SVG}text"))


def test_a_picture_says_what_it_is_how_large_and_in_which_units() -> None:
    e = Expected(READERS)
    root = drawn(picture.error_picture(SCENE, e.error_m, e.readers_in_reach, "from distances alone"))
    text = words(root)
    for word in (
        'The <yard> & "gate"',
        "20 m",
        "3 m",
        "metres",
        "reader on its pole",
        "footpath",
        "river",
        "school",
        "N",
    ):
        assert word in text, word
    assert root.find(f"{SVG}title") is not None
    assert "in reach of a reader" in (root.findtext(f"{SVG}desc") or "")


def test_the_map_names_its_makers_only_if_it_has_any() -> None:
    e = Expected(READERS)
    assert "OpenStreetMap" not in picture.reach_picture(SCENE, e.readers_in_reach, "")
    scene = replace(SCENE, attribution="(c) OpenStreetMap contributors, ODbL 1.0")
    assert "Map data (c) OpenStreetMap contributors, ODbL 1.0" in words(
        drawn(picture.reach_picture(scene, e.readers_in_reach, ""))
    )


def _covered(svg: str, colour: str) -> float:
    """Return the area under one colour of the ground, in the picture's units."""
    found = re.search(f'<path fill="{colour}"[^>]* d="([^"]*)"', svg)
    return sum(float(h) * float(v) for h, v in re.findall(r"h([\d.]+)v([\d.]+)", found[1])) if found else 0.0


def test_the_ground_has_the_colour_of_its_value() -> None:
    def left_good_right_poor(xy_m: Floats) -> Floats:
        return np.where(xy_m[:, 0] < 30, 1.0, 100.0)

    def all_but_the_north(xy_m: Floats) -> Floats:
        return np.where(xy_m[:, 1] < 40, 3.0, 0.0)

    svg = picture.error_picture(SCENE, left_good_right_poor, all_but_the_north, "")
    good, poor = (_covered(svg, picture.GOOD_TO_POOR[n]) for n in (0, -1))
    assert good == pytest.approx(poor, rel=0.02)
    whole = 752 * 752 * 0.8
    assert good + poor == pytest.approx(0.75 * whole, rel=0.1)
    assert "75 % of the map" in svg


@pytest.mark.parametrize("bounds", [(0, 0, 400, 5), (0, 0, 5, 400), (0, 0, 0.5, 0.5), (-1e4, -1e4, 1e4, 1e4)])
def test_every_shape_of_zone_fits(bounds: tuple[float, float, float, float]) -> None:
    e = Expected(READERS)
    drawn(picture.reach_picture(replace(SCENE, bounds_m=bounds, title="t " * 60), e.readers_in_reach, "why " * 40))


def test_north_is_up_and_east_is_right() -> None:
    canvas = Canvas(SCENE)
    (west, south), (east, north) = canvas.xy(0, 0), canvas.xy(10, 10)
    assert east > west
    assert north < south
    assert east - west == pytest.approx(south - north)


def test_a_track_shows_what_was_walked_and_what_was_believed() -> None:
    t = np.arange(0.0, 900.0)
    track = Track("w", t, np.zeros(900, dtype=np.int64), np.full(900, -60.0), t, np.column_stack([t / 20, t / 30]))
    fixes = [TimedFix(float(s), s / 20, 10.0, 2.0, 4.0) for s in t] + [TimedFix(0.0, float("nan"), 1e300, 1.0, 1e300)]
    root = drawn(picture.track_picture(SITE, track, fixes, "900 fixes"))
    assert "way walked" in words(root)
    assert 50 < len(list(root.iter(f"{SVG}circle"))) < 600, "a long track is thinned"
    drawn(picture.track_picture(SITE, replace(track, truth_t_s=None, truth_xy_m=None), [], "nothing"))


def test_a_walk_shows_where_it_went() -> None:
    places = np.array([[1.0, 1.0], [1.0, 1.0], [9.0, 1.0]])
    survey = Survey(places, np.full(3, np.nan), np.array([0, 1, 0]), np.full(3, -60.0), np.ones(3))
    root = drawn(picture.walk_picture(picture.scene_of(SITE, "walk"), survey, ["one line"]))
    fills = [node.attrib["fill"] for node in root.iter(f"{SVG}circle")]
    assert fills == [picture.GOOD_TO_POOR[-2], picture.GOOD_TO_POOR[-1]]  # two readers heard it, then one
    drawn(picture.walk_picture(picture.scene_of(SITE, "walk"), Survey.empty(), []))


GATE = RecordedGate("main", "school", (25.0, 10.0), 90.0, 4.0)
GUARDED = replace(
    SCENE,
    readers=[("1", 0.0, 0.0), ("7", 23.0, 8.0), ("8", 27.0, 13.0)],
    gates=[GATE],
    looks=[math.nan, -math.pi / 2, math.pi / 2],
    guards=[None, ("main", "outer"), ("main", "inner")],
)


def corners(node: ElementTree.Element) -> Floats:
    return np.array([point.split(",") for point in node.attrib["points"].split()], dtype=float)


def test_a_gate_is_drawn_in_the_map_and_in_a_plan_with_its_readers() -> None:
    e = Expected(READERS)
    root = drawn(picture.reach_picture(GUARDED, e.readers_in_reach, ""))
    text = words(root)
    for word in (
        "Gate main: 4 m wide, one enters to 0",
        "degrees",
        "7 outer",
        "8 inner",
        "5 m",
        "gate, and its way in",
    ):
        assert word in text, word
    assert "where it hears best" in text
    turned = [node for node in root.iter(f"{SVG}path") if "rotate(270.0)" in node.attrib.get("transform", "")]
    assert len(turned) == 6, "in the map and in the plan: halo, bar and arrow, which points to the north"
    bars = [float(found[1]) for node in turned if (found := re.fullmatch(r"M0 -[\d.]+V([\d.]+)", node.attrib["d"]))]
    assert bars[0] == pytest.approx(4 / 2 * 752 / 100, abs=0.06), "as wide as it is"
    assert bars[-1] > 2 * bars[0], "the plan is larger"
    lobes = [corners(node) for node in root.iter(f"{SVG}polygon") if node.attrib["fill"] != "none"]
    assert len(lobes) == 4, "7 and 8 far enough from each other for the map, and in the plan"
    for south, north in (lobes[:2], lobes[2:]):
        assert np.ptp(south[:, 1]) == pytest.approx(np.ptp(north[:, 1]), abs=0.3)
        assert south[:, 1].mean() > north[:, 1].mean(), "the outer one hears the south"


def test_readers_that_would_cover_each_other_are_drawn_large_in_the_plan_alone() -> None:
    e = Expected(READERS)
    wide = replace(GUARDED, bounds_m=(-400.0, -300.0, 400.0, 300.0))
    root = drawn(picture.error_picture(wide, e.error_m, e.readers_in_reach, ""))
    assert [node.text for node in root.iter(f"{SVG}text") if node.text in ("1", "7", "8", "7 outer", "8 inner")] == [
        "1",
        "7 outer",
        "8 inner",
    ]


def test_a_zone_without_gates_has_no_plan_and_many_gates_have_a_few() -> None:
    e = Expected(READERS)
    assert "gate," not in words(drawn(picture.reach_picture(SCENE, e.readers_in_reach, "")))
    gates = [replace(GATE, id=f"g{n}", inward_deg=40.0 * n, width_m=40.0) for n in range(6)]
    for scene in (replace(GUARDED, gates=gates), replace(GUARDED, gates=gates, north_up=False, looks=[], guards=[])):
        text = words(drawn(picture.reach_picture(scene, e.readers_in_reach, "")))
        assert text.count("40 m wide") == 4
        assert "2 more gates have no plan here." in text


def test_a_recorded_site_shows_its_gates() -> None:
    site = replace(
        SITE, gates=(GATE,), look=np.array([0.0, np.nan, np.nan, np.nan]), guards=(("main", "outer"),) + 3 * (None,)
    )
    scene = picture.scene_of(site, "walk")
    assert scene.gates == (GATE,)
    root = drawn(picture.walk_picture(scene, Survey.empty(), []))
    assert "a outer" in words(root)


def test_a_patch_hears_further_ahead_and_less_far_behind() -> None:
    reader = np.array([[0.0, 0.0, 1.0]])
    dipole, patch = Expected(reader), Expected(reader, look=np.array([0.0]))
    reach_m = dipole.law.reach_m()
    ahead_m, behind_m = reach_m * 10 ** (3 / 25), reach_m * 10 ** (-11 / 25)
    spots = np.array([[0.99 * ahead_m, 0], [1.01 * ahead_m, 0], [-0.99 * behind_m, 0], [-1.01 * behind_m, 0]])
    assert patch.readers_in_reach(spots).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert Expected(reader, look=np.array([np.nan])).error_m(spots).tolist() == dipole.error_m(spots).tolist()


def test_the_bound_of_patches_is_that_of_their_levels() -> None:
    """Against the level's own slope, by differences: a patch tells the direction too, where it looks aside."""
    readers, look = np.array([[0.0, 0.0, 1.0], [30.0, 5.0, 1.0]]), np.array([0.3, 2.0])
    law = ExpectedLaw()
    e, xy = Expected(readers, 1.0, law, look), np.array([12.0, 9.0])

    def level(at: Floats) -> Floats:
        to = at - readers[:, :2]
        return -10 * law.exponent * np.log10(np.hypot(to[:, 0], to[:, 1])) + gain_db(to, look)

    steps = np.eye(2) * 1e-4
    slope = np.stack([(level(xy + step) - level(xy - step)) / 2e-4 for step in steps], axis=-1) / law.sigma_db
    far2 = ((xy - readers[:, :2]) ** 2).sum(axis=1)
    near = ((10 * law.exponent / np.log(10) / law.sigma_db / far2 * NEAR_M) ** 2).sum() + 1 / SPREAD_M**2
    bound_m = np.sqrt(np.trace(np.linalg.inv(slope.T @ slope + near * np.eye(2))))
    assert e.error_m(xy[None])[0] == pytest.approx(bound_m, rel=1e-4)


def test_one_circle_of_readers_has_the_bound_of_the_textbook() -> None:
    """K readers evenly around at one distance: rms = (ln 10 / 10) (s / n) d sqrt(4 / K), flat ground, weak prior."""
    d, k, law = 30.0, 8, ExpectedLaw(p0_dbm=-40.0, exponent=2.5, sigma_db=5.0)
    turns = 2 * np.pi * np.arange(k) / k
    e = Expected(np.column_stack([d * np.cos(turns), d * np.sin(turns), np.ones(k)]), tag_height_m=1.0, law=law)
    textbook_m = np.log(10) / 10 * (5.0 / 2.5) * d * np.sqrt(4 / k)
    assert e.error_m(np.zeros((1, 2)))[0] == pytest.approx(textbook_m, rel=0.05)


def test_the_bound_is_finite_everywhere_and_grows_outside() -> None:
    e = Expected(READERS)
    x, y = np.meshgrid(np.linspace(-500, 500, 101), np.linspace(-500, 500, 101))
    error_m = e.error_m(np.column_stack([x.ravel(), y.ravel()]))
    assert np.isfinite(error_m).all()
    assert (error_m > 0).all()
    below, outside = e.error_m(np.array([[0.5, 0.5], [400.0, 400.0]]))
    assert below < 5 < 50 < outside
    assert e.readers_in_reach(np.array([[0.0, 0.0], [30.0, 0.0], [400.0, 400.0]])).tolist() == [1.0, 2.0, 0.0]
    assert e.error_m(np.zeros((0, 2))).shape == (0,)


def test_a_law_of_the_devices_is_used_where_it_is_known() -> None:
    assert ExpectedLaw.of(None) == ExpectedLaw()
    assert ExpectedLaw.of(DeviceLaw(-50.0, 2.0, 6.0)).reach_m() == pytest.approx(10 ** (45 / 20))


@pytest.mark.browser
@programs.needs("chromium")
def test_a_browser_keeps_every_word_within_the_picture(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    e = Expected(READERS)
    scene = replace(
        GUARDED, attribution="(c) OpenStreetMap contributors, ODbL 1.0", title="How exactly is a child located here?"
    )
    path = tmp_path / "error.svg"
    source = "Computed from distances alone: the Cramer-Rao bound of one reading of each reader."
    path.write_text(picture.error_picture(scene, e.error_m, e.readers_in_reach, source))
    script = """() => [...document.querySelectorAll('text')].map(t => { const b = t.getBBox();
        return [t.textContent, b.x, b.x + b.width, parseFloat(getComputedStyle(t).fontSize)] })"""
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=programs.find("chromium"), args=["--no-sandbox"])
        for width, height in ((360, 740), (1920, 1080)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(path.as_uri())
            shown = page.evaluate("document.documentElement.getBoundingClientRect().width")
            assert shown <= width
            for text, left, right, size in page.evaluate(script):
                assert left >= 0 and right <= 800, f"{text!r} at {width} px: {left:.0f}..{right:.0f}"  # noqa: PT018
                assert size * min(width, height) / 800 >= 10, f"{text!r} is too small at {width} px"
        browser.close()
