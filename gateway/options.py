"""What the gateway's TOML file may contain: its tables as types, and for each key a text that says what is right."""

from dataclasses import dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from gateway import zone
from readers.advertisement import TagKeys

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.recording import RecordedSite, Survey

TcpPort = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
"""One line without control characters."""


class RadioTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The coordinator (the ZigBee stick) and its network."""

    port: Text
    baudrate: Literal[57600, 115200, 230400, 460800, 921600] = 115200
    flow_control: Literal["software", "hardware"] = "software"
    channel: Annotated[int, Meta(ge=11, le=26)] = 15
    pan_id: Annotated[int, Meta(ge=1, le=0xFFFE)] | None = None
    database: Text = "zigbee.db"
    tx_power_dbm: Annotated[int, Meta(ge=-20, le=20)] = 8
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")] = "KR"
    enrolment: Text | None = None
    deaf_after_s: Annotated[int, Meta(ge=30, le=86400)] = 300


class StoreTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The folder of the two outboxes, and their limits."""

    folder: Text
    bulk_max_mb: Annotated[int, Meta(ge=4, le=65536)] = 512
    ballast_mb: Annotated[int, Meta(ge=1, le=64)] = 1


class MqttTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The MQTT broker and how to log in there."""

    host: Text
    port: TcpPort = 1883
    username: Text | None = None
    password_file: Text | None = None
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = None
    city_key_file: Text = "city.keys"
    protocol: Literal["auto", "5", "3.1.1"] = "auto"


class KeysTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The files with the secret keys."""

    readers: Text = "reader_keys.json"
    tags: Text = "tag_keys.json"


class MetricsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures for Prometheus, served on loopback only."""

    port: TcpPort


class ClockTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether the wall clock is trusted."""

    trusted: bool = False


class LocateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What locating uses in addition to the positions of the readers."""

    survey: Text | None = None


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole TOML file."""

    site: zone.Id
    gateway: zone.Id
    radio: RadioTable
    store: StoreTable
    mqtt: MqttTable
    keys: KeysTable = KeysTable()
    metrics: MetricsTable | None = None
    clock: ClockTable = ClockTable()
    locate: LocateTable = LocateTable()
    settings: zone.ReaderSettings = zone.ReaderSettings()
    readers: tuple[zone.Reader, ...]
    places: tuple[zone.Place, ...] = ()
    dangers: tuple[zone.DangerArea, ...] = ()
    bells: tuple[zone.BellInput, ...] = ()
    routes: tuple[zone.Route, ...] = ()
    paused: Annotated[tuple[zone.TagId, ...], Meta(max_length=10_000)] = ()
    """Pseudonyms of tags that are not followed."""
    footpaths: Annotated[tuple[zone.Footpath, ...], Meta(max_length=zone.FOOTPATHS_MAX)] = ()
    attribution: Text | None = None
    """The owner of the map that the areas and footpaths come from."""
    gates: tuple[zone.Gate, ...] = ()


@dataclass(frozen=True)
class Installation:
    """A checked configuration with the contents of its files. Paths are absolute."""

    config: GatewayConfig
    zone: zone.Zone
    base: "Path"
    """The folder of the TOML file. Relative paths in the file start here."""
    folder: "Path"
    database: "Path"
    reader_keys: dict[int, bytes] = field(repr=False)
    tag_keys: dict[str, TagKeys] = field(repr=False)
    install_codes: dict[str, bytes] = field(repr=False)
    """EUI64 (16 hexadecimal digits, MSB first) -> install code, for those readers of the zone that were enrolled."""
    password: str | None = field(repr=False)
    site: "RecordedSite | None" = None
    """The zone as the walk test describes it, in metres on the plane of `gateway.zone.Field`; None: no walk test."""
    survey: "Survey | None" = field(default=None, repr=False)
    """The walk test, on the same plane. Its readers are rows of `site.reader_ids`, which holds numbers as text."""
    notes: tuple[str, ...] = ()
    """Findings that are not wrong but may need attention."""


def _tables(*, listed: bool) -> dict[str, type[msgspec.Struct]]:
    """Return each key of the file that is a table or, if `listed`, a list of tables, with the type of the table."""
    found: dict[str, type[msgspec.Struct]] = {}
    for one in msgspec.structs.fields(GatewayConfig):
        kind = get_args(one.type)[0] if get_origin(one.type) is Annotated else one.type
        for part in get_args(kind) if isinstance(kind, UnionType) else (kind,):
            item = get_args(part)[0] if get_origin(part) is tuple else part
            if (item is not part) == listed and isinstance(item, type) and issubclass(item, msgspec.Struct):
                found[one.name] = item
    return found


TABLES, LISTS = _tables(listed=False), _tables(listed=True)
REQUIRED = tuple(one.name for one in msgspec.structs.fields(GatewayConfig) if one.required)

