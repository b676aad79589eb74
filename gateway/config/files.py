"""The files a configuration names: keys, install codes, broker files, walk test. Secrets are given by path only."""

import os
import pwd
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.config.findings import Findings, short
from gateway.options import GatewayConfig, MqttTable
from gateway.uplink import UplinkError, parse_keys
from gateway.zone import Zone
from readers.advertisement import KEY_SIZE, TagKeys
from readers.files import FILE_MAX_B, BadFile, entry_lines, eui64_of, is_local, table_of, text_of

if TYPE_CHECKING:
    from gateway.recording import RecordedSite, Survey

READER_KEY_SIZE = 16
_BOM = b"\xef\xbb\xbf"
_NO_BOM = "begins with a byte-order mark (BOM), which Notepad writes; save it as UTF-8 without BOM"
_MADE_BY = {
    "keys.readers": "; copy reader_keys.json there from the inventory of ansim-reader",
    "keys.tags": "; `ansim-gateway tag new` makes it",
    "radio.enrolment": "; copy readers.json there from the inventory of ansim-reader",
    "mqtt.city_key_file": "; `ansim-city gateway enrol` makes it: copy it there",
    "mqtt.password_file": "; write the broker's password into its first line",
    "mqtt.ca_file": "; who runs the broker has it",
}
"""Who makes a file: the next step when it is missing or empty."""


def reader_keys(findings: Findings, config: GatewayConfig) -> dict[int, bytes]:
    """Return the key of every reader of the zone, by reader number."""
    before = len(findings.problems)
    found: dict[int, bytes] = {}
    for at, number, text in _entries(findings, "keys.readers", config.keys.readers):
        key = _hex(text, READER_KEY_SIZE)
        # the text found is not shown: it may be a key in the wrong place
        if not re.fullmatch("[1-9][0-9]{0,4}", number):
            findings.say("keys.readers", f"{at}: the name of the entry is not a reader's number")
        elif key is None:
            findings.say("keys.readers", f"{at}: not a number and its key: {_not_hex(text, READER_KEY_SIZE)}")
        elif key in found.values():
            findings.say("keys.readers", f"{at}: another reader's key; each reader has its own")
        else:
            found[int(number)] = key
    if len(findings.problems) == before and findings.right("keys.readers"):
        for i, reader in enumerate(config.readers):
            if reader.number not in found:
                text = f"no key for reader {reader.number} in {config.keys.readers}; copy it from the inventory of"
                findings.say(f"readers[{i}].number", f"{text} ansim-reader, or mend the number")
    return {reader.number: found[reader.number] for reader in config.readers if reader.number in found}


def tag_keys(findings: Findings, config: GatewayConfig) -> dict[str, TagKeys]:
    """Return the keys of every enrolled tag, by pseudonym."""
    found: dict[str, TagKeys] = {}
    owners: dict[bytes, str] = {}
    for at, tag, row in _entries(findings, "keys.tags", config.keys.tags):
        k_id = _hex(row.get("k_id"), KEY_SIZE) if isinstance(row, dict) else None
        k_mic = _hex(row.get("k_mic"), KEY_SIZE) if isinstance(row, dict) else None
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", tag):
            findings.say("keys.tags", f"{at}: not a pseudonym and its two keys: its name has other characters")
        elif k_id is None or k_mic is None:
            findings.say("keys.tags", f"{at}: not a pseudonym and its two keys: {_tag_fault(row)}")
        elif k_id in owners:
            text = f"has the k_id of {owners[k_id]}: one of two children would be the other"
            findings.say("keys.tags", f"{at} {text}")
        else:
            found[tag], owners[k_id] = TagKeys(k_id, k_mic), at
    return found


