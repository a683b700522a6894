"""A PostgreSQL and a Redis for the whole test run, and a fresh database and flush a test."""

import asyncio
import itertools
import os
from pathlib import Path

import asyncpg
import redis

from penstock.dev.postgres import EmbeddedPostgres
from penstock.dev.redis import EmbeddedRedis
from penstock.store.migrate import migrate

_TEMPLATE = "penstock_template"


def choose_postgres(directory: Path) -> None:
    """`TEST_POSTGRES=18 make test` runs on that version, if it is there: data of a version that
    exists is taken up again. (For Redis: PENSTOCK_REDIS_BIN.)"""
    if major := os.environ.get("TEST_POSTGRES"):
        (directory / f"postgres-{major}").mkdir(parents=True, exist_ok=True)


class Servers:
    """Both servers in one directory. Tests that break servers make their own."""

    def __init__(self, directory: Path) -> None:
        choose_postgres(directory)
        self.postgres = EmbeddedPostgres(directory)
        self.redis = EmbeddedRedis(directory)
        self._numbers = itertools.count(1)

    def start(self) -> None:
        self.postgres.start()
        self.redis.start()
        asyncio.run(self._make_template())

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.stop()

    async def fresh_database(self) -> str:
        """The DSN of a new, migrated database."""
        return await self._new_database(f"TEMPLATE {_TEMPLATE} STRATEGY file_copy")

    async def empty_database(self) -> str:
        """The DSN of a database in which nothing is."""
        return await self._new_database("")

    async def _new_database(self, options: str) -> str:
        name = f"test_{next(self._numbers)}"
        con = await asyncpg.connect(self.postgres.dsn)
        try:
            await con.execute(f"CREATE DATABASE {name} {options}")
        finally:
            await con.close()
        return self.postgres.dsn_of(name)

    def fresh_redis(self) -> str:
        """The URL of an empty Redis."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()
        return self.redis.url

    async def _make_template(self) -> None:
        con = await asyncpg.connect(self.postgres.dsn)
        try:
            await con.execute(f"CREATE DATABASE {_TEMPLATE}")
        finally:
            await con.close()
        await migrate(self.postgres.dsn_of(_TEMPLATE))
