"""What one kind of a queue has to go before others: by the age of ids, which are as old as jobs."""

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.workflow import LOOSE
from penstock.store.retention import Lane, PrunedLane, Retention
from tests.support import making
from tests.support.database import Database

HOUR_S = 3600.0
LANE: Lane = ("mail", "echo")
FIRST = JobId(bytes(16))
# Makes jobs as old as their ids should say: as if they had been submitted so long ago.
OLDER = """
WITH moved AS (
    SELECT job_id, (lpad(to_hex((1000 * (extract(epoch FROM now()) - $2))::bigint), 12, '0')
                    || substr(replace(job_id::text, '-', ''), 13))::uuid AS new
    FROM unnest($1::uuid[]) AS i(job_id)
),
e AS (UPDATE job_ended SET job_id = new, finished_at = now() - make_interval(secs => $3)
      FROM moved WHERE job_ended.job_id = moved.job_id),
a AS (UPDATE attempts SET job_id = new FROM moved WHERE attempts.job_id = moved.job_id)
UPDATE jobs SET job_id = new FROM moved WHERE jobs.job_id = moved.job_id RETURNING new
"""


@pytest.fixture
def retention(db: Database) -> Retention:
    return Retention(db.postgres)


async def ended(
    db: Database, count: int, submitted_s: float, ended_s: float, queue: str = "mail"
) -> list[JobId]:
    """Dead jobs that were submitted and that ended so many seconds ago."""
    runs = await db.running(count, queue=queue)
    for run in runs:
        await db.settle(run, making.FINAL_FAILURE)
    ids = [run.id for run in runs]
    return [row[0] for row in await db.session.fetch(OLDER, ids, submitted_s, ended_s)]


async def prune(
    retention: Retention, state: State = State.DEAD, after: JobId = FIRST, rows: int = 10
) -> PrunedLane:
    return await retention.prune_lane(state, LANE, HOUR_S, after, rows)


async def test_only_what_is_old_enough_goes_and_only_of_its_lane(
    db: Database, retention: Retention
) -> None:
    old = await ended(db, 3, 2 * HOUR_S, 1.5 * HOUR_S)
    late = await ended(db, 1, 2 * HOUR_S, 60)
    young = await ended(db, 1, 60, 50)
    other = await ended(db, 1, 2 * HOUR_S, 2 * HOUR_S, queue="bills")
    member = await ended(db, 1, 2 * HOUR_S, 2 * HOUR_S)
    await db.session.execute("UPDATE job_ended SET graph_id = $1 WHERE job_id = $2", LOOSE, *member)

    assert await prune(retention, State.SUCCEEDED) == PrunedLane(0, FIRST, True)
    pruned = await prune(retention)
    assert (pruned.count, pruned.is_end) == (3, True)
    assert pruned.last == max(*late, *member, *old), "how far it has looked"
    assert await db.places(old) == [None] * 3
    assert await db.places([*late, *young, *other, *member]) == ["dead"] * 4
    assert await db.count("attempts") == 4


async def test_it_goes_on_where_it_was(db: Database, retention: Retention) -> None:
    await ended(db, 5, 2 * HOUR_S, 2 * HOUR_S)
    first = await prune(retention, rows=2)
    second = await prune(retention, after=first.last, rows=2)
    third = await prune(retention, after=second.last, rows=2)
    assert [(one.count, one.is_end) for one in (first, second, third)] == [
        (2, False),
        (2, False),
        (1, True),
    ]
    assert first.last < second.last < third.last
    assert await prune(retention, after=third.last) == PrunedLane(0, third.last, True)


async def test_what_is_still_to_be_told_or_held_by_others_stays(
    db: Database, retention: Retention
) -> None:
    told, held = await ended(db, 2, 2 * HOUR_S, 2 * HOUR_S)
    await db.session.execute(
        "INSERT INTO effects (effect_id, channel, endpoint, dedupe, event, state, job_id, attempt,"
        " at, due_at) VALUES (gen_random_uuid(), 'email', 'a@b.c', 'x', 'y', 'dead', $1, 1, now(),"
        " now())",
        told,
    )
    async with db.session.transaction():
        await db.session.execute("SELECT FROM job_ended WHERE job_id = $1 FOR UPDATE", held)
        assert (await prune(retention)).count == 0
    assert (await prune(retention)).count == 1
    assert await db.places([told, held]) == ["dead", None]


async def test_the_lanes_of_what_has_ended_are_listed_once_each(
    db: Database, retention: Retention
) -> None:
    assert await retention.lanes() == []
    for queue in ("mail", "bills"):
        await ended(db, 2, 10, 5, queue)
    assert await retention.lanes() == [("bills", "echo"), ("mail", "echo")]
