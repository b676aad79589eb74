# Digi's machine, the part the firmware uses (typehints/common/umachine.pyi; WDT: ZigBee firmware >= 100A by Digi's
# sample, whose hints put it into UART and leave out feed's self: both taken for slips).
from typing import overload

HARD_RESET: int
SOFT_RESET: int
PWRON_RESET: int
BROWNOUT_RESET: int

def reset_cause() -> int: ...
def reset() -> None: ...

class Pin:
    IN: int
    OUT: int
    PULL_UP: int
    def __init__(self, id: str, /, mode: int = ..., pull: int = ..., *, value: int | None = ...) -> None: ...
    @overload
    def value(self) -> int: ...
    @overload
    def value(self, value: int, /) -> None: ...

class WDT:
    def __init__(self, id: int = ..., /, timeout: int = ..., response: int = ...) -> None: ...
    def feed(self) -> None: ...
