"""Redis' password is changed while a replica runs, and before one starts: jobs run all the same."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis
from pydantic import SecretStr

from penstock.dev.redis import EmbeddedRedis
from penstock.server import Replica, running
from penstock.settings import Settings
from tests.support.api import Api
from tests.support.still import changed
from tests.support.waiting import eventually


@pytest.fixture
async def spare(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis that a test may lock."""
    with EmbeddedRedis(tmp_path) as one:
        yield one


async def locked(spare: EmbeddedRedis, password: str) -> redis.Redis:
    """Sets the password and breaks all connections; answers a client that knows it."""
    async with redis.Redis.from_url(spare.url) as client:
        await client.config_set("requirepass", password)
    knowing = redis.Redis.from_url(_with(password, spare.url))
    await knowing.client_kill_filter(_type="normal")
    await knowing.client_kill_filter(_type="pubsub")
    return knowing


async def degraded(api: Api) -> Any:
    status, answer = await api.call("GET", "/readyz")
    assert status == 200, answer
    return answer["degraded"]


async def is_away(api: Api) -> bool:
    return bool(await degraded(api) == ["redis"])


async def is_back(api: Api) -> bool:
    return bool(await degraded(api) == [])


async def runs_jobs(api: Api) -> None:
    id_ = await api.submit("echo", 1)
    assert (await api.ended(id_))["state"] == "succeeded"


async def test_a_password_changed_under_a_running_replica_degrades_it_and_ends_nothing(
    replica_settings: Settings, spare: EmbeddedRedis
) -> None:
    settings = changed(replica_settings, redis={"url": SecretStr(spare.url)})
    async with running(settings) as replica, Api(replica.url) as api:
        await runs_jobs(api)
        knowing = await locked(spare, "new")
        await eventually(lambda: is_away(api), "it is found to be away")
        await runs_jobs(api)
        assert "username-password" in _door(replica).why
        assert not replica.failed.is_set()
        await knowing.config_set("requirepass", str(urlsplit(spare.url).password))
        await knowing.aclose()
        await eventually(lambda: is_back(api), "it is found to be back")
        await runs_jobs(api)


async def test_a_replica_starts_with_a_password_that_redis_does_not_take(
    replica_settings: Settings, spare: EmbeddedRedis
) -> None:
    knowing = await locked(spare, "new")
    await knowing.aclose()
    settings = changed(replica_settings, redis={"url": SecretStr(spare.url)})
    async with running(settings) as replica, Api(replica.url) as api:
        await eventually(lambda: is_away(api), "it is found to be away")
        await runs_jobs(api)
        assert "username-password" in _door(replica).why


def _with(password: str, url: str) -> str:
    return url.replace(str(urlsplit(url).password), password)


def _door(replica: Replica) -> Any:
    return replica.engine.rooms.redis