def install_codes(findings: Findings, config: GatewayConfig) -> dict[str, bytes]:
    """Return the install code of every enrolled reader of the zone, by EUI64 (hexadecimal, MSB first)."""
    if config.radio.enrolment is None:
        return {}
    wanted = {reader.eui64: reader.number for reader in config.readers}
    codes: dict[str, bytes] = {}
    numbers: dict[str, str] = {}
    for at, number, row in _entries(findings, "radio.enrolment", config.radio.enrolment):
        try:
            eui64 = eui64_of(row["eui64"])
        except (KeyError, TypeError):
            findings.say("radio.enrolment", f"{at}, {short(number)}: no eui64")
            continue
        except ValueError as error:
            findings.say("radio.enrolment", f"{at}, {short(number)}: eui64 {error}")
            continue
        code = row.get("install_code")
        if eui64 in numbers:
            text = f"module {eui64} has two numbers there, {numbers[eui64]} and {short(number)}"
            findings.say("radio.enrolment", f"{at}: {text}; remove the wrong one")
            continue
        numbers[eui64] = short(number)
        if eui64 not in wanted or code is None:
            continue
        if str(wanted[eui64]) != number:
            text = f"{at}: module {eui64} is reader {short(number)} there, but {wanted[eui64]} in this file"
            findings.say("radio.enrolment", text)
        elif not isinstance(code, str) or not _install_code_valid(_hex(code, 18)):
            text = "the install code is not 16 bytes and their checksum; copy the entry anew"
            findings.say("radio.enrolment", f"{at}, {number}: {text}")
        else:
            codes[eui64] = bytes.fromhex(code)
    missing = sorted(set(wanted) - set(codes))
    if missing and findings.right("radio.enrolment"):
        findings.notes.append(f"no install code for {len(missing)} readers: they must have joined already")
    return codes


def broker(findings: Findings, mqtt: MqttTable) -> str | None:
    """Check the files for the broker; return the password, or None if there is none."""
    before = len(findings.problems)
    for key, beside in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(mqtt, key) is None and getattr(mqtt, beside) is not None and findings.right(f"mqtt.{key}"):
            findings.say(f"mqtt.{key}", f"missing: {beside} is given, and they are used together only")
    if mqtt.cert_file and not mqtt.ca_file and findings.right("mqtt.ca_file"):
        findings.say("mqtt.ca_file", "missing: a certificate of our own needs TLS")
    for key in ("ca_file", "cert_file", "key_file"):
        name = getattr(mqtt, key)
        data = _file(findings, f"mqtt.{key}", name, secret=key == "key_file") if name else None
        if data is not None and (fault := _pem_fault(data)):
            findings.say(f"mqtt.{key}", f"{findings.base / name} {fault}")
    if mqtt.ca_file and len(findings.problems) == before:
        _certificates(findings, mqtt)
    password = None
    if mqtt.password_file:
        password = _password(findings, mqtt.password_file)
        if not mqtt.username and findings.right("mqtt.username"):
            findings.say("mqtt.username", "missing: the password in password_file needs one")
    if findings.right("mqtt.city_key_file"):
        _city_keys(findings, mqtt.city_key_file)
    if findings.right("mqtt.host", "mqtt.ca_file") and not mqtt.ca_file and not is_local(mqtt.host):
        findings.notes.append(f"no TLS to {mqtt.host}: anybody on the way can read and forge; give mqtt.ca_file")
    return password


def _password(findings: Findings, name: str) -> str:
    data = _file(findings, "mqtt.password_file", name, secret=True)
    if data is None:
        return ""
    try:
        password = text_of(data).split("\n")[0].strip()
    except BadFile as error:
        findings.say("mqtt.password_file", f"{findings.base / name}:{error.line}: {error.what}")
        return ""
    if not password:
        text = "its first line is empty; write the password there"
        findings.say("mqtt.password_file", f"{findings.base / name}:1: {text}")
    return password


def _city_keys(findings: Findings, name: str) -> None:
    path = findings.base / name
    data = _file(findings, "mqtt.city_key_file", name, secret=True)
    if data is None:
        return
    if data.startswith(_BOM):
        findings.say("mqtt.city_key_file", f"{path}:1: {_NO_BOM}")
        return
    try:
        parse_keys(data.decode("ascii"))
    except (UplinkError, UnicodeDecodeError) as error:  # neither text quotes the keys
        said = str(error) if isinstance(error, UplinkError) else "not ASCII text"
        findings.say("mqtt.city_key_file", f"{path}: {said}")


