"""A real Redis, empty; and Postgres' clock, faked to stand still at Redis' time."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from penstock.queue.shelves import Shelves
from tests.support import redis_shelves
from tests.support.redis_shelves import RedisShelves


@dataclass(slots=True)
class Stand:
    """`now_ms` is the time that the shelves take for Postgres'; `lead_ms` is Redis' lead on it."""

    redis: RedisShelves
    now_ms: int
    lead_ms: int = 0

    @property
    def shelves(self) -> Shelves:
        return self.shelves_of("me")

    def shelves_of(self, origin: str) -> Shelves:
        """The shelves in the hands of one replica."""
        aging_ms = self.redis.aging_ms
        return Shelves(
            self.redis.door,
            lambda queue: aging_ms.get(queue, 60_000.0),
            lambda: self.now_ms,
            lambda: self.lead_ms,
            origin,
        )


@pytest.fixture
async def stand(redis_url: str) -> AsyncIterator[Stand]:
    async with redis_shelves.opened(redis_url) as redis:
        yield Stand(redis, await redis.now_ms())
