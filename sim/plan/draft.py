"""A site file in, a site file with the planned readers out, and the readers as a gateway's TOML.

Readers that a person drew stay; those with `"origin": "ansim"` were proposed by a program and are replaced. So a plan
can be made again from its own result, and who moves a proposed reader by hand takes that mark away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from gateway.zone import Zone
from readers.files import BadFile, bytes_of, table_of
from sim.plan.layout import Layout, LayoutError, Planned
from sim.street import site as sites
from sim.street.site import SITE_MAX_B, Site

ORIGIN = "ansim"
_GATE_KEYS = ("id", "place", "inward_deg", "width_m")


class Draft:
    """A site file that is to be planned. `kept`: the readers in it that stand already."""

    def __init__(self, path: Path) -> None:
        """Raises LayoutError or SiteError with the next step."""
        self.path = path
        self._data = _data(path)
        features = self._data["features"]
        if not any(_kind(each) == "gate" for each in features):
            raise LayoutError(
                f'{path} has no gate: add a Point with properties {{"kind": "gate"}} on the school\'s outline, where '
                "children enter; for a school without a wall, where most of them enter"
            )
        self.site: Site = sites.load(path, bare=True)
        own = {each["properties"].get("number") for each in features if _kind(each) == "reader" and not _ours(each)}
        self.kept = tuple(Planned("kept", pole) for pole in self.site.poles if pole.number in own)

    def planned(self, layout: Layout) -> dict[str, Any]:
        """Return the site file with the gates and readers of a layout, for `osm.write`."""
        gates = {gate.id: gate for gate in layout.gates}
        features, n = [], 0
        for each in self._data["features"]:
            if _kind(each) == "reader" and _ours(each):
                continue
            if _kind(each) == "gate":
                n += 1
                gate = gates[each["properties"].get("id", f"gate{n}")]
                known = {key: getattr(gate, key) for key in _GATE_KEYS}
                each = {**each, "properties": {**each["properties"], **known}}
            features.append(each)
        features += [_reader(self.site, reader) for reader in layout.readers if reader.role != "kept"]
        return {**self._data, "features": features}


def toml_of(zone: Zone, attribution: str) -> str:
    """Return readers, school, gates, danger areas and footpaths of a zone as lines of a gateway's TOML.

    attribution: the source of the map data. Each `eui64` is to be filled in.
    """
    lines = [
        "# Readers, school, gates, danger areas and footpaths as planned: into the gateway's file, below its tables.",
        "# eui64: of the module that hangs there, as `ansim-reader` shows it. At the top of the file:",
        f"# attribution = {json.dumps(attribution)}",
    ]
    for reader in zone.readers:
        lines += ["[[readers]]", *_rows(reader, eui64="0" * 16)]
    for place in zone.places:
        lines += ["[[places]]", *_rows(place)]
    for gate in zone.gates:
        lines += ["[[gates]]", *_rows(gate)]
    for danger in zone.dangers:
        lines += ["[[dangers]]", *_rows(danger)]
    for path in zone.footpaths:
        lines += ["[[footpaths]]", *_rows(path)]
    return "\n".join(lines) + "\n"


# ---- inside ----------------------------------------------------------------------------------------------------------


def _data(path: Path) -> dict[str, Any]:
    try:
        data = table_of(bytes_of(path, SITE_MAX_B))
    except OSError as error:
        raise LayoutError(f"cannot read {path}: {error.strerror}; `ansim-sim site derive` makes one") from error
    except BadFile as error:
        raise LayoutError(f"{path}: {error}") from error
    if not isinstance(data.get("features"), list):
        raise LayoutError(f"{path} is no GeoJSON FeatureCollection: it has no list of features")
    return dict(data)


def _kind(feature: Any) -> Any:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return properties.get("kind") if isinstance(properties, dict) else None


def _ours(feature: Any) -> bool:
    return bool(feature["properties"].get("origin") == ORIGIN)


def _reader(site: Site, reader: Planned) -> dict[str, Any]:
    pole = reader.pole
    properties: dict[str, Any] = {
        "kind": "reader", "number": pole.number, "pole": pole.name, "height_m": pole.height_m, "origin": ORIGIN,
    }  # fmt: skip
    if pole.antenna == "patch":
        properties |= {"antenna": pole.antenna, "look_deg": pole.look_deg}
    if pole.gate is not None:
        properties |= {"gate": pole.gate, "side": pole.side}
    at = [round(value, 7) for value in site.plane.to_lonlat(*pole.at)]
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Point", "coordinates": at}}


def _rows(thing: msgspec.Struct, **instead: str) -> list[str]:
    values = {**msgspec.to_builtins(thing), **instead}
    return [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
