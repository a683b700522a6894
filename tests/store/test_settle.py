"""settle_attempts: running -> ended or due, exactly once, fenced by job, attempt and worker."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from penstock.domain.attempt import CANCELLED, LOST, RELEASED, Ending, Failure, Outcome
from penstock.domain.errors import BadRow
from penstock.domain.job import OnLost, Started, State
from penstock.domain.verdict import Verdict
from penstock.store.jobs import Settled, Settlement
from tests.support import making
from tests.support.database import Database, settlement, until_somebody_waits_for_a_lock

# ending, what the job was submitted with -> place, failures, losses, outcome of the attempt
ENDINGS: list[tuple[Ending, dict[str, Any], tuple[str, int, int, str]]] = [
    (making.SUCCESS, {}, ("succeeded", 0, 0, "succeeded")),
    (making.FAILURE, {}, ("ready", 1, 0, "failed")),
    (making.FAILURE, {"max_attempts": 1}, ("dead", 1, 0, "failed")),
    (making.FINAL_FAILURE, {}, ("dead", 1, 0, "failed")),
    (making.TIMEOUT, {}, ("ready", 1, 0, "timed_out")),
    (LOST, {}, ("ready", 0, 1, "lost")),
    (LOST, {"max_attempts": 1}, ("ready", 0, 1, "lost")),
    (LOST, {"on_lost": OnLost.DEAD}, ("dead", 0, 1, "lost")),
    (RELEASED, {"max_attempts": 1}, ("ready", 0, 0, "released")),
    (making.CRASH, {"max_attempts": 1}, ("scheduled", 0, 0, "crashed")),
    (CANCELLED, {}, ("cancelled", 0, 0, "cancelled")),
]


@pytest.mark.parametrize(
    ("ending", "fields", "expected"), ENDINGS, ids=lambda value: getattr(value, "outcome", None)
)
async def test_an_ending_moves_the_job_to_one_place_and_records_the_attempt(
    db: Database, ending: Ending, fields: dict[str, Any], expected: tuple[str, int, int, str]
) -> None:
    place, failures, losses, outcome = expected
    (run,) = await db.running(**fields)
    assert await db.settle(run, ending)
    assert await db.places([run.id]) == [place]
    assert await db.count("job_running") == 0
    assert await db.count("job_due") + await db.count("job_ended") == 1
    is_due = place in ("ready", "scheduled")
    row = await db.row("job_due" if is_due else "job_ended", run.id)
    assert (row["attempt"], row["failures"], row["losses"]) == (1, failures, losses)
    assert row["crashes"] == (outcome == "crashed")
    attempt = await db.row("attempts", run.id)
    assert (attempt["attempt"], attempt["worker_id"]) == (1, run.worker)
    assert (attempt["outcome"], attempt["started_at"]) == (outcome, run.started_at)
    assert attempt["finished_at"] >= run.started_at
    assert attempt["next_run_at"] == (row["ready_at"] if is_due else None)


async def test_a_success_keeps_its_result_and_a_death_its_error_and_reason(db: Database) -> None:
    good, bad = await db.running(2, max_attempts=1)
    await db.settle(good, making.SUCCESS)
    await db.settle(bad, making.FAILURE)
    row = await db.row("job_ended", good.id)
    assert (row["result"], row["error"], row["reason"]) == ('{"answer":42}', None, None)
    row = await db.row("job_ended", bad.id)
    assert (row["result"], row["error"]) == (None, '{"type":"oops"}')
    assert row["reason"] == "attempts-exhausted"


@pytest.mark.parametrize("ending", [LOST, RELEASED], ids=["lost", "released"])
async def test_a_lost_or_released_job_keeps_its_place_in_line(db: Database, ending: Ending) -> None:
    (run,) = await db.running()
    assert await settle(db, run, ending) == Settled(run.ready_at)


async def test_a_retry_is_due_after_its_back_off_from_the_settlement_on(db: Database) -> None:
    (run,) = await db.running()
    wish = replace(making.FAILURE, retry_after_s=60.0)
    done = await settle(db, run, wish)
    finished_at = (await db.row("attempts", run.id))["finished_at"]
    assert done == Settled(finished_at + timedelta(seconds=60))


@pytest.mark.parametrize(
    "stale",
    [
        {"attempt": 1},
        {"attempt": 3},
        {"worker": making.worker_id()},  # a crashed Postgres may hand an attempt out twice (A18)
        {"id": making.job_id()},
    ],
    ids=["an attempt before", "an attempt to come", "another worker's", "no such job"],
)
async def test_a_stale_settlement_does_nothing(db: Database, stale: dict[str, Any]) -> None:
    (run,) = await db.running()
    await db.settle(run, RELEASED)
    (run,) = await db.jobs.start([run.id], await db.worker())
    settled, held = await db.settle_all([settlement(replace(run, **stale), making.SUCCESS)])
    assert (settled, held) == ({}, set())
    row = await db.row("job_running", run.id)
    assert (row["attempt"], row["worker_id"]) == (2, run.worker)
    assert await db.count("attempts") == 1
    assert await db.count("job_ended") == await db.count("queue_counts") == 0


async def test_settling_twice_settles_once(db: Database) -> None:
    (run,) = await db.running()
    assert await db.settle(run, making.SUCCESS)
    assert not await db.settle(run, making.SUCCESS)
    assert not await db.settle(run, making.FAILURE)
    assert await db.places([run.id]) == ["succeeded"]
    assert await db.count("attempts") == 1


async def test_who_waited_for_another_settlement_of_the_same_attempt_settles_nothing(
    db: Database,
) -> None:
    runs = await db.running(50)
    for _ in range(3):
        endings = (making.SUCCESS, LOST, making.FAILURE)
        answers = await asyncio.gather(
            *(db.settle_all([settlement(run, ending) for run in runs]) for ending in endings)
        )
        settled = [key for done, _ in answers for key in done]
        assert sorted(settled) == sorted((run.id, run.attempt) for run in runs)
        runs = await db.running(50)


async def test_settlements_of_one_batch_stand_and_fall_for_themselves(db: Database) -> None:
    first, stale, other = await db.running(3)
    await db.settle(stale, making.SUCCESS)
    settled, _ = await db.settle_all(
        [
            settlement(first, making.SUCCESS),
            settlement(stale, making.FAILURE),
            settlement(other, RELEASED),
        ]
    )
    assert settled == {(first.id, 1): Settled(None), (other.id, 1): Settled(other.ready_at)}
    ids = [first.id, stale.id, other.id]
    assert await db.places(ids) == ["succeeded", "succeeded", "ready"]


async def test_batches_that_overlap_in_other_orders_do_not_deadlock(db: Database) -> None:
    runs = await db.running(300)
    batches = [runs, runs[::-1], runs[::2] + runs[1::2]]
    answers = await asyncio.gather(
        *(db.settle_all([settlement(run, LOST) for run in batch]) for batch in batches)
    )
    assert sum(len(settled) for settled, _ in answers) == len(runs)


async def test_a_verdict_that_did_not_know_of_a_cancel_is_held_back(db: Database) -> None:
    runs = await db.running(4)
    for run in runs:
        assert await db.jobs.cancel_running(run.id) == run.worker
    endings = [making.FAILURE, RELEASED, LOST, making.FINAL_FAILURE]
    batch = [settlement(run, ending) for run, ending in zip(runs, endings, strict=True)]
    settled, held = await db.settle_all(batch)
    assert settled == {}
    assert held == {(run.id, 1) for run in runs}
    assert await db.count("job_running") == 4
    assert await db.count("attempts") == await db.count("queue_counts") == 0
    # The caller decides again, now that it knows.
    settled, held = await db.settle_all(
        [settlement(run, e, cancel_known=True) for run, e in zip(runs, endings, strict=True)]
    )
    assert (len(settled), held) == (4, set())
    assert set(await db.places([run.id for run in runs])) == {"cancelled"}
    assert (await db.row("job_ended", runs[0].id))["reason"] == "requested"


@pytest.mark.parametrize("known", [True, False])
async def test_success_beats_cancel(db: Database, known: bool) -> None:
    (run,) = await db.running()
    await db.jobs.cancel_running(run.id)
    assert await db.settle(run, making.SUCCESS, cancel_known=known)
    assert await db.places([run.id]) == ["succeeded"]


async def test_a_cancel_that_commits_while_settle_waits_is_seen_by_it(db: Database) -> None:
    """Settle's snapshot is older than the request: the locked row is read anew."""
    (run,) = await db.running()
    transaction = db.session.transaction()
    await transaction.start()
    await db.session.execute(
        "UPDATE job_running SET cancel_requested_at = now() WHERE job_id = $1", run.id
    )
    waiting = asyncio.create_task(db.settle_all([settlement(run, making.FAILURE)]))
    await until_somebody_waits_for_a_lock(db)
    await transaction.commit()
    assert await waiting == ({}, {(run.id, 1)})


