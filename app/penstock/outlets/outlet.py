"""What the relay asks of a way out."""

from collections.abc import Sequence
from typing import Protocol

from penstock.domain.effect import Delivery, Message


class Outlet(Protocol):
    """One channel's way out. `at_once`: how many messages of one endpoint it takes together."""

    at_once: int

    async def deliver(self, batch: Sequence[Message]) -> list[Delivery]:
        """Tries to deliver messages to one endpoint; what came of each. Bounded in time well below
        the relay's lease; raises nothing that the other side can bring about."""
        ...

    async def close(self) -> None:
        """Lets go of what it holds open."""
        ...
