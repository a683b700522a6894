"""Jobs that follow the settings: judged and started by what counts by then."""

import pytest

from penstock.domain.defaults import Book, Defaults
from penstock.domain.ids import JobId
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.domain.terms import ALL, Terms
from tests.support.making import FAILURE
from tests.support.still import Still

LATER = Defaults(
    max_attempts=9, backoff=Backoff(Curve.FIXED, 700.0, jitter=Jitter.NONE), timeout_s=44.0
)


def now_count(still: Still, defaults: Defaults = LATER) -> None:
    still.engine.current.terms = Terms(Book(defaults))


async def waits_s(still: Still, id_: JobId) -> float:
    found = await still.db.session.fetchval(
        "SELECT next_run_at - finished_at FROM attempts WHERE job_id = $1", id_
    )
    return float(found.total_seconds())


async def test_an_attempt_under_way_is_judged_by_what_counts_when_it_fails(still: Still) -> None:
    (run,) = await still.start(1, follows=ALL)
    now_count(still)
    await still.settle((run, FAILURE))
    assert await waits_s(still, run.id) == 700
    view = await still.engine.reads.job(run.id)
    assert view is not None
    assert (view.backoff, view.max_attempts, view.timeout_s) == (LATER.backoff, 9, 44.0)


async def test_a_budget_that_became_smaller_ends_a_job_at_its_next_failure(still: Still) -> None:
    (run,) = await still.start(1, follows=ALL)
    now_count(still, Defaults(max_attempts=1))
    await still.settle((run, FAILURE))
    await still.in_places([run.id], "dead")


async def test_a_job_that_was_there_before_keeps_what_it_has(still: Still) -> None:
    """Of the time when nobody wrote down what it followed."""
    (run,) = await still.start(1)
    kept = await still.db.session.fetchval("SELECT follows FROM jobs WHERE job_id = $1", run.id)
    assert kept is None
    now_count(still)
    await still.settle((run, FAILURE))
    assert await waits_s(still, run.id) < 3
    view = await still.engine.reads.job(run.id)
    assert view is not None
    assert (view.max_attempts, view.timeout_s) == (5, 300.0)


@pytest.mark.parametrize(("follows", "timeout_s"), [(ALL, 44.0), (0, 300.0)])
async def test_an_attempt_gets_the_time_that_counts_when_it_starts(
    still: Still, follows: int, timeout_s: float
) -> None:
    (job,) = await still.start(1, follows=follows)
    now_count(still)
    run = still.engine._run_of(job)
    assert run is not None
    assert run.job.timeout_s == run.context.job.timeout_s == timeout_s
