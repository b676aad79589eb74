"""The story of a run: who presses what and when, and what breaks. All follows from the seed and the options."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from sim import chance
from sim.reader import switches
from sim.street.children import World
from sim.street.site import Pole

FaultKind = Literal["kill-gateway", "kill-broker", "kill-city", "kill-reader", "noise"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
RESTART_S = 2.0
"""A killed process, or a reader without power, starts again after this."""
NOISE_DB, NOISE_S = 25.0, 5.0
SWITCHES = tuple(field.name for field in fields(switches.Switches))
FAULTS_MAX = SWITCHES_MAX = 50
REACH_M = 30.0
"""The child who presses is this near to a pole, if any is: out of reach no reader hears it, simulated or not."""
STAY_IN_REACH_S = 10.0
SOS_SHARE, BELL_SHARE = 1 / 3, 1 / 2
LIVE_SOS_S, LIVE_BELL_S = 20.0, 60.0


class ScenarioError(ValueError):
    """The options give no possible story. The message says which option to change."""


@dataclass(frozen=True, slots=True)
class Press:
    """One press: of a child's tag (`tag`), or of the bell on the pole of `reader`."""

    at_s: float
    kind: Literal["sos", "bell"]
    tag: int = 0
    reader: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at at_s. `reader` is for kill-reader (0: the seed chooses)."""

    kind: FaultKind
    at_s: float
    reader: int = 0


@dataclass(frozen=True, slots=True)
class Switching:
    """Modules behave otherwise from at_s of the story on (None: from their first boot). `reader` 0: all of them.

    changes: as `sim.reader.switches.parse` reads them, `flash=full,transmit_ms=5000`.
    """

    changes: str
    at_s: float | None = None
    reader: int = 0


@dataclass(frozen=True, slots=True)
class Story:
    """All that will happen, in order of time."""

    presses: tuple[Press, ...]
    faults: tuple[Fault, ...]
    switchings: tuple[Switching, ...]
    digest: str
    """A hash of the children's ways and of the presses: the same for the same seed and options."""


def parse_fault(text: str) -> Fault:
    """Read `kill-gateway@30`, `kill-reader@20:3` (reader 3) or `noise@40`. Raise ScenarioError."""
    found = re.fullmatch(r"([a-z-]+)@(\d+(?:\.\d+)?)(?::(\d+))?", text)
    if not found or found[1] not in KINDS or (found[3] and found[1] != "kill-reader"):
        raise ScenarioError(f"--fault {text!r}: one of {', '.join(KINDS)}, then @SECONDS; kill-reader@SECONDS:NUMBER")
    kind = next(kind for kind in KINDS if kind == found[1])
    return Fault(kind, float(found[2]), int(found[3] or 0))


def parse_switching(text: str) -> Switching:
    """Read `flash=full,transmit_ms=5000@20:3`; without @20 from the start, without :3 all readers.

    Raise ScenarioError. The text then says which switches, or which values, there are.
    """
    found = re.fullmatch(r"([^@:]+)(?:@(\d+(?:\.\d+)?))?(?::([1-9]\d*))?", text)
    if not found:
        raise ScenarioError(f"--switch {text!r}: NAME=VALUE[,NAME=VALUE...][@SECONDS][:READER]")
    try:
        switches.parse(found[1])
    except switches.SwitchError as error:
        raise ScenarioError(f"--switch {text!r}: {error}") from error
    return Switching(found[1], None if found[2] is None else float(found[2]), int(found[3] or 0))


