"""Unique keys, expiry and stored answers in Postgres."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from penstock.domain.attempt import RELEASED
from penstock.domain.errors import Contended, DuplicateJob, KeyBusy
from penstock.domain.ids import JobId
from penstock.domain.submission import (
    Again,
    Refuse,
    Replay,
    RequestKey,
    Resolution,
    Store,
    Submission,
)
from penstock.store.submissions import LOCKS_MAX
from tests.support import making
from tests.support.database import Database, until_somebody_waits_for_a_lock
from tests.support.making import FAILURE, FINAL_FAILURE, SUCCESS

KEY = RequestKey(b"k" * 16, b"b" * 32)


async def store(db: Database, *submissions: Submission) -> list[Resolution]:
    resolved, _at = await db.submissions.store_keyed(submissions)
    return resolved


async def hold(db: Database, key: str = "a", **fields: Any) -> JobId:
    """A stored job that holds this key."""
    job = making.new_job(unique_key=key, **fields)
    (done,) = await store(db, Submission([job]))
    assert isinstance(done, Store)
    return job.id


async def is_free(db: Database, key: str = "a") -> bool:
    (done,) = await store(db, Submission([making.new_job(unique_key=key)]))
    if isinstance(done, Store):
        return True
    assert isinstance(done, Refuse)
    assert isinstance(done.error, DuplicateJob)
    return False


async def test_a_key_is_held_until_its_job_ends(db: Database) -> None:
    id_ = await hold(db)
    assert not await is_free(db)
    (first,) = await db.jobs.start([id_], await db.worker())
    assert not await is_free(db)
    await db.settle(first, RELEASED)
    (second,) = await db.jobs.start([id_], await db.worker())
    await db.settle(second, SUCCESS)
    assert await is_free(db)


@pytest.mark.parametrize("how", ["cancelled", "died", "expired"])
async def test_a_key_is_free_however_its_job_ended(db: Database, how: str) -> None:
    id_ = await hold(db, ttl_s=3600.0)
    if how == "cancelled":
        await db.jobs.cancel_due(id_)
    elif how == "died":
        (run,) = await db.jobs.start([id_], await db.worker())
        await db.settle(run, FINAL_FAILURE)
    else:
        await outlive(db, id_)
        assert [one.id for one in await db.jobs.expire(10)] == [id_]
    assert await db.count("job_unique") == 0
    assert await is_free(db)


async def test_a_job_that_waits_for_its_retry_keeps_its_key(db: Database) -> None:
    id_ = await hold(db)
    (run,) = await db.jobs.start([id_], await db.worker())
    await db.settle(run, FAILURE)
    assert not await is_free(db)


async def test_keys_differ_by_queue_and_by_every_character(db: Database) -> None:
    names = [("a", "b/c"), ("a", "b"), ("a", "B"), ("b", "b"), ("a.b", "c"), ("a", "x" * 255)]
    jobs = [making.new_job(queue=queue, unique_key=key) for queue, key in names]
    (done,) = await store(db, Submission(jobs))
    assert isinstance(done, Store)
    assert await db.count("job_unique") == len(names)


async def test_a_refused_submission_stores_nothing(db: Database) -> None:
    holder = await hold(db)
    jobs = [making.new_job(), making.new_job(unique_key="b"), making.new_job(unique_key="a")]
    (done,) = await store(db, Submission(jobs, KEY))
    assert isinstance(done, Refuse)
    assert isinstance(done.error, DuplicateJob)
    assert done.error.holders == {2: holder}
    for table in ("jobs", "job_due", "job_unique"):
        assert await db.count(table) == 1
    assert await db.count("idempotency_keys") == 0


async def test_a_second_life_takes_its_key_again_if_it_is_free(db: Database) -> None:
    id_ = await hold(db)
    await db.jobs.cancel_due(id_)
    other = await hold(db)
    assert await db.retry(id_) is None
    assert await db.jobs.standing_of(id_) == ("cancelled", other)
    await db.jobs.cancel_due(other)
    assert await db.retry(id_) is not None
    assert not await is_free(db)
    assert await db.jobs.standing_of(id_) == ("ready", None)


async def test_of_many_who_retry_at_once_one_does(db: Database) -> None:
    ids = []
    for _ in range(5):
        ids.append(await hold(db))
        await db.jobs.cancel_due(ids[-1])
    done = await asyncio.gather(*(db.retry(id_) for id_ in [*ids, *ids]))
    assert len([one for one in done if one is not None]) == 1
    assert (await db.count("job_unique"), await db.count("job_due")) == (1, 1)


async def test_nobody_waits_for_a_twin_whose_transaction_is_open(db: Database) -> None:
    async with db.session.transaction():
        await take_as_another_replica(db, "unique default/a", f"request {KEY.id.hex()}")
        async with asyncio.timeout(1):
            again, busy, stored = await store(
                db,
                Submission([making.new_job(unique_key="a")]),
                Submission(making.new_jobs(1), KEY),
                Submission([making.new_job(unique_key="b")]),
            )
    assert again == Again()
    assert isinstance(busy, Refuse)
    assert isinstance(busy.error, KeyBusy)
    assert isinstance(stored, Store)
    assert await db.count("jobs") == 1


async def test_a_key_taken_while_we_looked_stores_nothing(db: Database) -> None:
    """As by a retry, which takes no lock on the key's name."""
    other = making.job_id()
    async with db.session.transaction():
        await db.session.execute(
            "INSERT INTO job_unique VALUES (job_unique_id('default', 'a'), $1)", other
        )
        submitting = asyncio.create_task(
            store(db, Submission([making.new_job(), making.new_job(unique_key="a")]))
        )
        await until_somebody_waits_for_a_lock(db)
    with pytest.raises(Contended, match="taken meanwhile"):
        await submitting
    assert (await db.count("jobs"), await db.count("job_due")) == (0, 0)


