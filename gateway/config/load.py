"""Reads and checks the gateway's one TOML file together with every file it names.

Everything is checked before anything starts. All faults are reported at once, each with its key, its line and what
would be right. `docs/GATEWAY.md` lists every key.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config import files, gates, machine, rules
from gateway.config.convert import convert
from gateway.config.findings import ConfigError, Findings, Problem, short
from gateway.config.toml_lines import key_lines, lookalike, meant, monstrous
from gateway.options import GatewayConfig, Installation
from gateway.zone import Zone
from readers.files import BadFile, bytes_of, text_of

GATES_SHOWN = 20


def load(path: Path, *, here: bool = False) -> Installation:
    """Read and check a file and the files it names. Raises ConfigError with everything that is wrong.

    here: whether this machine is looked at too (stick, folders), as `check` does.
    """
    try:
        data = bytes_of(path)
    except OSError as error:
        raise ConfigError(path, [Problem("file", 0, f"cannot be read ({error.strerror}); check the path")]) from None
    except BadFile as error:
        raise ConfigError(path, [Problem("file", 0, error.what)]) from None
    try:
        text = text_of(data)
        if not text.strip():
            raise BadFile("it is empty; docs/GATEWAY.md has a file to begin with")
        raw = tomllib.loads(text)
    except BadFile as error:
        raise ConfigError(path, [Problem("file", error.line, error.what)]) from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+), column (\d+)", str(error))
        line, column = (int(found[1]), int(found[2])) if found else (text.count("\n") + 1, 0)
        hint = lookalike(text, line, column) or meant(text, line, column, str(error))
        raise ConfigError(path, [Problem("file", line, f"not TOML here: {error}{hint}")], rest_unread=True) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, very deep brackets
        what = f"no parser can take this: {short(str(error))}"
        raise ConfigError(path, [Problem("file", monstrous(text), what)], rest_unread=True) from None
    return _checked(Findings(path, key_lines(text)), raw, here)


def summary(installation: Installation) -> str:
    """Return what a technician wants to see of a valid file: one screen, no secrets. The notes are not in it."""
    c = installation.config
    lines = [
        f"site {c.site}, gateway {c.gateway}",
        f"radio {c.radio.port}, channel {c.radio.channel}, {len(installation.install_codes)} install codes",
        f"store {installation.folder}, at most {c.store.bulk_max_mb} MB of routine events",
        f"broker {c.mqtt.host}:{c.mqtt.port}, MQTT {c.mqtt.protocol}, {'TLS' if c.mqtt.ca_file else 'no TLS'}",
        f"walk test: {f'{len(installation.survey)} rows' if installation.survey is not None else 'none'}",
        f"{len(c.readers)} readers, {len(c.bells)} bells, {len(installation.tag_keys)} tags, "
        f"{len(c.places)} places, {len(c.dangers)} danger areas, {len(c.routes)} routes, {len(c.paused)} tags paused",
        f"{len(c.footpaths)} footpaths{'' if c.footpaths else ': everybody may walk everywhere'}",
        *_gate_lines(c),
    ]
    return "\n".join(lines)


def _gate_lines(config: GatewayConfig) -> Iterator[str]:
    """Yield who guards each gate."""
    for gate in config.gates[:GATES_SHOWN]:
        sides = []
        for side in ("outer", "inner"):
            guards = [str(r.number) for r in config.readers if r.gate == gate.id and r.side == side]
            sides.append(f"{side} {' and '.join(guards) or 'none'}")
        what = f"gate {gate.id} of {gate.place}, {gate.width_m:g} m wide, one enters to {gate.inward_deg:g} degrees"
        yield f"{what}: readers {', '.join(sides)}"
    if len(config.gates) > GATES_SHOWN:
        yield f"and {len(config.gates) - GATES_SHOWN} gates more"


def _checked(findings: Findings, raw: dict[str, Any], here: bool) -> Installation:
    config = convert(findings, raw)
    for rule in (*rules.RULES, *gates.RULES):
        rule(findings, config)
    reader_keys = files.reader_keys(findings, config)
    tag_keys = files.tag_keys(findings, config)
    rules.tags(findings, config, tag_keys)
    codes = files.install_codes(findings, config)
    password = files.broker(findings, config.mqtt)
    site, survey = files.walk_test(findings, config)
    for look in machine.LOOKS if here else ():
        look(findings, config)
    if not tag_keys and findings.right("keys.tags"):
        findings.notes.append("no tags are enrolled: every tag is unknown, and only its SOS is reported")
    findings.stop_if_wrong()
    whole = Zone(**{name: getattr(config, name) for name in Zone.__struct_fields__})
    if config.footpaths:
        from gateway.locate.ground import Ground  # numpy, as in `files`

        findings.notes += Ground(whole).notes
    return Installation(
        config=config,
        zone=whole,
        base=findings.base,
        folder=findings.base / config.store.folder,
        database=findings.base / config.radio.database,
        reader_keys=reader_keys,
        tag_keys=tag_keys,
        install_codes=codes,
        password=password,
        site=site,
        survey=survey,
        notes=tuple(findings.notes),
    )