def write(
    world: World,
    poles: Sequence[Pole],
    *,
    seconds: float,
    faults: Sequence[Fault] = (),
    switchings: Sequence[Switching] = (),
    live: bool = False,
) -> Story:
    """Return the story of a run of this length: one SOS after about a third, one bell after about half, and the faults.

    live: for a person who watches, the SOS comes after 20 s and the bell after 60 s. Raise ScenarioError when a fault
    or a switching is after the end or at an unknown reader, or when there are too many.
    """
    seed = world.seed
    if len(faults) > FAULTS_MAX:
        raise ScenarioError(f"{len(faults)} faults; at most {FAULTS_MAX}")
    if len(switchings) > SWITCHES_MAX:
        raise ScenarioError(f"{len(switchings)} times --switch; at most {SWITCHES_MAX}")
    numbers = [pole.number for pole in poles]
    for each in switchings:
        if each.at_s is not None and each.at_s >= seconds:
            raise ScenarioError(f"{each.changes}@{each.at_s:g} lies behind the end; --seconds is {seconds:g}")
        if each.reader and each.reader not in numbers:
            raise ScenarioError(f"{each.changes}:{each.reader}: the readers are {numbers[0]}..{numbers[-1]}")
    settled = []
    for fault in faults:
        if fault.at_s >= seconds:
            raise ScenarioError(f"{fault.kind}@{fault.at_s:g} lies behind the end; --seconds is {seconds:g}")
        if fault.reader and fault.reader not in numbers:
            raise ScenarioError(
                f"kill-reader@{fault.at_s:g}:{fault.reader}: the readers are {numbers[0]}..{numbers[-1]}"
            )
        reader = fault.reader or (_one_of(numbers, seed, "killed", fault.at_s) if fault.kind == "kill-reader" else 0)
        settled.append(Fault(fault.kind, fault.at_s, reader))
    sos_s = LIVE_SOS_S if live else seconds * SOS_SHARE * (0.97 + 0.06 * chance.one(seed, "sos at"))
    bell_s = LIVE_BELL_S if live else seconds * BELL_SHARE * (0.97 + 0.06 * chance.one(seed, "bell at"))
    sos_s, bell_s = round(sos_s, 2), round(bell_s, 2)
    who = _who_presses(world, poles, sos_s)
    presses = (
        Press(sos_s, "sos", tag=who),
        Press(bell_s, "bell", reader=_farthest(world, poles, who, bell_s)),
    )
    told = hashlib.sha256(f"{world.digest(0 if live else seconds)} {presses}".encode())
    in_order = sorted(switchings, key=lambda each: -1.0 if each.at_s is None else each.at_s)
    faults_in_order = sorted(settled, key=lambda fault: fault.at_s)
    return Story(presses, tuple(faults_in_order), tuple(in_order), told.hexdigest()[:16])


def changed(module: switches.Switches) -> dict[str, Any]:
    """Return the switches of a module that are not as usual, by name."""
    usual = asdict(switches.Switches())
    return {name: value for name, value in asdict(module).items() if value != usual[name]}


def words(module: switches.Switches) -> str:
    """Return the switches of a module that are not as usual, as one would type them."""
    return ",".join(f"{name}={value}" for name, value in changed(module).items())


def module_of(file: Path | None) -> switches.Switches:
    """Return the switches that `ansim-reader bringup` wrote into a file; as usual without one. Raise ScenarioError."""
    try:
        return switches.Switches() if file is None else switches.read(file)
    except switches.SwitchError as error:
        raise ScenarioError(f"--switches: {error}") from error


def at_boot(story: Story, numbers: Iterable[int], base: switches.Switches) -> dict[int, switches.Switches]:
    """Return the switches of each reader's module at its first boot. base: of all of them."""
    found = dict.fromkeys(numbers, base)
    for each in story.switchings:
        for number in found if each.at_s is None else ():
            if each.reader in (0, number):
                found[number] = switches.parse(each.changes, found[number])
    return found


def _who_presses(world: World, poles: Sequence[Pole], at_s: float) -> int:
    """Return a child who walks outside the school, near a pole at at_s and SETTLE_S later; if none, the next best."""
    best: list[tuple[float, int]] = []
    for child in world.children:
        now, soon = child.at(at_s), child.at(at_s + STAY_IN_REACH_S)
        far = max(_nearest_m(poles, now.x_m, now.y_m), _nearest_m(poles, soon.x_m, soon.y_m))
        if world.at_school(child, at_s):
            far += 1000.0
        best.append((far if now.moving else far + 100.0, child.number))
    near = [number for far, number in best if far <= REACH_M]
    if near:
        return near[int(chance.one(world.seed, "sos by") * len(near))]
    return min(best)[1]


def _farthest(world: World, poles: Sequence[Pole], tag: int, at_s: float) -> int:
    """Return the pole farthest from the child that cries: its lamp is still dark, so the bell's effect on it shows."""
    where = world.children[tag - 1].at(at_s)
    return max(poles, key=lambda pole: (math.dist((where.x_m, where.y_m), pole.at), pole.number)).number


def _nearest_m(poles: Sequence[Pole], x_m: float, y_m: float) -> float:
    return min(math.dist((x_m, y_m), pole.at) for pole in poles)


def _one_of(numbers: Sequence[int], seed: int, what: str, when: float = 0.0) -> int:
    return numbers[int(chance.one(seed, what, int(when * 100)) * len(numbers))]
