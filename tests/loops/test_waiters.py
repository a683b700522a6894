"""Those who wait for a job's end: told by this replica, by another, or by the net."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from penstock import clock
from penstock.domain.ids import JobId
from penstock.queue import keys
from penstock.queue.shelves import Off
from tests.support.making import SUCCESS
from tests.support.still import Still
from tests.support.waiting import eventually


@asynccontextmanager
async def waiting(still: Still, *ids: JobId) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Waits of 30 s, which must be over when we leave."""
    tasks = [asyncio.create_task(still.engine.waiters.wait(id_, 30)) for id_ in ids]
    await asyncio.sleep(0)
    yield tasks
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)


async def test_a_settlement_here_tells_at_once(still: Still) -> None:
    first, second = await still.start(2)
    async with waiting(still, first.id, first.id, second.id) as tasks:
        await still.settle((first, SUCCESS))
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks[:2])
        assert not tasks[2].done()
        await still.settle((second, SUCCESS))


async def test_a_settlement_elsewhere_tells_by_publish(still: Still) -> None:
    (job,) = await still.start()
    ears = asyncio.create_task(still.engine.ears.step())
    async with waiting(still, job.id):

        async def subscribed() -> bool:
            return bool((await still.redis.raw.pubsub_numsub(keys.ENDED))[0][1])

        await eventually(subscribed, "ends are heard", every_s=0.01)
        await still.redis.shelves.enqueue((), (Off(job.queue, job.id, ended=True),))
    ears.cancel()
    with suppress(asyncio.CancelledError):
        await ears


async def test_the_net_finds_what_nobody_told(still: Still) -> None:
    first, second = await still.start(2)
    await still.db.settle(second, SUCCESS)
    async with waiting(still, second.id, first.id) as tasks:
        assert still.engine.waiters.wake.is_set(), "it may have ended before somebody waited"
        assert await still.engine.waiters.step() == 1.0
        async with asyncio.timeout(5):
            await tasks[0]
        assert not tasks[1].done()
        await still.db.settle(first, SUCCESS)
        await still.engine.waiters.step()


async def test_a_cancel_of_what_is_due_tells_too(still: Still) -> None:
    (id_,) = await still.submit()
    async with waiting(still, id_):
        await still.engine.changes.cancel(id_)


async def test_a_wait_ends_when_its_time_is_up(still: Still) -> None:
    (id_,) = await still.submit()
    began = clock.monotonic()
    await still.engine.waiters.wait(id_, 0.05)
    assert 0.05 <= clock.monotonic() - began < 1


async def test_when_all_have_gone_nothing_is_kept_or_asked(still: Still) -> None:
    waiters = still.engine.waiters
    (id_,) = await still.submit()
    task = asyncio.create_task(waiters.wait(id_, 30))
    await asyncio.sleep(0.01)
    task.cancel()  # its caller hung up
    await asyncio.wait([task])
    assert not waiters._waiting
    assert await waiters.step() == 60.0
    waiters.tell([id_])  # nobody minds
