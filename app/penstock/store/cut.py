"""A fault on order: the connection dies between a statement that commits and its answer.

In: a connection and what to send on it. Out: what asyncpg raises for a dead connection; the
statement itself is sent, and Postgres carries it out. For chaos points only (`penstock.chaos`).
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
from asyncpg.transaction import Transaction

if TYPE_CHECKING:
    from penstock.store.postgres import Connection

T = TypeVar("T")


async def fetch(con: "Connection", sql: str, args: Sequence[object]) -> "list[asyncpg.Record]":
    """Sends one statement, which is a transaction of its own."""
    statement = await con.prepare(sql)  # before: else only the asking for its plan would be sent
    return await _cut(con, statement.fetch(*args))


async def commit(con: "Connection", transaction: Transaction) -> None:
    """Sends the COMMIT of an open transaction."""
    await _cut(con, transaction.commit())


async def _cut(con: "Connection", work: Coroutine[Any, Any, T]) -> T:
    """Aborts when all is sent; nothing of the answer is read before."""
    transport: asyncio.Transport = con._transport  # type: ignore[union-attr]
    transport.pause_reading()
    sending = asyncio.ensure_future(work)
    await asyncio.sleep(0)  # it begins to write
    while transport.get_write_buffer_size() and not sending.done():  # noqa: ASYNC110  # no event
        await asyncio.sleep(0)
    transport.abort()
    return await sending
