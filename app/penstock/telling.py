"""What the metrics of one replica ask its parts for: a part of `engine.py`."""

from collections.abc import Iterator
from platform import python_version
from typing import TYPE_CHECKING

from penstock import VERSION
from penstock.settings import Settings

if TYPE_CHECKING:
    from penstock.engine import Engine

Told = Iterator[tuple[tuple[str, ...], float]]


def wire_metrics(engine: "Engine", settings: Settings) -> None:
    """Says who we are, and whom to ask when we are scraped."""
    metrics, rooms = engine.metrics, engine.rooms
    metrics.build_info(VERSION, python_version()).set(1)
    for role in settings.roles:
        metrics.role(role).set(1)
    metrics.foresee_kinds((*rooms.registry.async_kinds, *rooms.registry.thread_kinds))

    def postgres_connections() -> Told:
        for pool in rooms.postgres.pools():
            yield (pool.name, "busy"), pool.size - pool.idle
            yield (pool.name, "idle"), pool.idle

    def redis_connections() -> Told:
        busy, idle = rooms.redis.connections()
        yield ("busy",), busy
        yield ("idle",), idle

    metrics.postgres_connections.tell = postgres_connections
    metrics.postgres_pool_size.tell = lambda: (
        ((pool.name,), pool.size_max) for pool in rooms.postgres.pools()
    )
    metrics.postgres_waiters.tell = lambda: (
        ((pool.name,), pool.waiting) for pool in rooms.postgres.pools()
    )
    metrics.redis_connections.tell = redis_connections
