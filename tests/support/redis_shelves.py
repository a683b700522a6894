"""The shelves of a real Redis, and their whole contents as a test likes to compare them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as redis

from penstock.clock import ServerClock
from penstock.queue.redis import RedisDoor
from penstock.queue.shelves import Shelves

Contents = dict[str, dict[bytes, float]]  # key without its prefix -> member -> score

_PREFIX = "penstock:"


@dataclass(frozen=True, slots=True)
class RedisShelves:
    """`aging_ms` by queue; a minute where nothing is said. `raw` sees behind the door."""

    door: RedisDoor
    shelves: Shelves
    raw: redis.Redis
    pg_clock: ServerClock
    aging_ms: dict[str, float] = field(default_factory=dict)

    async def put(self, contents: Contents) -> None:
        """Fills shelves as given."""
        for name, members in contents.items():
            await self.raw.zadd(_PREFIX + name, dict(members))

    async def contents(self) -> Contents:
        """All shelves that have members."""
        found: Contents = {}
        keys: list[Any] = await self.raw.keys(f"{_PREFIX}*")
        for key in sorted(keys):
            if await self.raw.type(key) == b"zset":
                pairs: list[Any] = await self.raw.zrange(key, 0, -1, withscores=True)
                found[key.decode().removeprefix(_PREFIX)] = dict(pairs)
        return found

    async def flush(self) -> None:
        await self.raw.flushall()

    async def now_ms(self) -> int:
        seconds, micros = await self.raw.time()
        return int(seconds) * 1000 + int(micros) // 1000


@asynccontextmanager
async def opened(
    url: str, timeout_s: float = 1.0, origin: str = "me"
) -> AsyncIterator[RedisShelves]:
    door = RedisDoor(url, timeout_s)
    raw = redis.Redis.from_url(url)
    pg_clock, aging_ms = ServerClock(), dict[str, float]()
    shelves = Shelves(
        door, lambda queue: aging_ms.get(queue, 60_000.0), pg_clock.now_ms, lambda: 0, origin
    )
    try:
        yield RedisShelves(door, shelves, raw, pg_clock, aging_ms)
    finally:
        await door.close()
        await raw.aclose()
