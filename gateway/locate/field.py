"""The zone in metres: a plane round the readers' middle, and where the readers hang on it."""

from gateway.zone import LonLat, Plane, Zone


class Field:
    """Readers of a zone on a plane round their middle (of the areas' corners where there are none)."""

    def __init__(self, zone: Zone) -> None:
        points: list[LonLat] = [(r.lon, r.lat) for r in zone.readers]
        areas = [p.polygon for p in zone.places] + [d.polygon for d in zone.dangers]
        points = points or [point for polygon in areas for point in polygon] or [(0.0, 0.0)]
        lon = sum(point[0] for point in points) / len(points)
        lat = sum(point[1] for point in points) / len(points)
        self.plane = Plane(lon, lat)
        self.readers = {r.number: (*self.plane.to_xy_m(r.lon, r.lat), r.height_m) for r in zone.readers}
        """number -> x, y, height"""
        self.dangers = frozenset(danger.id for danger in zone.dangers)
