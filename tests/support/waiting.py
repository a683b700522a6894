"""Waiting for what must come true, without sleeping for a guessed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], what: str, within_s: float = 10.0, every_s: float = 0.05
) -> T:
    """The first truthy answer of `look`; fails with `what` and the last answer otherwise."""
    give_up_at = time.monotonic() + within_s
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {within_s:g} s: {what} (last: {found!r})")
        await asyncio.sleep(every_s)