async def test_settle_that_waited_for_one_that_consumed_the_row_finds_nothing(
    db: Database,
) -> None:
    (run,) = await db.running()
    transaction = db.session.transaction()
    await transaction.start()
    await db.session.execute("DELETE FROM job_running WHERE job_id = $1", run.id)
    waiting = asyncio.create_task(db.settle_all([settlement(run, making.FAILURE)]))
    await until_somebody_waits_for_a_lock(db)
    await transaction.commit()
    assert await waiting == ({}, set())
    assert await db.count("attempts") == 0


async def test_after_a_lost_answer_it_can_be_asked_what_was_settled(db: Database) -> None:
    done, again, running, foreign = await db.running(4)
    await db.settle(done, making.SUCCESS)
    await db.settle(again, RELEASED)
    await db.settle(foreign, LOST)
    batch = [
        settlement(run, making.SUCCESS)
        for run in (done, again, running, replace(foreign, worker=making.worker_id()))
    ]
    found = await db.jobs.settled_before(batch)
    assert found[done.id, 1] == Settled(None)
    assert found[again.id, 1] == Settled(again.ready_at)
    assert (running.id, 1) not in found


async def test_what_another_settled_first_is_not_taken_for_ones_own(db: Database) -> None:
    """The reaper settled it as lost while we asked: our success was stale, not ambiguous."""
    (run,) = await db.running()
    await db.settle(run, LOST)
    foreign = replace(run, worker=making.worker_id())
    assert await db.jobs.settled_before([settlement(foreign, making.SUCCESS)]) == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"ending": Ending(Outcome.SUCCEEDED, result="no json")},
        {"error": '{"type":'},
        {"verdict": Verdict(State.DEAD, 2**40, 0, 0)},
    ],
    ids=["a result that is no JSON", "an error that is no JSON", "a number too large"],
)
async def test_one_bad_row_refuses_the_batch_and_changes_nothing(
    db: Database, bad: dict[str, Any]
) -> None:
    good, other = await db.running(2)
    ill: Settlement = replace(settlement(other, making.FAILURE), **bad)
    with pytest.raises(BadRow):
        await db.settle_all([settlement(good, making.SUCCESS), ill])
    assert await db.places([good.id, other.id]) == ["running", "running"]
    assert await db.count("attempts") == 0


