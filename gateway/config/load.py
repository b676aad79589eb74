"""The gateway's one TOML file: what may stand in it, and words for what is wrong with it. Secrets by path only.

Everything is checked before anything starts, and all faults are told at once, each with its key, its line and what
would be right. `docs/GATEWAY.md` lists every key.
"""

import difflib
import math
import re
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway import zone
from gateway.config.toml_lines import key_lines
from gateway.options import HINTS, LISTS, REQUIRED, TABLES, Configuration, GatewayConfig, MqttTable
from readers.advertisement import KEY_SIZE, TagKeys

if TYPE_CHECKING:
    from gateway.recording import RecordedSite, Survey

READER_KEY_SIZE = 16
ZONE_MAX_M = 20_000.0
"""No two positions of one zone are further apart: a typing error in a degree is found by it."""
FILE_MAX_B = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. line counts from 1; 0: the fault is not in this file's text."""

    key: str
    line: int
    text: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.key}: {self.text}"


class ConfigError(Exception):
    """The file cannot be used. Permanent until somebody edits it: `problems` tells what, all of it."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path, self.problems = path, tuple(problems)


def load(path: Path) -> Configuration:
    """Read and check a file and the files it names. Raises ConfigError with everything that is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_B + 1)
    except OSError as error:
        raise ConfigError(path, [Problem("file", 0, f"cannot be read ({error.strerror}); check the path")]) from None
    if len(data) > FILE_MAX_B:
        raise ConfigError(path, [Problem("file", 0, f"over {FILE_MAX_B} bytes: not a gateway's configuration")])
    try:
        text = data.decode("utf-8")
        raw = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(path, [Problem("file", line, "not UTF-8 text; save it as UTF-8")]) from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(path, [Problem("file", line, f"not TOML here: {error}")]) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        raise ConfigError(path, [Problem("file", 0, f"no parser can take this: {_short(str(error))}")]) from None
    return _Check(path, raw, key_lines(text)).loaded()


_TYPES = {one.name: one.type for one in msgspec.structs.fields(GatewayConfig)}


