"""Progress in Postgres: the latest report of the latest attempt is what readers see."""

import asyncio

from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.domain.view import ProgressView
from tests.support import making
from tests.support.database import Database


async def shown(db: Database, id_: JobId) -> ProgressView | None:
    view = await db.reads.job(id_)
    assert view is not None
    return view.progress


async def started_again(db: Database, run: Started) -> Started:
    await db.session.execute("UPDATE job_due SET ready_at = now() WHERE job_id = $1", run.id)
    (again,) = await db.jobs.start([run.id], await db.worker())
    assert again.attempt == run.attempt + 1
    return again


async def test_the_latest_report_is_shown_and_a_late_one_is_not(db: Database) -> None:
    (run,) = await db.running()
    assert await shown(db, run.id) is None
    await db.jobs.add_progress([(run.id, 1, 10.0, "begun", 100.0)])
    assert await shown(db, run.id) == ProgressView(10.0, "begun")
    await db.jobs.add_progress([(run.id, 1, 40.0, None, 102.0)])
    await db.jobs.add_progress([(run.id, 1, 30.0, "late", 101.0)])
    assert await shown(db, run.id) == ProgressView(40.0, None)
    await db.jobs.add_progress([(run.id, 1, 20.0, "back", 103.0)])
    assert await shown(db, run.id) == ProgressView(20.0, "back"), "it may go back"


async def test_a_new_attempt_begins_without_and_the_old_one_can_not_speak_for_it(
    db: Database,
) -> None:
    (run,) = await db.running()
    await db.jobs.add_progress([(run.id, 1, 70.0, "first", 100.0)])
    await db.settle(run, making.FAILURE)
    assert await shown(db, run.id) == ProgressView(70.0, "first"), "how far the last try came"
    again = await started_again(db, run)
    assert await shown(db, run.id) is None
    await db.jobs.add_progress([(run.id, 1, 80.0, "late", 200.0)])
    assert await shown(db, run.id) is None
    await db.jobs.add_progress([(again.id, 2, 5.0, "second", 150.0)])
    await db.jobs.add_progress([(run.id, 1, 90.0, "later", 300.0)])
    assert await shown(db, run.id) == ProgressView(5.0, "second")


async def test_the_last_progress_of_an_ended_job_stays(db: Database) -> None:
    for ending in (making.SUCCESS, making.FINAL_FAILURE):
        (run,) = await db.running()
        await db.jobs.add_progress([(run.id, 1, 40.0, None, 100.0)])
        await db.settle(run, ending)
        assert await shown(db, run.id) == ProgressView(40.0, None)


async def test_a_retried_job_shows_its_last_try_until_the_next_begins(db: Database) -> None:
    (run,) = await db.running()
    await db.jobs.add_progress([(run.id, 1, 40.0, None, 100.0)])
    await db.settle(run, making.FINAL_FAILURE)
    await db.retry(run.id)
    assert await shown(db, run.id) == ProgressView(40.0, None)
    await started_again(db, run)
    assert await shown(db, run.id) is None


async def test_one_batch_may_hold_several_reports_of_one_job(db: Database) -> None:
    """An attempt that was taken for lost may report beside the one that followed it."""
    (run,) = await db.running()
    await db.settle(run, making.FAILURE)
    again = await started_again(db, run)
    await db.jobs.add_progress(
        [
            (run.id, 1, 90.0, "stale", 300.0),
            (again.id, 2, 5.0, "a", 1.0),
            (again.id, 2, 6.0, "b", 2),
        ]
    )
    assert await shown(db, run.id) == ProgressView(6.0, "b")


async def test_batches_that_meet_do_not_deadlock(db: Database) -> None:
    ids = [run.id for run in await db.running(200)]
    for round_ in range(5):
        await asyncio.gather(
            *(
                db.jobs.add_progress([(id_, 1, float(round_), None, round_) for id_ in ids[::way]])
                for way in (1, -1, 1, -1)
            )
        )
    assert await db.count("job_progress") == 200
    assert await shown(db, ids[0]) == ProgressView(4.0, None)