async def test_the_same_attempt_twice_in_one_batch_refuses_the_batch(db: Database) -> None:
    """Its worker's ending and the reaper's: the settler halves such a batch until one is first."""
    (run,) = await db.running()
    with pytest.raises(BadRow):
        await db.settle_all([settlement(run, making.SUCCESS), settlement(run, LOST)])
    assert await db.places([run.id]) == ["running"]


async def test_an_empty_batch_is_no_fault(db: Database) -> None:
    assert await db.settle_all([]) == ({}, set())


async def test_logs_are_kept_once_and_in_order(db: Database) -> None:
    (run,) = await db.running()
    lines = [(run.id, 1, n, making.NOON_MS / 1000, "info", f"line {n}") for n in (1, 2, 3)]
    await db.jobs.add_logs(lines[:2])
    await db.jobs.add_logs(lines[::-1])
    assert [line.message for line in await db.reads.logs(run.id)] == ["line 1", "line 2", "line 3"]
    with pytest.raises(BadRow):
        await db.jobs.add_logs([(run.id, 1, 4, 0.0, "info", "nul\x00")])


async def settle(db: Database, run: Started, ending: Ending) -> Settled | None:
    settled, _ = await db.settle_all([settlement(run, ending)])
    return settled.get((run.id, run.attempt))


def test_errors_of_attempts_are_as_the_door_shows_them() -> None:
    shown = Failure("oops", "as asked", {"a": 1}).as_json()
    assert shown == {"type": "oops", "message": "as asked", "details": {"a": 1}}
