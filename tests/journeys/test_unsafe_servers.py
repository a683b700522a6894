"""Servers that would lose what we promise stop a start, and are told; what is accepted doesn't."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio as redis
from pydantic import SecretStr

from penstock.dev.postgres import SETTINGS, EmbeddedPostgres
from penstock.dev.redis import EmbeddedRedis
from penstock.domain.errors import StoreUnavailable, WrongSetting
from penstock.server import running
from penstock.settings import Settings
from penstock.store.migrate import migrate
from tests.support.api import Api
from tests.support.still import changed
from tests.support.waiting import eventually

UNSAFE = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"}


@pytest.fixture(scope="module")
def reckless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that would lose data."""
    place = tmp_path_factory.mktemp("reckless")
    with EmbeddedPostgres(place, settings={**SETTINGS, **UNSAFE}) as one:
        yield one


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that a test may spoil."""
    with EmbeddedRedis(tmp_path) as one:
        yield one


@asynccontextmanager
async def evicting(spare: EmbeddedRedis) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(spare.url) as client:
        await client.config_set("maxmemory", 2**30)
        await client.config_set("maxmemory-policy", "allkeys-lru")
        yield client


async def refusal(settings: Settings) -> str:
    with pytest.raises(WrongSetting) as told:
        async with running(settings):
            pass
    return str(told.value)


async def test_a_postgres_that_loses_data_is_refused_unless_that_is_accepted(
    replica_settings: Settings, reckless: EmbeddedPostgres
) -> None:
    await migrate(reckless.dsn)
    there: dict[str, Any] = {"dsn": SecretStr(reckless.dsn)}
    lines = (await refusal(changed(replica_settings, postgres=there))).splitlines()
    assert len(lines) == 2, lines
    assert f"127.0.0.1:{reckless.port} has fsync = off" in lines[0]
    assert "ALTER SYSTEM SET fsync = on" in lines[0]
    assert "PENSTOCK_POSTGRES__ACCEPTED_RISKS" in lines[0]
    assert "full_page_writes = off" in lines[1]
    assert str(urlsplit(reckless.dsn).password) not in " ".join(lines)
    half = changed(replica_settings, postgres={**there, "accepted_risks": ("fsync",)})
    assert "fsync" not in await refusal(half)
    both = {**there, "accepted_risks": ("fsync", "full_page_writes")}
    async with (
        running(changed(replica_settings, postgres=both)) as replica,
        Api(replica.url) as api,
    ):
        assert (await api.ended(await api.submit("echo", 1)))["state"] == "succeeded"


async def test_commits_that_nobody_waits_for_are_refused_where_this_database_has_them(
    replica_settings: Settings, dsn: str
) -> None:
    con = await asyncpg.connect(dsn)
    await con.execute(f"ALTER DATABASE {dsn.rpartition('/')[2]} SET synchronous_commit = off")
    await con.close()
    assert "synchronous_commit = off" in await refusal(replica_settings)


async def test_a_standby_is_waited_for_as_if_it_were_away(
    replica_settings: Settings, dsn: str
) -> None:
    """It may be amid a failover: `serve` tries again until postgres.boot_wait_s is over."""
    con = await asyncpg.connect(dsn)
    name = dsn.rpartition("/")[2]
    await con.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await con.close()
    with pytest.raises(StoreUnavailable, match="read-only"):
        async with running(replica_settings):
            pass


async def test_a_redis_that_evicts_is_refused_unless_that_is_accepted(
    replica_settings: Settings, spare: EmbeddedRedis
) -> None:
    async with evicting(spare):
        there: dict[str, Any] = {"url": SecretStr(spare.url)}
        line = await refusal(changed(replica_settings, redis=there))
        assert "Redis has maxmemory-policy allkeys-lru" in line
        assert "CONFIG SET maxmemory-policy noeviction" in line
        assert "PENSTOCK_REDIS__ACCEPTED_RISKS" in line
        taken = changed(replica_settings, redis={**there, "accepted_risks": ("eviction",)})
        async with running(taken) as replica, Api(replica.url) as api:
            assert (await api.call("GET", "/readyz"))[1]["degraded"] == []


async def test_a_redis_that_begins_to_evict_degrades_a_replica_and_ends_nothing(
    replica_settings: Settings, spare: EmbeddedRedis
) -> None:
    settings = changed(replica_settings, redis={"url": SecretStr(spare.url)})
    async with running(settings) as replica, Api(replica.url) as api:

        async def degraded() -> Any:
            replica.engine.redis_watch.wake.set()  # a minute goes by, or Redis comes back
            return (await api.call("GET", "/readyz"))[1]["degraded"]

        async def is_found() -> bool:
            return bool(await degraded() == ["redis-eviction"])

        async def is_well() -> bool:
            return bool(await degraded() == [])

        async with evicting(spare) as client:
            await eventually(is_found, "it is told")
            _, metrics = await api.call("GET", "/metrics")
            assert 'penstock_redis_faults{fault="eviction"} 1.0' in metrics
            assert (await api.ended(await api.submit("echo", 1)))["state"] == "succeeded"
            await client.config_set("maxmemory-policy", "noeviction")
            await eventually(is_well, "it is well again")


async def test_a_redis_that_is_away_stops_no_start_and_is_looked_at_when_it_is_back(
    replica_settings: Settings, spare: EmbeddedRedis
) -> None:
    spare.stop()
    settings = changed(replica_settings, redis={"url": SecretStr(spare.url)})
    async with running(settings) as replica, Api(replica.url) as api:
        assert replica.engine.redis_watch.faults == []
        spare.start()

        async def is_found() -> bool:
            return bool((await api.call("GET", "/readyz"))[1]["degraded"] == ["redis-eviction"])

        async with evicting(spare):
            await eventually(is_found, "it is told", 15)


async def test_a_clock_that_differs_is_told(replica_settings: Settings) -> None:
    async with running(replica_settings) as replica, Api(replica.url) as api:
        _, metrics = await api.call("GET", "/metrics")
        assert 'penstock_clock_ahead_seconds{server="postgres"}' in metrics

        async def is_told() -> bool:
            now = time.monotonic()
            replica.engine.pg_clock.observe(time.time() + 6.0, now, now)  # until the next beat
            return "clock" in (await api.call("GET", "/readyz"))[1]["degraded"]

        await eventually(is_told, "it is told")
