"""How any part of the gateway says that something is wrong, or well again. It becomes a `GatewayHealth` event."""

from typing import Protocol


class OnHealth(Protocol):
    """what: a stable word for the thing; ok: whether it is well; detail: a sentence with the next step."""

    def __call__(self, what: str, ok: bool, detail: str) -> None: ...
