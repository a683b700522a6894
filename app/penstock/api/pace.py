"""Long work on the event loop, in short turns, so that nobody else waits for it.

Always holds: whoever works for long does so inside `async with pace`, one at a time, and asks
`breathe` often; who works briefly, but may come in a crowd, only asks `breathe` before. A turn is
one of the loop's, whoever works in it: so all of them together hold the loop for 4 ms at a time,
however many bodies come at once.

Who has just left may enter again at once, ahead of those who wait: a request that has begun goes
on to its end, so that what was decoded of one body is gone before the next is decoded. A heap of
decoded bodies is what makes the garbage collector slow.
"""

import asyncio
from collections import deque

from penstock import clock

_TURN_S = 0.004


class Pace:
    """One for the whole door."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turn_ends: float | None = None

    async def __aenter__(self) -> "Pace":
        if self._held:
            await self._wait()
        self._held = True
        if self.is_over:
            try:
                await self.breathe()
            except BaseException:
                self._release()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._release()

    @property
    def is_over(self) -> bool:
        """Whether it is time to breathe; costs less than asking `breathe` itself."""
        if self._turn_ends is None:
            self._turn_ends = clock.monotonic() + _TURN_S
            asyncio.get_running_loop().call_soon(self._end_turn)
            return False
        return clock.monotonic() >= self._turn_ends

    async def breathe(self) -> None:
        """Lets others have their turn, once there was work for 4 ms in this one."""
        while self.is_over:  # noqa: ASYNC110  # the loop sets no event when it comes round
            await asyncio.sleep(0)

    def _end_turn(self) -> None:
        self._turn_ends = None

    async def _wait(self) -> None:
        first = True
        while self._held:
            called = asyncio.get_running_loop().create_future()
            if first:
                self._waiting.append(called)
            else:  # somebody went on with what he had begun
                self._waiting.appendleft(called)
            first = False
            try:
                await called
            except BaseException:
                self._call()  # it may have been called in vain
                raise

    def _release(self) -> None:
        self._held = False
        self._call()

    def _call(self) -> None:
        """Calls the next who waits, if the place is free."""
        while self._waiting and not self._held:
            called = self._waiting.popleft()
            if not called.done():  # else he has left
                called.set_result(None)
                return