class _Check:
    def __init__(self, path: Path, raw: dict[str, Any], lines: dict[str, int]) -> None:
        self.path, self.raw, self.lines = path, raw, lines
        self.base = path.resolve().parent
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def loaded(self) -> Configuration:
        config = self._convert()
        if config is None:
            raise ConfigError(self.path, self.problems)
        self._numbers(config)
        self._positions(config)
        reader_keys = self._reader_keys(config)
        tag_keys = self._tag_keys(config)
        self._tags(config, tag_keys)
        codes = self._install_codes(config)
        password = self._broker(config.mqtt)
        site, survey = self._walk_test(config)
        if not tag_keys:
            self.notes.append("no tags are enrolled: every tag is unknown, and only its SOS is told")
        if self.problems:
            raise ConfigError(self.path, self.problems)
        whole = zone.Zone(
            readers=config.readers,
            places=config.places,
            dangers=config.dangers,
            bells=config.bells,
            settings=config.settings,
            routes=config.routes,
            footpaths=config.footpaths,
        )
        if config.footpaths:
            from gateway.locate.ground import Ground  # numpy, as above

            self.notes += Ground(whole).notes
        return Configuration(
            config=config,
            zone=whole,
            base=self.base,
            folder=self.base / config.store.folder,
            database=self.base / config.radio.database,
            reader_keys=reader_keys,
            tag_keys=tag_keys,
            install_codes=codes,
            password=password,
            site=site,
            survey=survey,
            notes=tuple(self.notes),
        )

    def say(self, key: str, text: str) -> None:
        """Note one problem at the line of the key, or of the nearest thing round it, with what would be right."""
        place = key
        while place and place not in self.lines:
            place = re.sub(r"(\[\d+\]|\.?[^.\[\]]*)\Z", "", place)
        hint = HINTS.get(re.sub(r"\[\d+\]", "", key))
        seen = "".join(c if c.isprintable() else "?" for c in key[:100])
        self.problems.append(Problem(seen, self.lines.get(place, 1), text + (f"; right is {hint}" if hint else "")))

    # ---- types ------------------------------------------------------------------------------------------------------

    def _convert(self) -> GatewayConfig | None:
        known = GatewayConfig.__struct_fields__
        values: dict[str, Any] = {}
        for key, value in self.raw.items():
            if key not in known:
                self.say(key, _unknown(key, known))
            elif key in TABLES:
                values[key] = self._struct(TABLES[key], value, key)
            elif key in LISTS:
                if isinstance(value, list):
                    items = [self._struct(LISTS[key], item, f"{key}[{i}]") for i, item in enumerate(value)]
                    values[key] = tuple(items)
                else:
                    self.say(key, f"must be written as [[{key}]] tables")
            else:
                try:
                    values[key] = msgspec.convert(value, _TYPES[key])
                except msgspec.ValidationError as error:
                    self.say(key, f"{error} (it is {_short(value)})")
        for key in REQUIRED:
            if key not in self.raw:
                self.say(key, "missing")
        if "readers" in values and not values["readers"]:
            self.say("readers", "is empty")
        return None if self.problems else GatewayConfig(**values)

    def _struct(self, kind: type[msgspec.Struct], value: Any, key: str) -> msgspec.Struct | None:
        """Convert one table, telling every fault in it, not only the first."""
        if not isinstance(value, dict):
            self.say(key, f"must be a table, got {type(value).__name__}")
            return None
        before = len(self.problems)
        for name in [name for name in value if name not in kind.__struct_fields__]:
            self.say(f"{key}.{name}", _unknown(name, kind.__struct_fields__))
        for one in msgspec.structs.fields(kind):
            if one.name not in value:
                if one.required:
                    self.say(f"{key}.{one.name}", "missing")
                continue
            try:
                msgspec.convert(value[one.name], one.type)
            except msgspec.ValidationError as error:
                said, _, inner = str(error).partition(" - at `$")
                self.say(f"{key}.{one.name}{inner.rstrip('`')}", f"{said} (it is {_short(value[one.name])})")
        if len(self.problems) > before:
            return None
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:  # two keys that do not go together
            self.say(key, str(error))
            return None

    # ---- what no type can say ---------------------------------------------------------------------------------------

    def _numbers(self, config: GatewayConfig) -> None:
        for key, name in (
            ("readers", "number"),
            ("readers", "eui64"),
            ("places", "id"),
            ("dangers", "id"),
            ("bells", "id"),
            ("routes", "id"),
        ):
            seen: dict[Any, int] = {}
            for i, item in enumerate(getattr(config, key)):
                value = getattr(item, name)
                if value in seen:
                    first = self.lines.get(f"{key}[{seen[value]}].{name}", 0)
                    self.say(f"{key}[{i}].{name}", f"{value!r} is given twice (first in line {first})")
                seen.setdefault(value, i)
        numbers = {reader.number for reader in config.readers}
        inputs: dict[tuple[int, int], int] = {}
        for i, bell in enumerate(config.bells):
            if bell.reader not in numbers:
                listed = ", ".join(str(n) for n in sorted(numbers)[:20])
                self.say(f"bells[{i}].reader", f"there is no reader {bell.reader}; there are {listed}")
            if (bell.reader, bell.input) in inputs:
                self.say(f"bells[{i}].input", f"input {bell.input} of reader {bell.reader} has a bell already")
            inputs.setdefault((bell.reader, bell.input), i)

    def _positions(self, config: GatewayConfig) -> None:
        plane = zone.Plane(config.readers[0].lon, config.readers[0].lat)

        def far(lon: float, lat: float) -> float:
            return math.hypot(*plane.to_xy_m(lon, lat))

        for i, reader in enumerate(config.readers):
            if far(reader.lon, reader.lat) > ZONE_MAX_M:
                self.say(f"readers[{i}].lon", f"{far(reader.lon, reader.lat) / 1000:.0f} km from the first reader")
        for key in ("places", "dangers"):
            for i, item in enumerate(getattr(config, key)):
                name = f"{key}[{i}].polygon"
                ring = [plane.to_xy_m(lon, lat) for lon, lat in item.polygon]
                if ring[0] == ring[-1]:
                    ring.pop()
                if len(set(ring)) < 3:
                    self.say(name, "fewer than 3 different corners")
                elif len(set(ring)) < len(ring):
                    self.say(name, "the same corner twice")
                elif _crosses_itself(ring):
                    self.say(name, "its edges cross each other")
                elif abs(_area_m2(ring)) < 1.0:
                    self.say(name, "encloses less than a square metre")
                elif max(math.hypot(x, y) for x, y in ring) > ZONE_MAX_M:
                    self.say(name, "a corner is over 20 km from the first reader")

        for key in ("routes", "footpaths"):
            for i, item in enumerate(getattr(config, key)):
                points = [plane.to_xy_m(lon, lat) for lon, lat in item.line]
                if len(set(points)) < 2:
                    self.say(f"{key}[{i}].line", "fewer than 2 different points")
                elif max(math.hypot(x, y) for x, y in points) > ZONE_MAX_M:
                    self.say(f"{key}[{i}].line", "a point is over 20 km from the first reader")
        pieces = sum(len(path.line) - 1 for path in config.footpaths)
        if len(config.footpaths) > zone.FOOTPATHS_MAX or pieces > zone.FOOTPATH_PIECES_MAX:
            most = f"at most {zone.FOOTPATHS_MAX} of {zone.FOOTPATH_PIECES_MAX} in all"
            self.say("footpaths", f"{len(config.footpaths)} lines of {pieces} pieces, {most}; take those near readers")

    def _tags(self, config: GatewayConfig, tag_keys: dict[str, TagKeys]) -> None:
        """A tag without keys is only noted: it may have been taken out a moment ago, and nobody loses the gateway."""
        routes: dict[str, str] = {}
        for i, route in enumerate(config.routes):
            for tag in route.tags:
                if tag in routes:
                    self.say(f"routes[{i}].tags", f"{tag} has the route {routes[tag]} already")
                routes.setdefault(tag, route.id)
        for key, tags in (("routes", routes), ("paused", dict.fromkeys(config.paused, ""))):
            if unknown := sorted(tags.keys() - tag_keys.keys()):
                text = f"{key} names {len(unknown)} tags without keys, so nothing is done for them"
                self.notes.append(f"{text}: {', '.join(unknown[:10])}")

    # ---- the files it names -----------------------------------------------------------------------------------------

    def _file(self, key: str, name: str, *, secret: bool) -> bytes | None:
        path = self.base / name
        try:
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                self.say(key, f"{path} is not a file")
                return None
            if secret and mode & 0o077:
                self.say(key, f"{path} can be read by others (mode {mode & 0o777:04o}); do: chmod 600 {path}")
            with path.open("rb") as file:
                data = file.read(FILE_MAX_B + 1)
        except OSError as error:
            self.say(key, f"{path} cannot be read ({error.strerror})")
            return None
        if len(data) > FILE_MAX_B:
            self.say(key, f"{path} is over {FILE_MAX_B} bytes: another file")
            return None
        return data

    def _json(self, key: str, name: str) -> dict[str, Any]:
        data = self._file(key, name, secret=True)
        if data is None:
            return {}
        try:
            return msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.say(key, f"{self.base / name} is not such a file ({error})")
            return {}

    def _reader_keys(self, config: GatewayConfig) -> dict[int, bytes]:
        before = len(self.problems)
        rows = self._json("keys.readers", config.keys.readers)
        found: dict[int, bytes] = {}
        for place, (number, text) in enumerate(rows.items(), 1):
            key = _hex(text, READER_KEY_SIZE)
            if not re.fullmatch("[1-9][0-9]{0,4}", number) or key is None:
                # what stands there is not repeated: it may be a key in the wrong place
                self.say("keys.readers", f"{config.keys.readers}, entry {place}: not a number and its key")
            elif key in found.values():
                self.say("keys.readers", f"{config.keys.readers}, entry {place}: another reader's key")
            else:
                found[int(number)] = key
        if len(self.problems) == before:
            for i, reader in enumerate(config.readers):
                if reader.number not in found:
                    self.say(f"readers[{i}].number", f"no key for reader {reader.number} in {config.keys.readers}")
        return {reader.number: found[reader.number] for reader in config.readers if reader.number in found}

    def _tag_keys(self, config: GatewayConfig) -> dict[str, TagKeys]:
        found: dict[str, TagKeys] = {}
        owners: dict[bytes, int] = {}
        for place, (tag, row) in enumerate(self._json("keys.tags", config.keys.tags).items(), 1):
            k_id = _hex(row.get("k_id"), KEY_SIZE) if isinstance(row, dict) else None
            k_mic = _hex(row.get("k_mic"), KEY_SIZE) if isinstance(row, dict) else None
            if k_id is None or k_mic is None or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", tag):
                self.say("keys.tags", f"{config.keys.tags}, entry {place}: not a pseudonym and its two keys")
            elif k_id in owners:
                text = f"entry {place} has the k_id of entry {owners[k_id]}: one of two children would be the other"
                self.say("keys.tags", f"{config.keys.tags}, {text}")
            else:
                found[tag], owners[k_id] = TagKeys(k_id, k_mic), place
        return found

    def _walk_test(self, config: GatewayConfig) -> "tuple[RecordedSite | None, Survey | None]":
        if config.locate.survey is None or self.problems:  # where a reader is must be known first
            return None, None
        from gateway.survey import onto_zone, write  # numpy: `check` of most files needs none

        try:
            site, survey, notes = onto_zone.of_zone(self.base / config.locate.survey, zone.Zone(config.readers))
        except write.RecordingError as error:
            self.say("locate.survey", str(error))
            return None, None
        self.notes += notes
        return site, survey

    def _install_codes(self, config: GatewayConfig) -> dict[str, bytes]:
        if config.radio.enrolment is None:
            return {}
        wanted = {reader.eui64: reader.number for reader in config.readers}
        codes: dict[str, bytes] = {}
        for number, row in self._json("radio.enrolment", config.radio.enrolment).items():
            if not isinstance(row, dict) or not isinstance(row.get("eui64"), str):
                self.say("radio.enrolment", f"{config.radio.enrolment}, entry {_short(number)}: no eui64")
                continue
            eui64, code = row["eui64"].lower(), row.get("install_code")
            if eui64 not in wanted or code is None:
                continue
            if str(wanted[eui64]) != number:
                text = f"module {eui64} is reader {_short(number)} there, but {wanted[eui64]} in this file"
                self.say("radio.enrolment", text)
            elif not isinstance(code, str) or not _install_code_valid(_hex(code, 18)):
                self.say("radio.enrolment", f"entry {number}: the install code is not 16 bytes and their checksum")
            else:
                codes[eui64] = bytes.fromhex(code)
        missing = sorted(set(wanted) - set(codes))
        if missing:
            self.notes.append(f"no install code for {len(missing)} readers: they must have joined already")
        return codes

    def _broker(self, mqtt: MqttTable) -> str | None:
        if (mqtt.cert_file is None) != (mqtt.key_file is None):
            self.say("mqtt.cert_file" if mqtt.cert_file is None else "mqtt.key_file", "missing beside the other one")
        if mqtt.cert_file and not mqtt.ca_file:
            self.say("mqtt.ca_file", "missing: a certificate of our own needs TLS")
        for key in ("ca_file", "cert_file", "key_file"):
            name = getattr(mqtt, key)
            data = self._file(f"mqtt.{key}", name, secret=key == "key_file") if name else None
            if data is not None and b"-----BEGIN " not in data:
                self.say(f"mqtt.{key}", f"{self.base / name} is not PEM")
        password = None
        if mqtt.password_file:
            data = self._file("mqtt.password_file", mqtt.password_file, secret=True)
            first = (data or b"").split(b"\n")[0].strip()
            password = first.decode("utf-8", "replace")
            if data is not None and (not password or password.encode() != first):
                self.say("mqtt.password_file", "its first line is empty or no UTF-8")
            if not mqtt.username:
                self.say("mqtt.username", "missing beside password_file")
        local = mqtt.host in ("127.0.0.1", "::1", "localhost")
        if not mqtt.ca_file and not local:
            self.notes.append(f"no TLS to {mqtt.host}: anybody on the way can read and forge; give mqtt.ca_file")
        return password


