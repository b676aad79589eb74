"""What a program of the bring-up prints, read line by line: `@KEY=VALUE;`, see firmware/probe.py. Pure.

Each such line stands for itself. A step begins with `@step` and ends with `@done`. A line that is cut short, or is of
something else, is kept as text with the step: it may say why a step ended.
"""

import ast
import re
from dataclasses import dataclass, field
from typing import Any

LINE = re.compile(r"@([^=\s]+)=(.{1,600});")
LINE_MAX = 1000  # bytes; what is longer is no line of ours
PRINTED_MAX = 24  # lines of text kept of a step
TEXT_MAX = 120
LISTS = ("depth", "ready", "saved", "sent", "stack_b")
"""Keys that come several times in a step."""


@dataclass
class Transcript:
    """What one start of the module has said so far.

    boots: what each boot reported, (reset cause, ticks, free heap). running: the step that has begun and not ended.
    lost_to: the reset cause, when the newest boot came in the middle of a step. ended: the program has nothing more to
    do. steps: what was measured, by step.
    """

    boots: list[tuple[int, int, int]] = field(default_factory=list)
    running: str = ""
    lost_to: int | None = None
    ended: bool = False
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    _rest: bytes = b""

    def receive_data(self, data: bytes) -> list[tuple[str, Any]]:
        """Take what came from the line. Return the (key, value) of each line of ours that is now complete."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LINE_MAX:]
        found = []
        for line in lines:
            text = "".join(chr(byte) for byte in line[-LINE_MAX:] if 0x20 <= byte < 0x7F)
            match = LINE.fullmatch(text.strip())
            try:
                told = (match[1], ast.literal_eval(match[2])) if match else None
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                told = None
            if told is None or (told[0] == "boot" and not _is_boot(told[1])):
                self._keep(text)
            else:
                self._take(*told)
                found.append(told)
        return found

    def _keep(self, text: str) -> None:
        if self.running and text.strip():
            printed = self.steps[self.running].setdefault("printed", [])
            if len(printed) < PRINTED_MAX:
                printed.append(text.strip()[:TEXT_MAX])

    def _take(self, key: str, value: Any) -> None:
        if key == "boot":
            self.boots.append(value)
            if self.running:
                self.lost_to = int(value[0])
                self.steps[self.running]["reset_cause"] = self.lost_to
        elif key == "end":
            self.ended = True
        elif key == "step":
            self.running = str(value).rpartition(".")[2]
            self.steps[self.running] = {}
        elif key == "done":
            self.running = ""
        elif self.running:
            known = self.steps[self.running]
            if key in LISTS:
                known.setdefault(key, []).append(value)
            else:
                known[key] = value


def _is_boot(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(isinstance(number, int) for number in value)
