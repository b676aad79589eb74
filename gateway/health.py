"""How any part of the gateway reports that something is wrong, or right again, as a `GatewayHealth` event."""

from typing import Protocol


class OnHealth(Protocol):
    """what: a fixed name for the thing. ok: whether it works. detail: a sentence that includes the next step."""

    def __call__(self, what: str, ok: bool, detail: str) -> None: ...
