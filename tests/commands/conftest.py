"""Tests turn a still engine by hand, on one database a module."""

from tests.support.turned import (
    database_of_the_module,
    dsn,
    postgres_wire,
    redis_wire,
    still,
    still_settings,
    wired,
)

__all__ = [
    "database_of_the_module",
    "dsn",
    "postgres_wire",
    "redis_wire",
    "still",
    "still_settings",
    "wired",
]
