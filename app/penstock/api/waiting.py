"""Holding an answer until a job or workflow is over (`Prefer: wait`)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstock import clock
from penstock.api.ask import Ask
from penstock.api.gate import PLACE
from penstock.domain.ids import JobId

T = TypeVar("T")
Look = Callable[[JobId], Awaitable[T | None]]

_GLANCE_S = 0.05  # shortest time between two looks at what is waited for


async def until_over(
    ask: Ask, id_: JobId, wait_s: float, look: Look[T], is_over: Callable[[T], bool]
) -> T | None:
    """What `look` sees when it is over, or as it stands when the time is up. Raises Overloaded
    where too many wait already."""
    until = clock.monotonic() + wait_s
    with ask.request[PLACE].waiting():
        while True:
            began = clock.monotonic()
            await ask.door.waiters.wait(id_, max(until - began, 0.0))
            view = await look(id_)
            if view is None or is_over(view) or clock.monotonic() >= until:
                return view
            if clock.monotonic() - began < _GLANCE_S:
                await asyncio.sleep(_GLANCE_S)
