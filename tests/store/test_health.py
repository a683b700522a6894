"""Whether Postgres answers: what tells of it, and what tells only of our own loop."""

import asyncio
import time

from structlog.testing import capture_logs

from penstock.store.health import Health
from tests.support.database import Database
from tests.support.servers import Servers
from tests.support.wire import Wire, laid


async def hold_the_loop(times: int) -> None:
    for _ in range(times):
        time.sleep(0.6)  # noqa: ASYNC251  # as a handler that never awaits
        await asyncio.sleep(0)


async def test_a_loop_that_is_held_is_no_outage_of_postgres(db: Database) -> None:
    health = db.health
    await health.step()
    step = asyncio.create_task(health.step())
    await hold_the_loop(3)
    await step
    assert not await down_after(health)


async def test_a_postgres_that_is_silent_is_down_though_the_loop_is_held_too(
    db: Database, servers: Servers
) -> None:
    async with laid(servers.postgres.port) as wire:
        with capture_logs() as lines:
            await silenced(db, servers, wire)
    assert [line["event"] for line in lines] == ["postgres_away", "postgres_back"], "once each"
    assert lines[0]["why"].startswith("PostgreSQL is out of reach")


async def silenced(db: Database, servers: Servers, wire: Wire) -> None:
    dsn = db.dsn.replace(f":{servers.postgres.port}/", f":{wire.port}/")
    health = Health(dsn, db.postgres._limits)
    await health.step()
    wire.hold()
    holding = asyncio.create_task(hold_the_loop(6))
    seen = [await down_after(health) for _ in range(4)]
    assert seen[-1], seen
    wire.release()
    await holding
    assert not await down_after(health)
    health.close()


async def down_after(health: Health) -> bool:
    await health.step()
    return health.down is not None
