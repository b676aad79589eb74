"""The files a configuration names: keys, install codes, broker files, walk test. Secrets are given by path only."""

import re
import stat
from typing import TYPE_CHECKING, Any

from gateway.config.findings import Findings, short
from gateway.options import GatewayConfig, MqttTable
from gateway.uplink import UplinkError, parse_keys
from gateway.zone import Zone
from readers.advertisement import KEY_SIZE, TagKeys
from readers.files import FILE_MAX_B, BadFile, eui64_of, table_of, text_of

if TYPE_CHECKING:
    from gateway.recording import RecordedSite, Survey

READER_KEY_SIZE = 16


def reader_keys(findings: Findings, config: GatewayConfig) -> dict[int, bytes]:
    """Return the key of every reader of the zone, by reader number."""
    before = len(findings.problems)
    rows = _json(findings, "keys.readers", config.keys.readers)
    found: dict[int, bytes] = {}
    for place, (number, text) in enumerate(rows.items(), 1):
        key = _hex(text, READER_KEY_SIZE)
        if not re.fullmatch("[1-9][0-9]{0,4}", number) or key is None:
            # the text found is not shown: it may be a key in the wrong place
            findings.say("keys.readers", f"{config.keys.readers}, entry {place}: not a number and its key")
        elif key in found.values():
            findings.say("keys.readers", f"{config.keys.readers}, entry {place}: another reader's key")
        else:
            found[int(number)] = key
    if len(findings.problems) == before:
        for i, reader in enumerate(config.readers):
            if reader.number not in found:
                findings.say(f"readers[{i}].number", f"no key for reader {reader.number} in {config.keys.readers}")
    return {reader.number: found[reader.number] for reader in config.readers if reader.number in found}


def tag_keys(findings: Findings, config: GatewayConfig) -> dict[str, TagKeys]:
    """Return the keys of every enrolled tag, by pseudonym."""
    found: dict[str, TagKeys] = {}
    owners: dict[bytes, int] = {}
    for place, (tag, row) in enumerate(_json(findings, "keys.tags", config.keys.tags).items(), 1):
        k_id = _hex(row.get("k_id"), KEY_SIZE) if isinstance(row, dict) else None
        k_mic = _hex(row.get("k_mic"), KEY_SIZE) if isinstance(row, dict) else None
        if k_id is None or k_mic is None or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", tag):
            findings.say("keys.tags", f"{config.keys.tags}, entry {place}: not a pseudonym and its two keys")
        elif k_id in owners:
            text = f"entry {place} has the k_id of entry {owners[k_id]}: one of two children would be the other"
            findings.say("keys.tags", f"{config.keys.tags}, {text}")
        else:
            found[tag], owners[k_id] = TagKeys(k_id, k_mic), place
    return found


def install_codes(findings: Findings, config: GatewayConfig) -> dict[str, bytes]:
    """Return the install code of every enrolled reader of the zone, by EUI64 (hexadecimal, MSB first)."""
    if config.radio.enrolment is None:
        return {}
    wanted = {reader.eui64: reader.number for reader in config.readers}
    codes: dict[str, bytes] = {}
    numbers: dict[str, str] = {}
    for number, row in _json(findings, "radio.enrolment", config.radio.enrolment).items():
        try:
            eui64 = eui64_of(row["eui64"])
        except (KeyError, TypeError):
            findings.say("radio.enrolment", f"{config.radio.enrolment}, entry {short(number)}: no eui64")
            continue
        except ValueError as error:
            findings.say("radio.enrolment", f"{config.radio.enrolment}, entry {short(number)}: eui64 {error}")
            continue
        code = row.get("install_code")
        if eui64 in numbers:
            text = f"module {eui64} has two numbers there, {numbers[eui64]} and {short(number)}"
            findings.say("radio.enrolment", f"{config.radio.enrolment}: {text}; remove the wrong one")
            continue
        numbers[eui64] = short(number)
        if eui64 not in wanted or code is None:
            continue
        if str(wanted[eui64]) != number:
            text = f"module {eui64} is reader {short(number)} there, but {wanted[eui64]} in this file"
            findings.say("radio.enrolment", text)
        elif not isinstance(code, str) or not _install_code_valid(_hex(code, 18)):
            findings.say("radio.enrolment", f"entry {number}: the install code is not 16 bytes and their checksum")
        else:
            codes[eui64] = bytes.fromhex(code)
    missing = sorted(set(wanted) - set(codes))
    if missing:
        findings.notes.append(f"no install code for {len(missing)} readers: they must have joined already")
    return codes