async def test_more_keys_than_locks_are_stored_as_well(db: Database) -> None:
    count = 5 * LOCKS_MAX
    jobs = [making.new_job(unique_key=str(n)) for n in range(count)]
    (done,) = await store(db, Submission(jobs))
    assert isinstance(done, Store)
    assert await db.count("job_unique") == count
    (again,) = await store(db, Submission([making.new_job(unique_key=str(n)) for n in range(9)]))
    assert isinstance(again, Refuse)


async def test_what_was_stored_before_is_passed_over_with_its_key(db: Database) -> None:
    submission = Submission([making.new_job(unique_key="a"), making.new_job()], KEY)
    (first,) = await store(db, submission)
    assert isinstance(first, Store)
    (second,) = await store(db, submission)
    assert isinstance(second, Replay)
    assert not second.accepted.replayed, "the answer was ours and got lost on its way"
    (third,) = await store(db, Submission(submission.jobs))
    assert isinstance(third, Store)
    for table, count in {"jobs": 2, "job_due": 2, "job_unique": 1}.items():
        assert await db.count(table) == count


async def test_what_was_stored_before_is_ours_though_its_key_is_anothers_by_now(
    db: Database,
) -> None:
    submission = Submission([making.new_job(unique_key="a"), making.new_job()])
    await store(db, submission)
    (run,) = await db.jobs.start([submission.jobs[0].id], await db.worker())
    await db.settle(run, SUCCESS)
    await hold(db)
    (done,), _ = await db.submissions.store_keyed([submission], again=True)
    assert isinstance(done, Store)
    assert list(done.ids) == [job.id for job in submission.jobs]
    for table, count in {"jobs": 3, "job_due": 2, "job_unique": 1}.items():
        assert await db.count(table) == count


async def test_who_takes_many_keys_has_the_others_look_again_and_waits_for_them(
    db: Database,
) -> None:
    many = Submission([making.new_job(unique_key=str(n)) for n in range(LOCKS_MAX + 1)])
    async with db.session.transaction():
        await db.session.fetch("SELECT pg_advisory_xact_lock_shared(hashtextextended('large', 0))")
        large = asyncio.create_task(store(db, many))
        await until_somebody_waits_for_a_lock(db)
        again, stored = await store(
            db,
            Submission([making.new_job(unique_key="a")]),
            Submission(making.new_jobs(1), KEY),
        )
        assert again == Again()
        assert isinstance(stored, Store), "which takes no unique key"
        assert not large.done()
    (done,) = await large
    assert isinstance(done, Store)


async def test_two_that_take_many_keys_in_opposite_order_do_not_deadlock(db: Database) -> None:
    names = [str(n) for n in range(5 * LOCKS_MAX)]
    one = Submission([making.new_job(unique_key=name) for name in names])
    other = Submission([making.new_job(unique_key=name) for name in reversed(names)])
    done = [resolved for (resolved,) in await asyncio.gather(store(db, one), store(db, other))]
    assert sorted(type(resolved).__name__ for resolved in done) == ["Refuse", "Store"]


async def test_a_retry_heals_a_key_that_was_left_behind_under_its_own_name(db: Database) -> None:
    id_ = await hold(db)
    await db.jobs.cancel_due(id_)
    await db.session.execute(
        "INSERT INTO job_unique VALUES (job_unique_id('default', 'a'), $1)", id_
    )
    assert await db.retry(id_) is not None
    assert not await is_free(db)