# What is right, by key. A message about a wrong key ends with this text.
_ID = "1-32 of A-Z a-z 0-9 _ -, a letter or digit first"
HINTS = {
    "site": f'{_ID}, like "gongdeok"',
    "gateway": f'{_ID}, like "gw1"',
    "radio": "a table [radio] with at least port",
    "radio.port": 'the coordinator, like "/dev/serial/by-id/usb-..." or "socket://127.0.0.1:6638"',
    "radio.baudrate": "one of 57600, 115200, 230400, 460800, 921600; most sticks have 115200",
    "radio.flow_control": '"software" or "hardware", as the firmware of the stick was built',
    "radio.channel": "a ZigBee channel, 11 to 26; 15, 20 and 25 lie between the usual Wi-Fi channels",
    "radio.pan_id": "1 to 65534 (0x0001 to 0xFFFE), or leave it out and one is drawn",
    "radio.database": 'a file for the network, like "zigbee.db"',
    "radio.tx_power_dbm": "-20 to 20 dBm; 8 is usual",
    "radio.country": 'two capital letters, like "KR"',
    "radio.enrolment": 'the readers.json that ansim-reader wrote, like "readers.json"',
    "radio.deaf_after_s": "30 to 86400 s of silence of every reader before the radio is started again",
    "store": "a table [store] with at least folder",
    "store.folder": 'a folder on a disk that keeps what is written to it, like "/var/lib/ansim"',
    "store.bulk_max_mb": "4 to 65536 MB for the routine lane; positions are shed above it",
    "store.ballast_mb": "1 to 64 MB, set aside for emergencies on a full disk",
    "mqtt": "a table [mqtt] with at least host",
    "mqtt.host": 'the broker, like "mqtt.example.org" or "127.0.0.1"',
    "mqtt.port": "1 to 65535; 1883 plain, 8883 with TLS",
    "mqtt.username": "a name the broker knows",
    "mqtt.password_file": "a file with the password in its first line, mode 0600",
    "mqtt.ca_file": "the PEM file of the authority that signed the broker's certificate",
    "mqtt.cert_file": "the PEM file of this gateway's certificate, together with key_file",
    "mqtt.key_file": "the PEM file of this gateway's key, mode 0600, together with cert_file",
    "mqtt.city_key_file": "the file that `ansim-city gateway enrol` made for this gateway, mode 0600",
    "mqtt.protocol": '"auto" (5, and 3.1.1 where the broker lacks it), "5" or "3.1.1"',
    "keys.readers": 'a file {"<number>": "<32 hexadecimal digits>"}, mode 0600',
    "keys.tags": 'a file {"<tag>": {"k_id": "<32 hex>", "k_mic": "<32 hex>"}}, mode 0600',
    "metrics.port": "1 to 65535, answered on 127.0.0.1 only",
    "clock.trusted": "true if something else keeps this box's clock right (a host, GPS), else false",
    "locate.survey": "the folder of a recorded site of this zone with a walk test in it, or leave it out",
    "settings.version": "1 to 65535, raised with every change: a reader takes settings newer than its own",
    "settings.window_ms": "500 to 60000 ms of sightings in one report",
    "settings.scan_interval_ms": "3 to 255 ms, scan_window_ms or more",
    "settings.scan_window_ms": "3 to 255 ms, at most scan_interval_ms; the rest is left to the mesh",
    "settings.heartbeat_s": "10 to 3600 s",
    "settings.frames_per_min": "6 to 600 routine frames a minute and reader, or leave it out for a fair share",
    "settings.company_id": "0 to 65535, the company identifier of the tags' advertisements",
    "readers": "one [[readers]] table for every pole, at least one",
    "readers.number": "1 to 65534, the number the reader was given when it was flashed",
    "readers.eui64": '16 hexadecimal digits as printed on the module, like "0013a20041f00d01"',
    "readers.lon": "degrees east, -180 to 180 (Seoul: about 127)",
    "readers.lat": "degrees north, -90 to 90 (Seoul: about 37.5)",
    "readers.height_m": "metres above the street, over 0 up to 30",
    "readers.pole": "what a technician calls the pole",
    "readers.antenna": '"dipole" (hears all round) or "patch" (hears best where it looks)',
    "readers.look_deg": "0 up to 360 degrees from north, clockwise, where a patch antenna looks",
    "readers.gate": "the id of the gate that this reader guards, together with side",
    "readers.side": '"outer" (looks to the street) or "inner" (looks to the yard), together with gate',
    "readers.scan_interval_ms": "3 to 255 ms for this reader alone, together with scan_window_ms",
    "readers.scan_window_ms": "3 to 255 ms for this reader alone, at most scan_interval_ms, together with it",
    "readers.frames_per_min": "6 to 600 routine frames a minute for this reader alone, or leave it out",
    "gates.id": _ID,
    "gates.place": "the id of the place that one enters by this gate",
    "gates.lon": "degrees east, -180 to 180 (Seoul: about 127)",
    "gates.lat": "degrees north, -90 to 90 (Seoul: about 37.5)",
    "gates.inward_deg": "0 up to 360 degrees from north, clockwise: the direction in which one enters",
    "gates.width_m": "0.5 to 40 metres",
    "places.id": _ID,
    "places.kind": '"school", "academy", "playground", "home" or "other"',
    "places.polygon": "3 to 200 corners [lon, lat], longitude first, in order round the edge",
    "dangers.id": _ID,
    "dangers.polygon": "3 to 200 corners [lon, lat], longitude first, in order round the edge",
    "dangers.warn_m": "0 to 200 metres",
    "routes.id": _ID,
    "routes.line": "2 to 500 points [lon, lat], longitude first, along the way",
    "routes.corridor_m": "5 to 200 metres to either side of the line",
    "routes.tags": 'pseudonyms of tags, like ["tag-001", "tag-002"]; a tag has one route at the most',
    "footpaths.line": "2 to 500 points [lon, lat], longitude first, along the middle of the way",
    "attribution": 'whose map this is, like "(c) OpenStreetMap contributors, ODbL 1.0", above the first [table]',
    "paused": 'pseudonyms of tags, like ["tag-001"], above the first [table]',
    "bells.id": _ID,
    "bells.reader": "the number of a reader of this file",
    "bells.input": "the input of the reader, 0 to 7",
}
