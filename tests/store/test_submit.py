"""submit_jobs: nothing -> due, all or nothing, safe to repeat."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from penstock.domain.errors import BadRow
from penstock.domain.job import OnLost
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.store.jobs import ROWS_MAX
from penstock.store.submissions import first_ready_at
from tests.support import making
from tests.support.database import Database


async def test_a_job_gets_its_specification_and_its_place(db: Database) -> None:
    job = making.new_job(
        queue="mail",
        kind="send",
        priority=9,
        payload='{"b": 1,  "a": [2, 1.50]}',
        max_attempts=3,
        backoff=Backoff(Curve.LINEAR, 5.0, 1.0, 60.0, Jitter.EQUAL),
        timeout_s=12.5,
        on_lost=OnLost.DEAD,
        tags=("red", "blue, green", '"'),
        traceparent="00-1-2-03",
        created_by="ada",
    )
    now = await db.submissions.store([job])
    (started,) = await db.jobs.start([job.id], await db.worker())
    assert started.payload == job.payload  # byte for byte
    for name in ("id", "queue", "kind", "priority", "max_attempts", "backoff", "timeout_s"):
        assert getattr(started, name) == getattr(job, name)
    for name in ("on_lost", "tags", "traceparent", "created_by"):
        assert getattr(started, name) == getattr(job, name)
    assert (started.attempt, started.failures, started.losses) == (1, 0, 0)
    assert started.ready_at == now


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("fields", "after"),
    [
        ({}, timedelta(0)),
        ({"run_at": making.NOON}, timedelta(0)),  # long past: it counts as now
        ({"run_at": "in an hour"}, HOUR),
        ({"delay_s": 3600.0}, HOUR),
        ({"delay_s": 0.0}, timedelta(0)),
        ({"delay_s": 0.0005}, timedelta(microseconds=500)),
    ],
)
async def test_a_job_is_due_when_its_sender_said_counted_by_postgres_clock(
    db: Database, fields: dict[str, Any], after: timedelta
) -> None:
    if fields.get("run_at") == "in an hour":
        fields = {"run_at": await db.session.fetchval("SELECT clock_timestamp()") + HOUR}
        after = timedelta(0)
    job = making.new_job(**fields)
    now = await db.submissions.store([job])
    due, spec = await db.row("job_due", job.id), await db.row("jobs", job.id)
    expected = max(now + after, fields.get("run_at") or now)
    assert due["ready_at"] == spec["run_at"] == expected == first_ready_at(job, now)


async def test_a_repeated_submission_changes_nothing(db: Database) -> None:
    jobs = making.new_jobs(3)
    await db.submissions.store(jobs)
    before = await everything(db)
    await db.submissions.store([*jobs, *jobs])
    assert await everything(db) == before


async def test_one_submission_may_name_a_job_twice(db: Database) -> None:
    job = making.new_job()
    await db.submissions.store([job, job])
    assert await db.count("job_due") == 1


@pytest.mark.parametrize("place", ["running", "succeeded", "ready", "cancelled"])
async def test_a_repeated_submission_makes_no_new_place_for_a_job_that_went_on(
    db: Database, place: str
) -> None:
    job = making.new_job()
    await db.submissions.store([job])
    if place == "cancelled":
        await db.jobs.cancel_due(job.id)
    else:
        (run,) = await db.jobs.start([job.id], await db.worker())
        if place != "running":
            ending = making.SUCCESS if place == "succeeded" else making.FAILURE
            await db.settle(run, ending)
    before = await everything(db)
    await db.submissions.store([job])
    assert await everything(db) == before
    assert await db.places([job.id]) == [place]


async def test_a_repetition_stores_only_what_the_first_sending_did_not(db: Database) -> None:
    old, new = making.new_job(), making.new_job()
    await db.submissions.store([old])
    await db.submissions.store([old, new])
    assert await db.count("jobs") == await db.count("job_due") == 2


async def test_a_submission_that_is_sent_twice_at_once_is_stored_once(db: Database) -> None:
    """The first sending is still under way when its answer is given up."""
    for _ in range(5):
        jobs = making.new_jobs(100)
        await asyncio.gather(*(db.submissions.store(jobs) for _ in range(3)))
    assert await db.count("jobs") == await db.count("job_due") == 500


@pytest.mark.parametrize(
    "bad",
    [
        {"payload": "no json"},
        {"queue": "nul\x00"},
        {"max_attempts": 100_000},  # more than a smallint holds
        {"created_by": "\ud800"},  # a lone surrogate, which is no text
        {"created_by": "closed \ud800"},
    ],
    ids=lambda bad: next(iter(bad)),
)
async def test_a_row_that_postgres_refuses_refuses_the_statement(
    db: Database, bad: dict[str, Any]
) -> None:
    with pytest.raises(BadRow):
        await db.submissions.store([making.new_job(), making.new_job(**bad)])
    assert await db.count("jobs") == await db.count("job_due") == 0


async def test_more_than_one_statement_holds_is_still_all_or_nothing(db: Database) -> None:
    jobs = making.new_jobs(ROWS_MAX + 1)
    with pytest.raises(BadRow):
        await db.submissions.store([*jobs, making.new_job(payload="no json")])
    assert await db.count("jobs") == 0
    await db.submissions.store(jobs)
    assert await db.count("jobs") == await db.count("job_due") == ROWS_MAX + 1


async def everything(db: Database) -> list[list[Any]]:
    tables = ("jobs", "job_due", "job_running", "job_ended", "attempts")
    return [
        [tuple(row) for row in await db.session.fetch(f"SELECT * FROM {table} ORDER BY job_id")]
        for table in tables
    ]


def test_the_same_rule_tells_when_a_job_is_due_without_asking_postgres() -> None:
    now = making.NOON
    cases: list[tuple[dict[str, Any], datetime]] = [
        ({}, now),
        ({"run_at": now - HOUR}, now),
        ({"run_at": now + HOUR}, now + HOUR),
        ({"delay_s": 1.5}, now + timedelta(seconds=1.5)),
    ]
    for fields, expected in cases:
        assert first_ready_at(making.new_job(**fields), now) == expected
