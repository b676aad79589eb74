"""A small map: a square school of 120 m with a street all around, a side street, and a main road 100 m to the west."""

from gateway.zone import Plane

LON, LAT = 126.95, 37.55
NODES = [(1, 0, 0), (2, 120, 0), (3, 120, 120), (4, 0, 120), (5, -90, 0), (6, -100, -200), (7, -100, 200), (8, 250, 0),
         (9, 30, 30), (10, 40, 30), (11, 40, 40), (12, -90, 60)]  # fmt: skip


def node(number: int, x_m: float, y_m: float, tags: str = "", more: str = "") -> str:
    lon, lat = Plane(LON, LAT).to_lonlat(x_m, y_m)
    return f'<node id="{number}" lon="{lon:.7f}" lat="{lat:.7f}"{more}>{tags}</node>\n'


def tagged(tags: dict[str, str]) -> str:
    return "".join(f'<tag k="{k}" v="{v}"/>' for k, v in tags.items())


def way(number: int, nodes: list[int], more: str = "", **tags: str) -> str:
    refs = "".join(f'<nd ref="{n}"/>' for n in nodes)
    return f'<way id="{number}"{more}>{refs}{tagged(tags)}</way>\n'


def relation(number: int, members: list[tuple[int, str]], **tags: str) -> str:
    rows = "".join(f'<member type="way" ref="{ref}" role="{role}"/>' for ref, role in members)
    return f'<relation id="{number}">{rows}{tagged(tags)}</relation>\n'


def osm_text(school: str | None = None, more: str = "", without: tuple[int, ...] = ()) -> str:
    """Return the map. school: instead of its way 100. without: numbers of nodes that are not there."""
    ways = [
        way(100, [1, 2, 3, 4, 1], amenity="school", name="a name") if school is None else school,
        way(101, [1, 2, 3, 4, 1], highway="residential", name="a name"),
        way(102, [5, 1], highway="residential"),
        way(103, [2, 8], highway="residential"),
        way(104, [6, 7], highway="primary", **{"name:en": "Main Road"}),
        way(105, [9, 10, 11, 9], building="yes"),
    ]
    return "<osm>\n" + "".join(node(*n) for n in NODES if n[0] not in without) + "".join(ways) + more + "</osm>\n"
