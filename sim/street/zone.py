"""A site with readers on some of its poles, as the zone that a gateway is configured with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.zone import BellInput, DangerArea, Footpath, Gate, LonLat, Place, Reader, ReaderSettings, Zone
from sim.street.paths import Spot
from sim.street.site import Pole, Site

GATE_SCAN_INTERVAL_MS, GATE_SCAN_WINDOW_MS = 16, 7
"""A gate reader listens 43 % of the time, as the gateway sets it (`gateway.core.reader_settings`): more would make it
deaf to its mesh, and its lamp late."""
_COMMON = ReaderSettings()


def duty(pole: Pole) -> float:
    """Return the share of the time that a pole's reader listens to Bluetooth while its mesh is well."""
    if pole.gate is not None:
        return GATE_SCAN_WINDOW_MS / GATE_SCAN_INTERVAL_MS
    return _COMMON.scan_window_ms / _COMMON.scan_interval_ms


def bell_id(reader: int) -> str:
    """Return the id of the bell on the pole of a reader."""
    return f"bell{reader:02d}"


def zone_of(site: Site, poles: Sequence[Pole], eui64_of: Callable[[int], bytes] | None = None) -> Zone:
    """Return the zone of a site with readers on these poles, each with a bell. Places are rounded to a centimetre.

    Only gates that one of the readers guards are in it. eui64_of: of a reader by its number; None: the number itself.
    """
    guarded = {pole.gate for pole in poles}
    return Zone(
        readers=tuple(_reader(site, pole, f"{pole.number:016x}" if eui64_of is None else eui64_of(pole.number).hex())
                      for pole in poles),
        places=(Place(id=site.school_id, kind="school", polygon=_lonlats(site, site.school)),),
        dangers=tuple(DangerArea(id=d.id, polygon=_lonlats(site, d.ring), warn_m=d.warn_m) for d in site.dangers),
        bells=tuple(BellInput(id=bell_id(pole.number), reader=pole.number) for pole in poles),
        footpaths=tuple(Footpath(line=_lonlats(site, line)) for line in site.footpaths([pole.at for pole in poles])),
        gates=tuple(
            Gate(gate.id, gate.place, *_lonlat(site, gate.at), inward_deg=gate.inward_deg, width_m=gate.width_m)
            for gate in site.entrances if gate.id in guarded
        ),
    )  # fmt: skip


def _reader(site: Site, pole: Pole, eui64: str) -> Reader:
    lon, lat = _lonlat(site, pole.at)
    own = pole.gate is not None
    return Reader(
        number=pole.number, eui64=eui64, lon=lon, lat=lat, height_m=pole.height_m, pole=pole.name,
        antenna=pole.antenna, look_deg=pole.look_deg, gate=pole.gate, side=pole.side,
        scan_interval_ms=GATE_SCAN_INTERVAL_MS if own else None, scan_window_ms=GATE_SCAN_WINDOW_MS if own else None,
    )  # fmt: skip


def _lonlat(site: Site, point: Spot) -> LonLat:
    lon, lat = site.plane.to_lonlat(*point)
    return round(lon, 7), round(lat, 7)


def _lonlats(site: Site, points: Sequence[Spot]) -> tuple[LonLat, ...]:
    return tuple(_lonlat(site, point) for point in points)
