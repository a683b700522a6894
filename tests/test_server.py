"""The composition root: when the door opens, and what makes a replica unready."""

import asyncio

import asyncpg
import pytest

from penstock.domain.errors import StoreUnavailable
from penstock.server import LoopCancelled, Replica, running
from penstock.settings import Settings
from tests.support.api import Api
from tests.support.still import changed

NO_BEATS = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '57014'; END $$;
CREATE TRIGGER no_beats BEFORE UPDATE ON workers FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def test_the_door_opens_after_the_first_sign_of_life(replica: Replica, dsn: str) -> None:
    assert replica.engine.keeper.begun.is_set()
    con = await asyncpg.connect(dsn)
    assert await con.fetchval("SELECT bool_and(beat_at > started_at) FROM workers")
    await con.close()


async def test_a_replica_that_can_give_no_sign_of_life_does_not_open_its_door(
    replica_settings: Settings, dsn: str
) -> None:
    con = await asyncpg.connect(dsn)
    await con.execute(NO_BEATS)
    await con.close()
    hasty = changed(replica_settings, postgres={"connect_timeout_s": 0.3, "command_timeout_s": 0.5})
    with pytest.raises(StoreUnavailable, match="no sign of life"):
        async with running(hasty):
            pytest.fail("the door is open")


async def test_a_loop_that_is_over_makes_the_replica_unready(replica: Replica, api: Api) -> None:
    (reaper,) = (task for task in asyncio.all_tasks() if task.get_name() == "reaper")
    assert (await api.call("GET", "/readyz"))[0] == 200
    reaper.cancel()
    async with asyncio.timeout(5):
        await replica.failed.wait()
    status, problem = await api.call("GET", "/readyz")
    assert status == 503
    assert "reaper has ended" in problem["reasons"]
    await asyncio.wait([replica.loops])
    error = replica.loops.exception()
    assert isinstance(error, BaseExceptionGroup)
    assert error.split(LoopCancelled)[0] is not None