def _unknown(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return "unknown key; " + (f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}")


def _short(value: Any) -> str:
    text = repr(value)
    return "".join(c if c.isprintable() else "?" for c in (text if len(text) <= 60 else text[:57] + "..."))


def _hex(text: Any, size: int) -> bytes | None:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-fA-F]+", text) or len(text) != 2 * size:
        return None
    return bytes.fromhex(text)


def _install_code_valid(code: bytes | None) -> bool:
    """16 bytes and their CRC-16/X-25, low byte first (ZigBee Base Device Behavior 3.0, section 10.1)."""
    crc = 0xFFFF
    for byte in (code or b"")[:16]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return code is not None and (crc ^ 0xFFFF) == int.from_bytes(code[16:], "little")


def _area_m2(ring: list[tuple[float, float]]) -> float:
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in _edges(ring)) / 2


def _edges(ring: list[tuple[float, float]]) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    return zip(ring, ring[1:] + ring[:1], strict=True)


def _crosses_itself(ring: list[tuple[float, float]]) -> bool:
    edges = list(_edges(ring))

    def side(a: tuple[float, float], b: tuple[float, float], p: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    for i, (a, b) in enumerate(edges):
        for j, (c, d) in enumerate(edges[i + 2 :], i + 2):
            if (j + 1) % len(edges) == i:
                continue  # neighbours share a corner
            if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
                return True
    return False


def summary(loaded: Configuration) -> str:
    """Return what a technician wants to see of a good file: one screen, no secret."""
    c = loaded.config
    lines = [
        f"site {c.site}, gateway {c.gateway}",
        f"radio {c.radio.port}, channel {c.radio.channel}, {len(loaded.install_codes)} install codes",
        f"store {loaded.folder}, at most {c.store.bulk_max_mb} MB of routine events",
        f"broker {c.mqtt.host}:{c.mqtt.port}, MQTT {c.mqtt.protocol}, {'TLS' if c.mqtt.ca_file else 'no TLS'}",
        f"walk test: {f'{len(loaded.survey)} rows' if loaded.survey is not None else 'none'}",
        f"{len(c.readers)} readers, {len(c.bells)} bells, {len(loaded.tag_keys)} tags, "
        f"{len(c.places)} places, {len(c.dangers)} danger areas, {len(c.routes)} routes, {len(c.paused)} tags paused",
        f"{len(c.footpaths)} footpaths{'' if c.footpaths else ': everybody may walk everywhere'}",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in loaded.notes)])
