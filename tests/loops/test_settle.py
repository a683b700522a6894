"""Settlement: every ending once, whatever its data, and whoever else has a say."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from penstock import clock
from penstock.domain.attempt import CANCELLED, LOST, RELEASED, Ending, Failure, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.loops.settle import Outgoing, weight
from penstock.queue import keys
from penstock.queue.shelves import member
from penstock.store.rows import ms
from tests.support import making
from tests.support.making import FAILURE, FINAL_FAILURE, SUCCESS, TIMEOUT
from tests.support.still import Q, Still

AT_ONCE = Backoff(Curve.FIXED, base_s=0.0, jitter=Jitter.NONE)
IN_30_S = Backoff(Curve.FIXED, base_s=30.0, jitter=Jitter.NONE)


async def ended(still: Still, job: Started) -> tuple[Any, ...]:
    row = await still.db.row("job_ended", job.id)
    return (row["state"], row["reason"], row["failures"], row["losses"])


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (SUCCESS, ("succeeded", None, 0, 0)),
        (FINAL_FAILURE, ("dead", "failed-for-good", 1, 0)),
        (FAILURE, ("dead", "attempts-exhausted", 1, 0)),
        (TIMEOUT, ("dead", "attempts-exhausted", 1, 0)),
        (CANCELLED, ("cancelled", "requested", 0, 0)),
    ],
    ids=["success", "failed for good", "failed", "timed out", "cancelled"],
)
async def test_an_ending_ends_the_job_and_leaves_no_trace_in_redis(
    still: Still, ending: Ending, expected: tuple[object, ...]
) -> None:
    (job,) = await still.start(max_attempts=1)
    await still.settle((job, ending))
    assert await ended(still, job) == expected
    assert await still.outcomes(job.id) == [ending.outcome]
    assert await still.shelves() == {}
    assert still.metric("jobs_ended_total", queue="default", state=str(expected[0])) == 1
    assert still.metric("attempts_total", kind="echo", outcome=ending.outcome) == 1


@pytest.mark.parametrize(
    ("ending", "failures", "losses", "keeps_its_place"),
    [
        (FAILURE, 1, 0, False),
        (TIMEOUT, 1, 0, False),
        (RELEASED, 0, 0, True),
        (LOST, 0, 1, True),
    ],
    ids=["failed", "timed out", "released", "lost"],
)
async def test_what_is_to_be_tried_again_is_in_line_at_once(
    still: Still, ending: Ending, failures: int, losses: int, keeps_its_place: bool
) -> None:
    (job,) = await still.start(backoff=AT_ONCE, priority=7)
    await still.settle((job, ending))
    row = await still.db.row("job_due", job.id)
    assert (row["attempt"], row["failures"], row["losses"]) == (1, failures, losses)
    assert (row["ready_at"] == job.ready_at) == keeps_its_place
    score = ms(row["ready_at"]) - 7 * 60_000
    assert await still.shelves() == {f"{Q}ready:echo": {job.id: score}}
    (attempt,) = await still.db.session.fetch("SELECT outcome, next_run_at FROM attempts")
    assert tuple(attempt) == (ending.outcome, row["ready_at"])


@pytest.mark.parametrize(
    ("ending", "delay_s"),
    [
        (FAILURE, 30),
        (replace(FAILURE, retry_after_s=5.0), 30),
        (replace(FAILURE, retry_after_s=45.0), 45),
    ],
    ids=["back-off", "a shorter wish", "a longer wish"],
)
async def test_a_retry_waits_for_its_delay(still: Still, ending: Ending, delay_s: int) -> None:
    (job,) = await still.start(backoff=IN_30_S)
    await still.settle((job, ending))
    due = await still.db.row("job_due", job.id)
    attempt = await still.db.row("attempts", job.id)
    assert due["ready_at"] == attempt["finished_at"] + timedelta(seconds=delay_s)
    place = member(making.due(id=job.id))
    assert await still.shelves() == {f"{Q}scheduled": {place: ms(due["ready_at"])}}
    assert still.engine.worker.wake.is_set()


async def test_results_and_errors_are_kept_where_they_belong(still: Still) -> None:
    good, bad = await still.start(2, max_attempts=1)
    await still.settle((good, SUCCESS), (bad, FAILURE))
    assert FAILURE.failure is not None
    error = orjson.dumps(FAILURE.failure.as_json()).decode()
    for job, expected in ((good, (SUCCESS.result, None)), (bad, (None, error))):
        row = await still.db.row("job_ended", job.id)
        assert (row["result"], row["error"]) == expected
        assert (await still.db.row("attempts", job.id))["error"] == expected[1]


async def test_what_gathers_is_one_transaction(still: Still) -> None:
    jobs = await still.start(300)
    await still.settle(*((job, SUCCESS) for job in jobs))
    assert await still.db.session.fetchval("SELECT count(DISTINCT xmin::text) FROM attempts") == 1
    assert still.metric("batch_rows_count", batch="settle") == 1
    assert still.metric("batch_rows_sum", batch="settle") == 300


async def test_each_ending_is_told_done_once_and_counts_until_then(still: Still) -> None:
    settler, done = still.engine.settler, list[JobId]()
    jobs = await still.start(3)
    for job in jobs:
        settler.put(Outgoing(job, SUCCESS, done=lambda id_=job.id: done.append(id_)))  # type: ignore[misc]
    assert settler.unsettled == 3
    assert settler.unsettled_bytes == 3 * (200 + len(SUCCESS.result or ""))
    await settler.drained()
    assert done == [job.id for job in jobs]
    assert (settler.unsettled, settler.unsettled_bytes) == (0, 0)


async def test_only_what_is_over_is_told_to_those_who_wait(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []
    monkeypatch.setattr(still.engine.sequel, "on_ended", told.extend)
    jobs = await still.start(3, backoff=AT_ONCE)
    async with still.redis.raw.pubsub() as line:
        await line.subscribe(keys.ENDED)
        assert (await line.get_message(timeout=2))["type"] == "subscribe"
        await still.settle((jobs[0], SUCCESS), (jobs[1], FAILURE), (jobs[2], FINAL_FAILURE))
        message = await line.get_message(timeout=2)
    assert told == [jobs[0].id, jobs[2].id]
    assert message["data"] == jobs[0].id + jobs[2].id, "others hear it by one publish"


async def test_what_was_settled_before_is_stale_and_touches_nothing(still: Still) -> None:
    first, second = await still.start(2, backoff=AT_ONCE)
    await still.settle((first, FAILURE), (second, SUCCESS))
    before = await still.shelves()
    stranger = replace(second, worker=making.worker_id())
    await still.settle((first, SUCCESS), (second, FAILURE), (stranger, SUCCESS))
    assert await still.shelves() == before
    assert await still.outcomes(first.id) == ["failed"]
    assert await still.outcomes(second.id) == ["succeeded"]
    assert still.metric("stale_settlements_total") == 3
    assert still.metric("attempts_total", kind="echo", outcome="succeeded") == 1


async def test_a_late_ending_does_not_settle_the_next_attempt(still: Still) -> None:
    (first,) = await still.start(backoff=AT_ONCE)
    await still.settle((first, FAILURE))
    claimed = await still.engine.shelves.claim("default", ["echo"], 1, 10.0)
    (second,) = await still.engine.jobs.start(claimed.ids, still.engine.me.worker)
    await still.settle((first, SUCCESS))
    assert await still.db.places([first.id]) == ["running"]
    assert await still.leases() == {first.id}, "nor does it take the next one's lease"
    await still.settle((second, SUCCESS))
    assert await still.outcomes(first.id) == ["failed", "succeeded"]


# A cancel that the verdict did not know of.


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        (SUCCESS, "succeeded"),
        (FAILURE, "cancelled"),
        (FINAL_FAILURE, "cancelled"),
        (TIMEOUT, "cancelled"),
        (RELEASED, "cancelled"),
        (LOST, "cancelled"),
        (CANCELLED, "cancelled"),
    ],
    ids=lambda it: it.outcome if isinstance(it, Ending) else "",
)
async def test_a_cancel_that_came_meanwhile_is_honoured_unless_it_succeeded(
    still: Still, ending: Ending, state: str
) -> None:
    asked, other = await still.start(2, backoff=AT_ONCE)
    await still.db.jobs.cancel_running(asked.id)
    await still.settle((asked, ending), (other, FAILURE))
    assert await still.db.places([asked.id, other.id]) == [state, "ready"]
    assert await still.outcomes(asked.id) == [ending.outcome]
    assert await still.ready() == [other.id]
    assert await still.leases() == set()
    assert still.metric("stale_settlements_total") == 0
    assert still.metric("attempts_total", kind="echo", outcome=ending.outcome) >= 1


# Data that can't be settled.


def bad_endings() -> dict[str, Ending]:
    return {
        "a result that is no JSON": Ending(Outcome.SUCCEEDED, result="{no json"),
        "a result with NUL": Ending(Outcome.SUCCEEDED, result='"\0"'),
        "a result with half a character": Ending(Outcome.SUCCEEDED, result='"\ud800"'),
        "an error with half a character": replace(FAILURE, failure=Failure("\ud800", "no")),
        "details that are no JSON": replace(FAILURE, failure=Failure("t", "m", object())),
        "a delay beyond all dates": replace(FAILURE, retry_after_s=1e300),
    }


@pytest.mark.parametrize("name", bad_endings())
async def test_a_bad_row_is_settled_as_an_internal_error_while_the_rest_commits(
    still: Still, name: str
) -> None:
    jobs = await still.start(9)
    bad = jobs.pop(4)
    await still.settle(
        (jobs[0], SUCCESS), (bad, bad_endings()[name]), *((j, SUCCESS) for j in jobs[1:])
    )
    row = await still.db.row("job_ended", bad.id)
    error = orjson.loads(row["error"])
    assert (row["state"], row["result"], error["type"]) == ("dead", None, "internal-error")
    assert error["details"], "it says why"
    assert await still.db.places([job.id for job in jobs]) == ["succeeded"] * 8
    assert await still.outcomes(bad.id) == ["failed"]
    assert await still.shelves() == {}
    assert still.metric("stale_settlements_total") == 0
    assert still.metric("attempts_total", kind="echo", outcome="succeeded") == 8


async def test_a_rule_that_breaks_on_one_job_ends_that_job_alone(still: Still) -> None:
    good, bad = await still.start(2)
    no_rule: Any = "no rule"
    poisoned = replace(bad, backoff=no_rule)
    await still.settle((good, SUCCESS), (poisoned, FAILURE))
    assert await still.db.places([good.id, bad.id]) == ["succeeded", "dead"]
    error = orjson.loads((await still.db.row("job_ended", bad.id))["error"])
    assert error["type"] == "internal-error"
    assert "AttributeError" in error["details"]


async def test_many_bad_rows_are_found_one_by_one(still: Still) -> None:
    jobs = await still.start(20)
    bad = bad_endings()["a result that is no JSON"]
    await still.settle(*((job, SUCCESS if n % 3 else bad) for n, job in enumerate(jobs)))
    places = await still.db.places([job.id for job in jobs])
    assert places == ["succeeded" if n % 3 else "dead" for n in range(20)]


async def test_one_that_can_not_be_settled_at_all_holds_no_other(still: Still) -> None:
    """Its attempt stands in the history already: somebody has meddled with the tables."""
    good, broken, other = await still.start(3)
    await still.db.session.execute(
        "INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)"
        " SELECT job_id, attempt, worker_id, started_at, started_at, 'lost' FROM job_running"
        " WHERE job_id = $1",
        broken.id,
    )
    async with asyncio.timeout(5):
        await still.settle((good, SUCCESS), (broken, SUCCESS), (other, SUCCESS))
    ids = [good.id, broken.id, other.id]
    assert await still.db.places(ids) == ["succeeded", "running", "succeeded"]
    assert still.engine.settler.unsettled == 0


async def test_a_cancelled_job_with_bad_data_is_cancelled(still: Still) -> None:
    (job,) = await still.start()
    await still.db.jobs.cancel_running(job.id)
    await still.settle((job, bad_endings()["details that are no JSON"]))
    assert await still.db.places([job.id]) == ["cancelled"]


# Bounds.


@pytest.mark.parametrize(
    ("result_bytes", "line_bytes", "rows"),
    [(0, 0, 1), (8192, 0, 2), (0, 8192, 2), (1 << 20, 0, 129)],
)
def test_large_endings_count_for_several_rows(
    result_bytes: int, line_bytes: int, rows: int
) -> None:
    """So that no statement carries more than about 16 MiB."""
    job = making.started()
    logs = lines(job, "x" * line_bytes) if line_bytes else ()
    ending = Ending(Outcome.SUCCEEDED, result="x" * result_bytes)
    assert weight(Outgoing(job, ending, logs=logs)) == rows


async def test_a_settlement_that_takes_too_long_is_stuck(still: Still) -> None:
    settler = still.engine.settler
    assert not settler.is_stuck()
    (job,) = await still.start()
    stuck: list[bool] = []
    settler._flushing.add(long_ago := clock.monotonic() - 31)
    assert settler.is_stuck()
    settler._flushing.discard(long_ago)
    settler.put(Outgoing(job, SUCCESS, done=lambda: stuck.append(settler.is_stuck())))
    await settler.drained()
    assert stuck == [False]


# Logs.


def lines(job: Started, *messages: str, first: int = 1) -> list[tuple[Any, ...]]:
    return [
        (job.id, job.attempt, seq, 1_795_000_000.5, "info", message)
        for seq, message in enumerate(messages, first)
    ]


async def kept(still: Still, job: Started) -> list[tuple[object, ...]]:
    rows = await still.db.reads.logs(job.id)
    return [(row.attempt, row.message) for row in rows]


async def test_what_an_attempt_logged_is_kept_with_it(still: Still) -> None:
    (job,) = await still.start()
    await still.engine.jobs.add_logs(lines(job, "one", "two"))
    outgoing = Outgoing(job, SUCCESS, logs=lines(job, "two", "three", first=2))
    await still.engine.settler.settle([outgoing])
    assert await kept(still, job) == [(1, "one"), (1, "two"), (1, "three")]


async def test_lines_that_can_not_be_kept_cost_no_settlement(still: Still) -> None:
    (job,) = await still.start()
    await still.engine.settler.settle([Outgoing(job, SUCCESS, logs=lines(job, "a\0b"))])
    assert await still.db.places([job.id]) == ["succeeded"]
    assert await kept(still, job) == []
