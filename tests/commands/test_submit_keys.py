"""Submissions with keys: one winner, nobody else disturbed, answers that are lost."""

import asyncio
from typing import Any

import pytest

from penstock.commands import submit as submitting
from penstock.domain.errors import Contended, DuplicateJob, KeyBusy, KeyReused
from penstock.domain.submission import Accepted, RequestKey, Submission
from tests.support import making
from tests.support.still import Still
from tests.support.waiting import eventually
from tests.support.wire import Wire, commit

KEY = RequestKey(b"k" * 16, b"b" * 32)


def one(key: RequestKey | None = None, **fields: Any) -> Submission:
    return Submission([making.new_job(**fields)], key)


async def outcomes(still: Still, *submissions: Submission) -> list[Accepted | BaseException]:
    calls = (still.engine.submitter.submit(submission) for submission in submissions)
    return await asyncio.gather(*calls, return_exceptions=True)


async def counts(still: Still) -> tuple[int, int, int]:
    tables = ("jobs", "job_due", "job_unique")
    first, second, third = [await still.db.count(table) for table in tables]
    return first, second, third


async def test_of_many_at_once_one_gets_the_key(still: Still) -> None:
    done = await outcomes(still, *(one(unique_key="a") for _ in range(50)))
    (winner,) = [answer for answer in done if isinstance(answer, Accepted)]
    refused = [answer for answer in done if isinstance(answer, DuplicateJob)]
    assert len(refused) == 49
    assert {answer.holders[0] for answer in refused} == {winner.ids[0]}
    assert await counts(still) == (1, 1, 1)
    await still.engine.enqueuer.drained()
    assert await still.ready() == list(winner.ids)
    assert still.metric("jobs_submitted_total", queue="default", source="api") == 1


async def test_all_who_ask_for_the_holder_are_answered_with_it(still: Still) -> None:
    done = await outcomes(still, *(one(unique_key="a", return_holder=True) for _ in range(50)))
    accepted = [answer for answer in done if isinstance(answer, Accepted)]
    assert len(accepted) == 50
    assert len({answer.ids[0] for answer in accepted}) == 1
    assert len([answer for answer in accepted if answer.holders]) == 49
    assert await counts(still) == (1, 1, 1)


async def test_one_request_sent_many_times_makes_one_job(still: Still) -> None:
    done = await outcomes(still, *(one(KEY) for _ in range(30)))
    accepted = [answer for answer in done if isinstance(answer, Accepted)]
    (first,) = [answer for answer in accepted if not answer.replayed]
    assert all(answer.ids == first.ids for answer in accepted)
    assert {type(answer) for answer in done} <= {Accepted, KeyBusy}
    (later,) = await outcomes(still, one(KEY))
    assert isinstance(later, Accepted)
    assert later.replayed
    assert (list(later.ids), later.at) == (list(first.ids), first.at)
    assert await counts(still) == (1, 1, 0)


async def test_another_body_under_the_same_key_is_refused(still: Still) -> None:
    await outcomes(still, one(KEY))
    (refused,) = await outcomes(still, one(RequestKey(KEY.id, b"c" * 32)))
    assert isinstance(refused, KeyReused)
    assert await counts(still) == (1, 1, 0)


async def test_those_without_keys_share_a_batch_with_those_who_have_some(still: Still) -> None:
    done = await outcomes(still, *(one(unique_key="a" if n % 3 == 0 else None) for n in range(300)))
    assert len([answer for answer in done if isinstance(answer, Accepted)]) == 201
    assert await counts(still) == (201, 201, 1)


async def test_a_bad_row_beside_a_key_refuses_itself_only(still: Still) -> None:
    done = await outcomes(
        still, one(unique_key="a"), one(payload="{no json"), one(KEY), one(unique_key="b")
    )
    kinds = [type(answer).__name__ for answer in done]
    assert kinds == ["Accepted", "BadRow", "Accepted", "Accepted"]
    assert await counts(still) == (3, 3, 2)