async def test_an_answer_is_kept_with_its_jobs_and_counts_for_a_day(db: Database) -> None:
    jobs = making.new_jobs(3)
    _, at = await db.submissions.store_keyed([Submission(jobs, KEY)])
    answer = await db.submissions.answer(KEY.id)
    assert answer is not None
    assert answer.body == KEY.body
    assert (answer.accepted.at, list(answer.accepted.ids)) == (at, [job.id for job in jobs])
    (done,) = await store(db, Submission(making.new_jobs(3), KEY))
    assert done == Replay(answer.accepted)

    await db.session.execute("UPDATE idempotency_keys SET stored_at = stored_at - interval '1 day'")
    assert await db.submissions.answer(KEY.id) is None
    (anew,) = await store(db, Submission(making.new_jobs(1), KEY))
    assert isinstance(anew, Store)
    answer = await db.submissions.answer(KEY.id)
    assert answer is not None
    assert list(answer.accepted.ids) == list(anew.ids)


async def test_holders_are_told_apart_in_a_stored_answer(db: Database) -> None:
    holder = await hold(db)
    new = making.new_job()
    asked = making.new_job(unique_key="a", return_holder=True)
    (done,) = await store(db, Submission([new, asked], KEY))
    assert isinstance(done, Store)
    assert list(done.ids) == [new.id, holder]
    answer = await db.submissions.answer(KEY.id)
    assert answer is not None
    assert answer.accepted.holders == {holder}


# Expiry


async def outlive(db: Database, id_: JobId) -> None:
    await db.session.execute(
        "UPDATE job_due SET expires_at = clock_timestamp() WHERE job_id = $1", id_
    )


async def test_a_time_to_live_counts_from_the_commit(db: Database) -> None:
    job = making.new_job(ttl_s=60.0)
    now = await db.submissions.store([job])
    for table in ("jobs", "job_due"):
        assert (await db.row(table, job.id))["expires_at"] == now + timedelta(seconds=60)


async def test_what_has_expired_is_not_started_and_said_so(db: Database) -> None:
    id_, other = await db.submit(2, ttl_s=60.0)
    await outlive(db, id_)
    worker = await db.worker()
    assert [run.id for run in await db.jobs.start([id_, other], worker)] == [other]
    (left,) = await db.jobs.left([id_])
    assert left.expired
    assert not left.paused


async def test_the_expired_are_ended_and_no_others(db: Database) -> None:
    ids = await db.submit(4, ttl_s=60.0)
    await db.submit(2)
    for id_ in ids[:3]:
        await outlive(db, id_)
    assert [one.id for one in await db.jobs.expire(2)] == ids[:2]
    assert [one.id for one in await db.jobs.expire(2)] == ids[2:3]
    assert await db.jobs.expire(2) == []
    ended = await db.row("job_ended", ids[0])
    assert (ended["state"], ended["reason"], ended["attempt"]) == ("cancelled", "expired", 0)
    assert await db.count("job_due") == 3


async def test_two_that_expire_at_once_share_the_work(db: Database) -> None:
    ids = await db.submit(40, ttl_s=60.0)
    for id_ in ids:
        await outlive(db, id_)
    steps = await asyncio.gather(*(db.jobs.expire(30) for _ in range(4)))
    assert sorted(one.id for step in steps for one in step) == ids
    counts = await db.session.fetch("SELECT sum(delta)::int FROM queue_counts")
    assert counts[0][0] == 40


async def test_a_job_that_has_started_once_no_longer_expires(db: Database) -> None:
    (run,) = await db.running(1, ttl_s=60.0)
    await db.settle(run, RELEASED)
    assert (await db.row("job_due", run.id))["expires_at"] is None


@pytest.mark.parametrize("passed", [False, True])
async def test_a_second_life_expires_as_the_first_unless_that_time_has_passed(
    db: Database, passed: bool
) -> None:
    (id_,) = await db.submit(ttl_s=60.0)
    await db.jobs.cancel_due(id_)
    if passed:
        await db.session.execute("UPDATE jobs SET expires_at = clock_timestamp()")
    assert await db.retry(id_) is not None
    expires_at = (await db.row("job_due", id_))["expires_at"]
    assert expires_at == (None if passed else (await db.row("jobs", id_))["expires_at"])


async def take_as_another_replica(db: Database, *names: str) -> None:
    for name in names:
        await db.session.fetch("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
