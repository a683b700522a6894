"""Long work on the event loop, in short turns, so that nobody else waits for it.

Always holds: whoever works for long does so inside `async with pace`, one at a time, and asks
`breathe` often; so all long work together holds the loop for one turn at a time, however many
large bodies come at once.
"""

import asyncio

from penstock import clock

_TURN_S = 0.004


class Pace:
    """One for the whole door."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._turn_ends = 0.0

    async def __aenter__(self) -> "Pace":
        await self._lock.acquire()
        self._turn_ends = clock.monotonic() + _TURN_S
        return self

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def is_over(self) -> bool:
        """Whether it is time to breathe; costs less than asking `breathe` itself."""
        return clock.monotonic() >= self._turn_ends

    async def breathe(self) -> None:
        """Lets others have their turn, once this one has lasted 4 ms."""
        if self.is_over:
            await asyncio.sleep(0)
            self._turn_ends = clock.monotonic() + _TURN_S
