"""Walks through what Postgres gives in pieces."""

from collections.abc import AsyncIterator

from penstock.domain.job import Due
from penstock.store.line import FIRST_PAGE, Line

NO_END = b"\xff" * 16


async def pages(line: Line, queue: str, size: int) -> AsyncIterator[list[Due]]:
    """All due rows of a queue, page by page."""
    page, after = await line.page(queue, FIRST_PAGE, NO_END, size)
    while page:
        yield page
        page, after = await line.page(queue, after, NO_END, size)