async def test_a_twin_under_way_elsewhere_is_waited_for_by_its_twin_alone(still: Still) -> None:
    async with still.db.session.transaction():
        await still.db.session.fetch(
            "SELECT pg_advisory_xact_lock(hashtextextended('unique default/a', 0))"
        )
        waits = asyncio.create_task(still.engine.submitter.submit(one(unique_key="a")))
        (other,) = await outcomes(still, one(unique_key="b"))
        assert isinstance(other, Accepted)
        assert not waits.done()
    assert len((await waits).ids) == 1


async def test_a_twin_that_never_comes_to_its_end_is_not_waited_for_for_ever(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "_TWIN_LOOKS_MAX", 3)
    async with still.db.session.transaction():
        await still.db.session.fetch(
            "SELECT pg_advisory_xact_lock(hashtextextended('unique default/a', 0))"
        )
        with pytest.raises(Contended):
            await still.engine.submitter.submit(one(unique_key="a"))
    assert await counts(still) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, 2500])
async def test_a_commit_whose_answer_is_lost_is_sent_again_and_is_no_duplicate(
    wired: Still, postgres_wire: Wire, count: int
) -> None:
    await wired.engine.submitter.submit(one(unique_key="before"))
    jobs = [making.new_job(unique_key=f"k{n}") for n in range(count)]
    postgres_wire.lose_answer(commit)
    accepted = await wired.engine.submitter.submit(Submission(jobs, KEY))
    assert postgres_wire.lost.is_set()
    assert list(accepted.ids) == [job.id for job in jobs]
    assert not accepted.replayed
    assert await counts(wired) == (count + 1, count + 1, count + 1)


async def test_what_was_stored_is_ours_though_a_twin_was_waited_for_before_we_knew(
    wired: Still, postgres_wire: Wire
) -> None:
    """The answer is lost, our job ends, and others are taking its key when we ask again."""
    await wired.engine.submitter.submit(one(unique_key="before"))
    submission = one(unique_key="a")
    (id_,) = [job.id for job in submission.jobs]
    postgres_wire.lose_answer(commit)
    submitting = asyncio.create_task(wired.engine.submitter.submit(submission))
    await postgres_wire.lost.wait()
    async with wired.db.session.transaction():
        await wired.db.session.fetch(
            "SELECT pg_advisory_xact_lock(hashtextextended('unique default/a', 0))"
        )
        await wired.db.jobs.cancel_due(id_)

        async def looked_again() -> bool:
            return wired.metric("submissions_keyed_total", outcome="looked-again") >= 1

        await eventually(looked_again, "it met the twin", every_s=0.01)
        await wired.db.session.execute(
            "INSERT INTO job_unique VALUES (job_unique_id('default', 'a'), $1)", making.job_id()
        )
    accepted = await submitting
    assert list(accepted.ids) == [id_]


async def test_a_lost_answer_with_a_unique_key_alone_is_no_duplicate_either(
    wired: Still, postgres_wire: Wire
) -> None:
    await wired.engine.submitter.submit(one(unique_key="before"))
    submission = one(unique_key="a")
    postgres_wire.lose_answer(commit)
    accepted = await wired.engine.submitter.submit(submission)
    assert postgres_wire.lost.is_set()
    assert list(accepted.ids) == [submission.jobs[0].id]
    assert not accepted.holders
    assert await counts(wired) == (2, 2, 2)


async def test_what_may_have_been_stored_before_is_passed_over_whoever_has_its_key_now(
    still: Still,
) -> None:
    submission, submit = one(unique_key="a"), still.engine.submitter.submit
    (id_,) = (await submit(submission)).ids
    await still.engine.changes.cancel(id_)
    await submit(one(unique_key="a"))
    with pytest.raises(DuplicateJob):
        await submit(submission)
    assert (await submit(submission, again=True)).ids == [id_]
    assert await still.db.count("jobs") == 2
