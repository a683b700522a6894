"""Waiting for work that goes on when whoever waits gives up: others may wait for it, too.

As `asyncio.shield`, but a failure that nobody is left to hear of is no error: from Python 3.14 on a
shield logs it as one.
"""

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


async def outlived(work: "asyncio.Future[T]") -> T:
    """What comes of it, or its failure; to cancel this cancels no work."""
    work.add_done_callback(heed)
    await asyncio.wait([work])
    return work.result()


def heed(work: "asyncio.Future[Any]") -> None:
    """Called when it is done: asyncio would log a failure that nobody heard of as forgotten."""
    if not work.cancelled():
        work.exception()
