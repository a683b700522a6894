"""What replicas tell each other; each message is speed only."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import orjson
import pytest

from penstock.domain.errors import QueueUnavailable
from penstock.queue import keys
from tests.support import making
from tests.support.still import Still
from tests.support.waiting import eventually


class Heard:
    """All that the ears told, in order."""

    def __init__(self, still: Still) -> None:
        self.told: list[tuple[object, ...]] = []
        ears = still.engine.ears
        ears.on_ready = lambda queues: self.told.append(("ready", *queues))
        ears.on_due = lambda queue, due_ms: self.told.append(("due", queue, due_ms))
        ears.on_cancel = lambda id_: self.told.append(("cancel", id_))
        ears.on_settings = lambda: self.told.append(("settings",))
        ears.on_ended = lambda ids: self.told.append(("ended", *ids))
        ears.on_back = lambda: self.told.append(("back",))

    async def within(self, *expected: tuple[object, ...]) -> None:
        """Returns when exactly this was told, since the last call."""

        async def look() -> bool:
            return self.told[: len(expected)] == list(expected)

        try:
            await eventually(look, f"{expected} is heard", within_s=3, every_s=0.01)
        finally:
            assert self.told == list(expected)
        self.told.clear()


@asynccontextmanager
async def listening(still: Still) -> AsyncIterator[Heard]:
    heard = Heard(still)
    task = asyncio.create_task(still.engine.ears.step())
    try:
        await heard.within(("back",))
        yield heard
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, QueueUnavailable):
            await task


def wake(**fields: object) -> bytes:
    return orjson.dumps({"queue": "q", "ready": True, "due_ms": None, "origin": None} | fields)


async def test_each_message_reaches_who_acts_on_it(still: Still) -> None:
    id_ = making.job_id()
    async with listening(still) as heard:
        for channel, message, told in (
            (keys.WAKE, wake(), ("ready", "q")),
            (keys.WAKE, wake(origin="another"), ("ready", "q")),
            (keys.WAKE, wake(ready=False, due_ms=7), ("due", "q", 7)),
            (keys.CANCEL, id_, ("cancel", id_)),
            (keys.SETTINGS, b"q", ("settings",)),
        ):
            await still.redis.raw.publish(channel, message)
            await heard.within(told)
        await still.redis.raw.publish(keys.WAKE, wake(due_ms=7))
        await heard.within(("due", "q", 7), ("ready", "q"))
        other = making.job_id()
        await still.redis.raw.publish(keys.CANCEL, id_ + other)
        await heard.within(("cancel", id_), ("cancel", other))


async def test_messages_that_are_none_of_ours_are_passed_over(still: Still) -> None:
    strange = [b"", b"{", b"[1]", b"{}", b"5", wake(queue=5), wake(queue=[]), wake(due_ms="soon")]
    async with listening(still) as heard:
        for message in strange:
            for channel in (keys.WAKE, keys.CANCEL, keys.SETTINGS, keys.ENDED):
                await still.redis.raw.publish(channel, message)
        heard_at_last = ("ready", "at last")
        await still.redis.raw.publish(keys.WAKE, wake(queue="at last"))

        async def look() -> bool:
            return heard.told[-1:] == [heard_at_last]

        await eventually(look, "what comes after them is heard", within_s=3, every_s=0.01)
        assert [told for told in heard.told if told[0] in ("ready", "due")] == [heard_at_last]


async def test_our_own_wake_ups_are_passed_over(still: Still) -> None:
    """The enqueuer woke us without the detour."""
    another = still.redis.shelves
    async with listening(still) as heard:
        await still.engine.shelves.enqueue([making.due(ready_ms=1)])
        await another.enqueue([making.due(ready_ms=1, queue="another")])
        await heard.within(("ready", "another"))
        far = still.engine.pg_clock.now_ms() + 60_000
        await still.engine.shelves.enqueue([making.due(ready_ms=far)])
        await heard.within(("due", "default", far))


async def test_ends_are_heard_while_somebody_waits(still: Still) -> None:
    ids = making.job_ids(3)
    ears, raw = still.engine.ears, still.redis.raw
    async with listening(still) as heard:

        async def subscribers() -> int:
            return int((await raw.pubsub_numsub(keys.ENDED))[0][1])

        assert await subscribers() == 0
        for _ in range(2):
            await ears.want_ended(True)
            await becomes(subscribers, 1)
            await raw.publish(keys.ENDED, b"".join(ids))
            await heard.within(("ended", *ids))
            await ears.want_ended(False)
            await becomes(subscribers, 0)


async def becomes(look: Callable[[], Awaitable[int]], wanted: int) -> None:
    async def same() -> bool:
        return await look() == wanted

    await eventually(same, f"{wanted} subscribers", every_s=0.01)


async def test_a_line_that_breaks_is_made_anew_with_what_was_wanted(still: Still) -> None:
    ears, raw = still.engine.ears, still.redis.raw
    heard = Heard(still)
    await ears.want_ended(True)
    for _ in range(2):
        step = asyncio.create_task(ears.step())
        await heard.within(("back",))
        await raw.publish(keys.ENDED, id_ := making.job_id())
        await heard.within(("ended", id_))
        await raw.client_kill_filter(_type="pubsub")
        with pytest.raises(QueueUnavailable):
            async with asyncio.timeout(3):
                await step


async def test_after_a_broken_line_all_queues_may_hold_something(still: Still) -> None:
    """Messages were missed meanwhile."""
    await still.submit(kind="gated")
    await still.engine.book.step()
    await still.engine.worker.step()
    (id_,) = await still.submit(kind="gated")
    for claims in still.engine.worker._claims.values():
        claims._hot.clear()
    still.engine.ears.on_back()
    await still.engine.worker.step()
    assert still.engine.pool.find(id_) is not None
