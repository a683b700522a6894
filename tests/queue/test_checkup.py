"""What Redis says of itself."""

from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis

from penstock.domain.errors import QueueUnavailable
from penstock.queue.checkup import ahead_s, state_of
from penstock.queue.redis import RedisDoor
from tests.support.ports import free_port


async def test_what_it_is_and_what_it_may_hold(redis_url: str) -> None:
    door = RedisDoor(redis_url, 1)
    state = await state_of(door)
    await door.close()
    assert state is not None
    assert state.version >= (7, 0)
    assert (state.mode, state.role, state.policy) == ("standalone", "master", "noeviction")
    assert (state.maxmemory, state.saves) == (0, True)
    assert state.used > 0


async def test_its_clock_is_this_machines(redis_url: str) -> None:
    door = RedisDoor(redis_url, 1)
    assert abs(await ahead_s(door)) < 0.5
    await door.close()


async def test_who_may_not_ask_is_told_nothing_and_is_no_outage(redis_url: str) -> None:
    async with redis.Redis.from_url(redis_url) as client:
        await client.acl_setuser(
            "clerk",
            enabled=True,
            passwords=["+clerk"],
            commands=["+@all", "-info"],
            keys=["*"],
            channels=["*"],
        )
        place = urlsplit(redis_url).netloc.rpartition("@")[2]
        door = RedisDoor(f"redis://clerk:clerk@{place}/0", 1)
        assert await state_of(door) is None
        assert not door.is_open
        await door.close()
        await client.acl_deluser("clerk")


async def test_one_that_is_away_is_away() -> None:
    door = RedisDoor(f"redis://127.0.0.1:{free_port()}/0", 1)
    with pytest.raises(QueueUnavailable):
        await state_of(door)
    await door.close()
