"""Submitting at the door: one job, or a batch.

Next station: `commands/submit.py`. A job is answered with 201 when Postgres has committed it; if
we die before, the caller gets no answer and may find it accepted or not: with an Idempotency-Key he
sends it again.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from penstock.api import prefer, views
from penstock.api.ask import Ask
from penstock.api.batches import listed, take_all, take_one, told
from penstock.api.gate import PLACE
from penstock.api.idempotency import request_key
from penstock.api.jobs import end_of
from penstock.api.problems import Fault, Problem, duplicate, named
from penstock.api.submissions import Intake, Origin
from penstock.api.traces import traceparent
from penstock.domain import ids
from penstock.domain.errors import DuplicateJob, Unavailable
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, NewJob, OnLost, State
from penstock.domain.submission import Accepted, Submission
from penstock.domain.view import JobView

_BRIEF_BYTES = 80  # of a job in the answer to a batch, at most
_BATCH = "/jobs/{}"  # where a job stands in the body of a batch


async def one(ask: Ask) -> web.Response:
    """One job, or the one that holds its unique_key; with `Prefer: wait=N` answered when it is
    over or the time is up."""
    (job,), accepted = await _submit(ask, [ask.body.value], "")
    await ask.door.pace.breathe()  # one commit may have answered for hundreds
    id_, wait_s = accepted.ids[0], prefer.wait_s(ask.request.headers)
    view = await _holder(ask, id_) if accepted.holders else None
    if accepted.replayed and view is None:
        job = await _as_first(ask, job, id_)
    if wait_s and not ask.request[PLACE].gate.may_wait:
        wait_s = None  # the job is accepted: that many wait already is no reason to refuse
    if wait_s and (view is None or view.state not in TERMINAL):
        view = await _end_of_new(ask, id_, wait_s) or view
    if job.id != id_:
        job = replace(job, id=id_)
    body = views.job(view) if view else views.submitted(job, accepted.at)
    answer = views.answer(body, 200 if accepted.holders else 201)
    answer.headers["Location"] = f"/v1/jobs/{ids.text(id_)}"
    answer.headers.update(prefer.applied(wait_s) | _replayed(accepted))
    return answer


async def batch(ask: Ask) -> web.Response:
    """Up to 10,000 jobs, all or none."""
    values = listed(ask.body.value, ask.door.limits.batch_jobs_max)
    ask.room.foresee(len(values) * _BRIEF_BYTES)
    jobs, accepted = await _submit(ask, values, _BATCH)
    states = await _states(ask, accepted.holders)
    answer = views.answer({"items": await told(jobs, accepted, states, ask.door.pace)}, 201)
    answer.headers.update(_replayed(accepted))
    return answer


async def _submit(ask: Ask, values: list[Any], place: str) -> tuple[list[NewJob], Accepted]:
    """Takes in and stores what a request asks for. `place`: of job {} in its body.

    The rules on times don't count where it repeats a request that was accepted (Idempotency-Key):
    what was to come then may have passed by now.
    """
    try:
        jobs = await _taken(ask, values, ask.door.now_ms())
    except Problem as refusal:
        if not (_may_be_late(refusal) and await _was_accepted(ask, values)):
            raise
        jobs = await _taken(ask, values, None)
    _check_queues(ask, jobs, place)
    ask.request[PLACE].holds(len(jobs))
    submission = Submission(jobs, await request_key(ask, values))
    ask.body.drop()
    try:
        return jobs, await ask.door.submitter.submit(submission)
    except DuplicateJob as error:
        raise duplicate(error, place) from None


async def _taken(ask: Ask, values: list[Any], now_ms: int | None) -> list[NewJob]:
    headers, body = ask.request.headers, ask.body
    origin = Origin(ask.caller.sub, traceparent(headers), suspect=body.suspect)
    intake = Intake(ask.door.recipe, origin, now_ms)
    if values[0] is body.value:
        return [await take_one(intake, body, ask.door.pace)]
    return await take_all(intake, values, ask.door.pace)


def _may_be_late(refusal: Problem) -> bool:
    """Whether the same request may have been good earlier."""
    return any(fault.pointer.endswith("/expires_at") for fault in refusal.faults)


async def _was_accepted(ask: Ask, values: Sequence[Any]) -> bool:
    try:
        key = await request_key(ask, values)
    except TypeError:  # what can't be written as JSON again was never accepted
        return False
    answer = await ask.door.submitter.answer(key) if key else None
    return key is not None and answer is not None and answer.body == key.body


def _check_queues(ask: Ask, jobs: Sequence[NewJob], place: str) -> None:
    """403 where a job goes to a queue that the token doesn't open."""
    if ask.caller.queues is None:
        return
    closed = {queue for queue in {job.queue for job in jobs} if not ask.caller.sees(queue)}
    if closed:
        faults = [
            Fault(f"{place.format(i)}/queue", "is not open to this token")
            for i, job in enumerate(jobs)
            if job.queue in closed
        ]
        raise named("forbidden-queue", faults)


async def _holder(ask: Ask, id_: JobId) -> JobView:
    """The job that was there before. It may have ended since, and be pruned: then 410."""
    view = await ask.door.reads.job(id_)
    if view is None:
        raise Problem("gone", f"the job {ids.text(id_)} had this unique_key; it has ended since")
    ask.room.foresee(view.size)
    return view


async def _as_first(ask: Ask, job: NewJob, id_: JobId) -> NewJob:
    """The job of a repeated request with what only the first one knew: the defaults of then, its
    trace. As it is, where that job has been pruned."""
    view = await ask.door.reads.job(id_)
    if view is None:
        return replace(job, traceparent=None)
    return replace(
        job,
        queue=view.queue,
        priority=view.priority,
        max_attempts=view.max_attempts,
        backoff=view.backoff,
        timeout_s=view.timeout_s,
        on_lost=OnLost(view.on_lost),
        traceparent=view.traceparent,
    )


async def _end_of_new(ask: Ask, id_: JobId, wait_s: float) -> JobView | None:
    """As `end_of`; but the job is accepted, so what goes wrong now must not read as a refusal."""
    try:
        view = await end_of(ask, id_, wait_s)
        if view is not None:
            ask.room.foresee(view.size)
        return view
    except (Unavailable, Problem):  # the latter where there is no room for so large a result
        return None


async def _states(ask: Ask, holders: Collection[JobId]) -> dict[JobId, State]:
    """Of jobs that were there before. The batch is stored, so a failure now is no refusal."""
    try:
        return await ask.door.reads.states_among(holders) if holders else {}
    except Unavailable:
        return {}


def _replayed(accepted: Accepted) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if accepted.replayed else {}
