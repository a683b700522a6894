"""Where ids come from: hot shelves, or Postgres' line while Redis is away."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import JobId
from penstock.loops.claims import Claims
from penstock.queue.shelves import Claimed
from penstock.settings import Settings
from tests.support.still import Q, Still, changed, standing
from tests.support.wire import Wire


def claims(still: Still, *kinds: str) -> Claims:
    return Claims(still.engine.parts, kinds or ("echo",), still.engine.missing)


@pytest.fixture
async def choosy(still_settings: Settings, dsn: str, redis_url: str) -> AsyncIterator[Still]:
    """A worker of some queues only."""
    queues = changed(still_settings, worker={"queues": ("own-*", "default")})
    async with standing(queues, dsn, redis_url) as one:
        yield one


async def queue_up(still: Still, count: int, **fields: object) -> list[JobId]:
    ids = await still.submit(count, **fields)
    await still.engine.book.step()
    return ids


async def test_only_hot_queues_are_asked(still: Still) -> None:
    ids = await queue_up(still, 2)
    line = claims(still)
    assert await line.take(10) == []
    line.heat(["default"])
    assert await line.take(10) == [("default", id_) for id_ in ids]
    assert await still.leases() == set(ids)


async def test_a_queue_stays_hot_until_a_claim_finds_it_short(still: Still) -> None:
    line, ids = claims(still), await queue_up(still, 5)
    line.heat(["default"])
    assert [len(await line.take(2)) for _ in range(4)] == [2, 2, 1, 0]
    await queue_up(still, 1)
    assert await line.take(2) == [], "it has cooled"
    assert len(ids) == 5


async def test_a_wake_up_during_a_claim_is_not_lost(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, claim = claims(still), still.engine.shelves.claim
    await queue_up(still, 1)

    async def late(queue: str, kinds: Sequence[str], count: int, lease_s: float) -> Claimed:
        claimed = await claim(queue, kinds, count, lease_s)
        await queue_up(still, 1)
        line.heat([queue])
        return claimed

    line.heat(["default"])
    with monkeypatch.context() as patch:
        patch.setattr(still.engine.shelves, "claim", late)
        assert len(await line.take(10)) == 1
    assert len(await line.take(10)) == 1


async def test_several_hot_queues_take_turns(still: Still) -> None:
    for queue in ("one", "two", "three"):
        await queue_up(still, 4, queue=queue)
    line = claims(still)
    line.heat(["one", "two", "three"])
    taken = [[queue for queue, _ in await line.take(3)] for _ in range(4)]
    assert taken == [["one"] * 3, ["two"] * 3, ["three"] * 3, ["one", "two", "three"]]


async def test_a_claim_goes_on_with_the_next_queue_until_it_has_enough(still: Still) -> None:
    for queue in ("one", "two", "three"):
        await queue_up(still, 2, queue=queue)
    line = claims(still)
    line.heat(["one", "two", "three"])
    assert [queue for queue, _ in await line.take(5)] == ["one", "one", "two", "two", "three"]


async def test_what_was_claimed_before_redis_went_away_is_not_lost(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in ("one", "two"):
        await queue_up(still, 2, queue=queue)
    line, claim = claims(still), still.engine.shelves.claim

    async def breaking(queue: str, *args: Any) -> Claimed:
        if queue == "two":
            raise QueueUnavailable("as asked")
        return await claim(queue, *args)

    line.heat(["one", "two"])
    with monkeypatch.context() as patch:
        patch.setattr(still.engine.shelves, "claim", breaking)
        assert [queue for queue, _ in await line.take(10)] == ["one", "one"]
    assert line.pause_s() == 0.0, "the other one is still hot"
    assert [queue for queue, _ in await line.take(10)] == ["two", "two"]


async def test_kinds_and_queues_of_others_lie_still(choosy: Still) -> None:
    ids = [(await queue_up(choosy, 1, queue=queue))[0] for queue in ("default", "own-1", "other")]
    await queue_up(choosy, 1, kind="sum")
    line = claims(choosy)
    line.heat(["default", "own-1", "other"])
    assert await line.take(10) == [("default", ids[0]), ("own-1", ids[1])]


async def test_a_paused_queue_is_left_alone_until_it_is_resumed(still: Still) -> None:
    engine = still.engine
    ids = await queue_up(still, 2)
    line = claims(still)
    engine.book.on_change = line.heat
    for paused, expected in ((True, []), (False, ids)):
        await still.db.queues.set_paused("default", paused=paused)
        await engine.book.step()
        line.heat(["default"])
        assert [id_ for _, id_ in await line.take(10)] == expected


async def test_a_queue_without_a_marker_is_reported(still: Still) -> None:
    await queue_up(still, 1)
    still.engine.missing.take()
    line = claims(still)
    line.heat(["default"])
    await line.take(10)
    assert still.engine.missing.take() == {"default"}
    await still.engine.shelves.mark("default")
    line.heat(["default"])
    await line.take(10)
    assert still.engine.missing.take() == set()


# Redis is away.


async def test_while_redis_is_away_the_line_of_postgres_is_asked(
    wired: Still, redis_wire: Wire
) -> None:
    low, high = await queue_up(wired, 1, priority=0), await queue_up(wired, 1, priority=9)
    held = await queue_up(wired, 1, queue="held")
    await wired.submit(1, delay_s=60)
    await wired.submit(1, kind="sum")
    await wired.db.queues.set_paused("held", paused=True)
    await wired.engine.book.step()
    line = claims(wired)
    line.heat(["default"])
    await redis_wire.cut()
    taken = await line.take(10)
    assert taken == [("default", *high), ("default", *low)]
    await wired.redis_is(away=True)
    assert await line.take(1) == taken[:1], "Redis isn't asked any more; nothing was moved"
    await wired.db.queues.set_paused("held", paused=False)
    await wired.engine.book.step()
    assert ("held", *held) in await line.take(10)


async def test_what_others_serve_is_not_taken_from_postgres_either(choosy: Still) -> None:
    for queue in ("other", "own-1"):
        await queue_up(choosy, 1, queue=queue)
    line = claims(choosy)
    assert [queue for queue, _ in await line._from_postgres(10)] == ["own-1"]


async def test_polls_of_postgres_back_off_while_they_find_nothing(
    wired: Still, redis_wire: Wire
) -> None:
    line = claims(wired)
    assert line.pause_s() == 5.0, "Redis would tell"
    await redis_wire.cut()
    await wired.redis_is(away=True)
    assert await line.take(10) == []
    pauses = [line.pause_s() for _ in range(8)]
    assert 0.05 <= pauses[0] <= 0.1
    assert 0.5 <= pauses[-1] <= 1.0
    await queue_up(wired, 1)
    assert len(await line.take(10)) == 1
    assert line.pause_s() <= 0.1, "what was found quickens the next look"


async def test_the_worker_runs_jobs_without_redis_and_goes_back_to_it(
    wired: Still, redis_wire: Wire
) -> None:
    engine = wired.engine
    await redis_wire.cut()
    ids = await wired.submit(3)
    await engine.worker.step()
    await wired.in_places(ids, "succeeded")
    await redis_wire.mend()
    await wired.redis_is(away=False)
    (id_,) = await wired.submit()
    assert await wired.ready() == [id_]
    await engine.worker.step()
    await wired.in_places([id_], "succeeded")
    assert Q + "ready:echo" not in await wired.shelves()