def broker(findings: Findings, mqtt: MqttTable) -> str | None:
    """Check the files for the broker; return the password, or None if there is none."""
    if (mqtt.cert_file is None) != (mqtt.key_file is None):
        findings.say("mqtt.cert_file" if mqtt.cert_file is None else "mqtt.key_file", "missing beside the other one")
    if mqtt.cert_file and not mqtt.ca_file:
        findings.say("mqtt.ca_file", "missing: a certificate of our own needs TLS")
    for key in ("ca_file", "cert_file", "key_file"):
        name = getattr(mqtt, key)
        data = _file(findings, f"mqtt.{key}", name, secret=key == "key_file") if name else None
        if data is not None and b"-----BEGIN " not in data:
            findings.say(f"mqtt.{key}", f"{findings.base / name} is not PEM")
    password = None
    if mqtt.password_file:
        data = _file(findings, "mqtt.password_file", mqtt.password_file, secret=True)
        try:
            password = text_of(data or b"").split("\n")[0].strip()
        except BadFile:
            password = ""
        if data is not None and not password:
            findings.say("mqtt.password_file", "its first line is empty or no UTF-8")
        if not mqtt.username:
            findings.say("mqtt.username", "missing beside password_file")
    data = _file(findings, "mqtt.city_key_file", mqtt.city_key_file, secret=True)
    if data is not None:
        try:
            parse_keys(data.decode("ascii"))
        except (UplinkError, UnicodeDecodeError) as error:  # neither text quotes the keys
            said = str(error) if isinstance(error, UplinkError) else "not ASCII text"
            findings.say("mqtt.city_key_file", f"{findings.base / mqtt.city_key_file}: {said}")
    local = mqtt.host in ("127.0.0.1", "::1", "localhost")
    if not mqtt.ca_file and not local:
        findings.notes.append(f"no TLS to {mqtt.host}: anybody on the way can read and forge; give mqtt.ca_file")
    return password


def walk_test(findings: Findings, config: GatewayConfig) -> "tuple[RecordedSite | None, Survey | None]":
    """Return the walk test on the zone's plane; (None, None) if there is none or the configuration has problems."""
    if config.locate.survey is None or findings.problems:  # the readers' positions must be right first
        return None, None
    from gateway.survey import onto_zone, write  # imports numpy, which `check` of most files does not need

    try:
        site, survey, notes = onto_zone.walk_test_of_zone(findings.base / config.locate.survey, Zone(config.readers))
    except write.RecordingError as error:
        findings.say("locate.survey", str(error))
        return None, None
    findings.notes += notes
    return site, survey


def _file(findings: Findings, key: str, name: str, *, secret: bool) -> bytes | None:
    path = findings.base / name
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            findings.say(key, f"{path} is not a file")
            return None
        if secret and mode & 0o077:
            findings.say(key, f"{path} can be read by others (mode {mode & 0o777:04o}); do: chmod 600 {path}")
        with path.open("rb") as file:
            data = file.read(FILE_MAX_B + 1)
    except OSError as error:
        findings.say(key, f"{path} cannot be read ({error.strerror})")
        return None
    if len(data) > FILE_MAX_B:
        findings.say(key, f"{path} is over {FILE_MAX_B} bytes: another file")
        return None
    return data


def _json(findings: Findings, key: str, name: str) -> dict[str, Any]:
    data = _file(findings, key, name, secret=True)
    if data is None:
        return {}
    try:
        return table_of(data)
    except BadFile as error:
        findings.say(key, f"{findings.base / name} is not such a file ({error})")
        return {}


def _hex(text: Any, size: int) -> bytes | None:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-fA-F]+", text) or len(text) != 2 * size:
        return None
    return bytes.fromhex(text)


def _install_code_valid(code: bytes | None) -> bool:
    """Return whether it is 16 bytes and their CRC-16/X-25, low byte first (ZigBee Base Device Behavior 3.0, 10.1)."""
    crc = 0xFFFF
    for byte in (code or b"")[:16]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return code is not None and (crc ^ 0xFFFF) == int.from_bytes(code[16:], "little")
