"""Queues: their switch, their settings, and counts that add up however they are folded."""

import asyncio
from typing import Any

import pytest

from penstock.domain.attempt import CANCELLED
from penstock.domain.errors import TooManyQueues
from penstock.domain.job import State
from penstock.store.queues import Queues, QueueSettings
from penstock.store.reads import Reads
from tests.support import making
from tests.support.database import Database, settlement

BEFORE_THE_LAST_MINUTE = "UPDATE queue_counts SET at = at - interval '61 s' WHERE at IS NOT NULL"
SUMS = "SELECT queue, state, sum(delta)::int FROM queue_counts GROUP BY 1, 2"


async def test_a_queue_is_known_once_it_was_used(db: Database) -> None:
    other_replica = Queues(db.postgres, 100)
    await db.queues.add(["b", "a"])
    await db.queues.add(["a"])
    assert other_replica.unknown(["a", "c", "a"]) == ["a", "c"]
    await other_replica.add(["a", "c"])
    assert other_replica.unknown(["a", "c", "a", "b"]) == ["b"]
    assert list(await db.queues.settings()) == ["a", "b", "c"]
    assert set((await db.queues.settings()).values()) == {QueueSettings(False, 60.0)}


async def test_there_may_be_so_many_queues_and_no_more(db: Database) -> None:
    few = Queues(db.postgres, 2)
    await few.add(["a"])
    await few.add(["b"])
    with pytest.raises(TooManyQueues):
        await few.add(["c"])
    await few.add(["a", "b"])  # these exist
    with pytest.raises(TooManyQueues):
        await few.add(["a", "c"])
    assert list(await db.queues.settings()) == ["a", "b"]
    assert few.unknown(["a", "b", "c"]) == ["c"]


async def test_a_queue_can_be_paused_before_it_was_used_and_twice(db: Database) -> None:
    for paused in (True, True, False, False):
        await db.queues.set_paused("q", paused=paused)
        assert (await db.queues.settings())["q"].paused == paused
    await db.queues.set_paused("q", paused=True)
    await Queues(db.postgres, 100).add(["q"])
    assert (await db.queues.settings())["q"].paused


async def test_replicas_that_meet_new_queues_at_once_do_not_deadlock_or_refuse_them(
    db: Database,
) -> None:
    names = [f"q{n}" for n in range(50)]
    for _ in range(10):
        await asyncio.gather(
            *(Queues(db.postgres, 1000).add(names[::way]) for way in (1, -1, 1, -1))
        )
        assert len(await db.queues.settings()) == 50
        await db.empty()


@pytest.mark.parametrize(
    ("seconds", "ms"), [(60.0, 60_000.0), (0.0, 0.0), (2.3, 2300.0), (0.0005, 1.0), (4.35, 4350.0)]
)
def test_what_a_step_of_priority_is_worth_is_whole_milliseconds(seconds: float, ms: float) -> None:
    """Else python, Lua and SQL would round its multiples each in its own way."""
    assert QueueSettings(paused=False, priority_aging_s=seconds).aging_ms == ms


async def test_counts_are_those_of_the_places_after_every_transition(db: Database) -> None:
    worker = await db.worker()
    ids = await db.submit(6, queue="a", max_attempts=1)
    await agree(db)
    runs = await db.jobs.start(ids[:5], worker)
    for run, ending in zip(
        runs, [making.SUCCESS, making.SUCCESS, making.FAILURE, CANCELLED], strict=False
    ):
        await db.settle(run, ending)
        await agree(db)
    await db.jobs.cancel_due(ids[5])
    await agree(db)
    await db.retry(ids[2])
    await db.retry(ids[5])
    await agree(db)


async def test_a_batch_counts_each_queue_and_state_once(db: Database) -> None:
    runs = [*await db.running(3, queue="a"), *await db.running(2, queue="b")]
    await db.settle_all([settlement(run, making.SUCCESS) for run in runs])
    rows = await db.session.fetch("SELECT queue, state, delta FROM queue_counts ORDER BY 1")
    assert [tuple(row) for row in rows] == [("a", "succeeded", 3), ("b", "succeeded", 2)]


async def test_folding_changes_no_sum_and_leaves_the_last_minute(db: Database) -> None:
    for queue in ("a", "b"):
        for run in await db.running(3, queue=queue):
            await db.settle(run, making.SUCCESS)
    await db.session.execute(BEFORE_THE_LAST_MINUTE)
    (run,) = await db.running(queue="a")
    await db.settle(run, making.SUCCESS)
    before = await sums(db)
    for _ in range(2):
        await db.queues.fold_counts()
        assert await sums(db) == before == {("a", "succeeded"): 4, ("b", "succeeded"): 3}
        assert await db.count("queue_counts") == 3
    await db.session.execute(BEFORE_THE_LAST_MINUTE)
    await db.queues.fold_counts()
    assert await sums(db) == before
    assert await db.count("queue_counts") == 2


