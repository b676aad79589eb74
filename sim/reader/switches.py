"""What a module may do to its program: a switch for each answer that nobody knows, and for each known to hurt.

The defaults are a working module as strict as is plausible. `ansim-reader bringup` measures a real one and writes the
same names into a file; `read` makes switches of that file. Where each default comes from: docs/FIRMWARE.md, "What the
module does".
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from readers.files import BadFile, bytes_of, table_of

ERRORS = {"EIO": 5, "EAGAIN": 11, "EEXIST": 17, "ENODEV": 19, "EINVAL": 22, "ENOSPC": 28, "EROFS": 30,
          "ENOTCONN": 107, "ETIMEDOUT": 110, "EALREADY": 114}  # fmt: skip
"""The module's numbers are these plus 7000. EIO, ENODEV, ENOTCONN and ETIMEDOUT were seen; the others follow."""
TRANSMIT_ERRORS = ("EIO", "EAGAIN", "ENODEV", "ENOTCONN", "ETIMEDOUT", "EINVAL", "TypeError", "ValueError")
CHOICES: dict[str, tuple[str, ...]] = {
    "atcmd": ("int", "bytes", "str", "none", "raises"),
    "flash": ("works", "full", "no_replace", "no_sync", "never_frees", "unreadable", "short"),
    "gap_scan": ("works", "ENODEV", "EALREADY", "raises"),
    "gap_scan_again": ("works", "ENODEV", "EALREADY", "raises"),
    "gap_advertise": ("works", "ENODEV", "EINVAL", "raises"),
    "transmit": ("works", *TRANSMIT_ERRORS),
}


class SwitchError(ValueError):
    """There is no such switch, or it cannot have this value. The text says which are possible."""


@dataclass(frozen=True, slots=True)
class Switches:
    """One module. "raises" stands for an exception that no page names (RuntimeError)."""

    heap_b: int = 38 * 1024
    """Of the emulator, whose words have 64 bits. docs/FIRMWARE.md reckons what 32 bits need."""
    boot_ms: int = 1500
    """From power to main.py."""
    call_ms: int = 0
    """What each write to a pin and each step on flash costs; 5 ms were reported for a pin."""
    gc_threshold: bool = False
    """Whether `gc.threshold` exists."""
    kbd_intr: bool = True
    """Whether `micropython.kbd_intr` exists."""
    watchdog: bool = True
    """Whether `machine.WDT` exists."""
    pins_refused: str = ""
    """Pins of the board that raise ValueError all the same, with commas."""
    ble_off: bool = True
    """`gap_scan` and `gap_advertise` raise ENODEV until `ble.active(True)` was called."""
    gap_scan: str = "works"
    gap_scan_again: str = "works"
    """What every `gap_scan` after the first of a boot does."""
    stop_late_ms: int = 30
    """A scan that was stopped goes on so long, and a new one raises EALREADY meanwhile."""
    gap_advertise: str = "works"
    payload_none_pct: int = 0
    """So many of 100 advertisements are followed by one whose payload is None."""
    address_none_pct: int = 0
    """So many of 100 advertisements have None as address."""
    atcmd: str = "int"
    """What `atcmd` gives for %V and TP."""
    flash: str = "works"
    flash_b: int = 100_000
    """Space with flash = never_frees: every file written takes blocks of 2048 bytes of it, for good."""
    transmit: str = "works"
    """What `transmit` raises, in `transmit_pct` of 100 calls, after `transmit_ms`."""
    transmit_ms: int = 0
    transmit_pct: int = 100
    interrupt_every_s: float = 0.0
    """A byte 0x03 arrives on the serial line so often: KeyboardInterrupt at the program's next step."""
    interrupt_at_step: int = 0
    """The same once, at this step of every boot, counted in calls of the module: 1 is the first. 0: never."""
    stdin_b_s: int = 0
    """Bytes a second that arrive on the serial line, of any value: one in 256 is 0x03, and the others do nothing."""
    receive_queue: int = 4
    """Usually given as 4; no page of Digi that we read has a number."""
    scan_queue: int = 20
    """Not published. A full queue loses its oldest advertisement, as with oldest=False."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = type(field.default)
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not kind:
                raise SwitchError(f"switch {field.name}: {value!r} is no {kind.__name__}")
            if isinstance(value, int | float) and value < 0:
                raise SwitchError(f"switch {field.name}: {value} is below 0")
            if field.name.endswith("_pct") and value > 100:
                raise SwitchError(f"switch {field.name}: {value} is above 100")
            if field.name in CHOICES and value not in CHOICES[field.name]:
                raise SwitchError(f"switch {field.name}: {value!r} is none of {', '.join(CHOICES[field.name])}")

    def but(self, **changes: object) -> "Switches":
        """Return these switches with some changed. Raise SwitchError for a name or a value that is not possible."""
        unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(self)})
        if unknown:
            known = ", ".join(field.name for field in dataclasses.fields(self))
            raise SwitchError(f"there is no switch {unknown[0]!r}; there are {known}")
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def parse(text: str, base: Switches | None = None) -> Switches:
    """Read `flash=full,transmit_ms=5000`. Raise SwitchError."""
    base = base or Switches()
    changes: dict[str, object] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.strip().partition("=")
        default = {field.name: field for field in dataclasses.fields(Switches)}.get(name)
        if default is None:
            return base.but(**{name: value})  # which says what there is
        if not equals:
            raise SwitchError(f"switch {name}: write {name}=VALUE")
        try:
            kind: type = type(default.default)
            changes[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise SwitchError(f"switch {name}: {value!r} is no {kind.__name__}") from None
    return base.but(**changes)


def read(path: Path) -> Switches:
    """Return the switches of a file that `ansim-reader bringup` wrote (its key "switches"). Raise SwitchError."""
    try:
        found = table_of(bytes_of(path)).get("switches")
    except OSError as error:
        raise SwitchError(f"cannot read {path}: {error.strerror}; `ansim-reader bringup` writes such a file") from error
    except BadFile as error:
        raise SwitchError(f"{path} is no file of `ansim-reader bringup`: {error}") from error
    if not isinstance(found, dict):
        raise SwitchError(f'{path} is no file of `ansim-reader bringup`: it has no "switches": {{...}}')
    try:
        return Switches().but(**found)
    except SwitchError as error:
        raise SwitchError(f"{path}: {error}") from error