def _pem_fault(data: bytes) -> str:
    if b"-----BEGIN " not in data:
        der = data[:1] == b"\x30"
        return "is not PEM" + (" but DER; convert it with: openssl x509 -inform der" if der else "")
    return _NO_BOM if data.startswith(_BOM) else ""


def _certificates(findings: Findings, mqtt: MqttTable) -> None:
    """Load the files as the connection will: what OpenSSL refuses here would end every start of the gateway."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca = findings.base / (mqtt.ca_file or "")
    try:
        context.load_verify_locations(cafile=ca)
    except (ssl.SSLError, OSError):
        findings.say("mqtt.ca_file", f"{ca} holds no certificate that can be read; copy it again from the broker")
        return
    ends = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs() if "notAfter" in one]
    if ends and max(ends) < time.time():
        ended = time.strftime("%Y-%m-%d", time.gmtime(max(ends)))
        text = "the broker is refused if this box's clock is right; ask who runs the broker for the new one"
        findings.notes.append(f"mqtt.ca_file: {ca} ended on {ended}: {text}")
    if mqtt.cert_file and mqtt.key_file:
        cert, key = findings.base / mqtt.cert_file, findings.base / mqtt.key_file
        try:
            context.load_cert_chain(cert, key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            text = "the key must be the certificate's own, and without a passphrase"
            why = (
                f" ({error.reason.replace('_', ' ').lower()})"
                if isinstance(error, ssl.SSLError) and error.reason
                else ""
            )
            findings.say("mqtt.cert_file", f"{cert} and {key} are no pair that can be used{why}; {text}")


def walk_test(findings: Findings, config: GatewayConfig) -> "tuple[RecordedSite | None, Survey | None]":
    """Return the walk test on the zone's plane; (None, None) if there is none or the readers have faults."""
    if config.locate.survey is None or not findings.right("readers", "locate"):  # their positions must be right first
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
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            findings.say(key, f"{path} is {what}, not a file; name a file")
            return None
        if secret and mode & 0o077:
            text = f"{path} can be read by others (mode {mode & 0o777:04o}); do: chmod 600 {path}"
            findings.say(key, text, hint=False)
        with path.open("rb") as file:
            data = file.read(FILE_MAX_B + 1)
    except OSError as error:
        findings.say(key, f"{path} cannot be read ({error.strerror}){_next_step(key, path, error)}")
        return None
    if len(data) > FILE_MAX_B:
        findings.say(key, f"{path} is over {FILE_MAX_B} bytes: another file")
        return None
    if not data.strip():
        findings.say(key, f"{path} is empty{_MADE_BY.get(key, '')}")
        return None
    return data


def _next_step(key: str, path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return _MADE_BY.get(key, "; copy it there, or mend the path")
    if isinstance(error, PermissionError):
        return f"; you are {user()}: check as the user who runs the gateway, or give that user the file with chown"
    return ""


def user() -> str:
    """Return the name of the user who runs this program."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _entries(findings: Findings, key: str, name: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (where it stands, its name, its value) of each entry of a JSON object; nothing of a file that is none."""
    data = _file(findings, key, name, secret=True) if findings.right(key) else None
    if data is None:
        return
    try:
        rows = table_of(data)
    except BadFile as error:
        findings.say(key, f"{findings.base / name}{f':{error.line}' if error.line else ''}: {error.what}")
        return
    for place, (line, (entry, value)) in enumerate(zip(entry_lines(data), rows.items(), strict=True), 1):
        yield f"{findings.base / name}:{line}: entry {place}", entry, value


def _not_hex(text: Any, size: int) -> str:
    """Return why this is no key, without a character of it."""
    if not isinstance(text, str):
        return "the key is no text in quotes"
    odd = re.search("[^0-9a-fA-F]", text)
    return f"the key has {'a character that is no' if odd else f'{len(text)}, not {2 * size},'} hexadecimal digit" + (
        "" if odd else "s"
    )


def _tag_fault(row: Any) -> str:
    if not isinstance(row, dict):
        return "no k_id and no k_mic"
    for name in ("k_id", "k_mic"):
        if name not in row:
            return f"no {name}"
        if _hex(row[name], KEY_SIZE) is None:
            return f"{name}: {_not_hex(row[name], KEY_SIZE)}"
    return ""


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