async def test_several_replicas_may_fold_at_once(db: Database) -> None:
    await db.session.execute(
        "INSERT INTO queue_counts SELECT 'q' || n % 7, 'dead', now() - interval '2 min', 1"
        " FROM generate_series(1, 3000) n"
    )
    before = await sums(db)
    folds = [Queues(db.postgres, 100).fold_counts() for _ in range(4)]
    await asyncio.gather(*folds)
    assert await sums(db) == before
    await db.queues.fold_counts()
    assert await sums(db) == before


async def test_a_fold_waits_for_no_row_that_another_holds(db: Database) -> None:
    await db.session.execute(
        "INSERT INTO queue_counts SELECT 'q', 'dead', now() - interval '2 min', 1"
        " FROM generate_series(1, 3)"
    )
    async with db.session.transaction():
        await db.session.execute(
            "SELECT FROM queue_counts WHERE ctid = (SELECT min(ctid) FROM queue_counts) FOR UPDATE"
        )
        async with asyncio.timeout(1):
            await db.queues.fold_counts()
    assert await sums(db) == {("q", "dead"): 3}


async def test_readers_see_a_queue_with_its_jobs_counted(db: Database) -> None:
    await db.queues.add(["a", "empty"])
    await db.submit(2, queue="a", delay_s=60.0)
    await db.submit(3, queue="a")
    await db.running(4, queue="a")
    for run in await db.running(6, queue="a"):
        await db.settle(run, making.SUCCESS)
    found = {view.name: view for view in await db.reads.queues()}
    assert list(found) == ["a", "empty"]
    counts = {state: count for state, count in found["a"].counts.items() if count}
    assert counts == {
        State.SCHEDULED: 2,
        State.READY: 3,
        State.RUNNING: 4,
        State.SUCCEEDED: 6,
    }
    assert found["a"].succeeded_per_s == pytest.approx(6 / 60)
    assert found["a"].dead_per_s == 0
    assert found["a"].oldest_ready_age_s is not None
    assert 0 <= found["a"].oldest_ready_age_s < 10
    assert found["empty"].oldest_ready_age_s is None
    assert not any(found["empty"].counts.values())
    assert await db.reads.queue("empty") == found["empty"]
    assert await db.reads.queue("never") is None


async def test_what_ended_earlier_does_not_count_for_the_throughput(db: Database) -> None:
    await db.queues.add(["default"])
    (run,) = await db.running()
    await db.settle(run, making.SUCCESS)
    await db.session.execute(BEFORE_THE_LAST_MINUTE)
    view = await db.reads.queue("default")
    assert view is not None
    assert (view.counts[State.SUCCEEDED], view.succeeded_per_s) == (1, 0)


async def test_all_who_ask_at_about_the_same_time_share_one_count(db: Database) -> None:
    await db.queues.add(["default"])
    views = await asyncio.gather(*(db.reads.queues() for _ in range(10)))
    await db.submit()
    views.append(await db.reads.queues())
    assert all(view == views[0] for view in views)
    fresh = await Reads(db.postgres, db.health).queue("default")
    assert fresh is not None
    assert fresh.counts[State.READY] == 1


async def test_who_asks_again_gets_the_last_count_at_once_while_the_next_is_made(
    db: Database,
) -> None:
    reads = Reads(db.postgres, db.health)
    await db.queues.add(["default"])
    before = await reads.queues()
    await db.submit()
    reads._counts_until = 0.0  # as after a second
    assert await reads.queues() == before
    assert reads._counting is not None
    await reads._counting
    (after,) = await reads.queues()
    assert after.counts[State.READY] == 1


async def test_a_count_of_long_ago_is_not_shown(db: Database) -> None:
    reads = Reads(db.postgres, db.health)
    await db.queues.add(["default"])
    await reads.queues()
    await db.submit()
    reads._counts_until = reads._last_until = 0.0
    (after,) = await reads.queues()
    assert after.counts[State.READY] == 1


async def agree(db: Database) -> None:
    rows: list[Any] = await db.session.fetch("SELECT queue, state FROM job_ended")
    places: dict[tuple[str, str], int] = {}
    for queue, state in rows:
        places[queue, state] = places.get((queue, state), 0) + 1
    assert {key: n for key, n in (await sums(db)).items() if n} == places


async def sums(db: Database) -> dict[tuple[str, str], int]:
    return {(row[0], row[1]): row[2] for row in await db.session.fetch(SUMS)}
