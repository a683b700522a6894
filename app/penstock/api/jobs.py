"""Jobs at the door: submitting, looking at, cancelling and retrying them.

Next station: `commands/submit.py`. A job is answered with 201 when Postgres has committed it; if
we die before, the caller gets no answer and may find it accepted or not.
"""

import asyncio
import struct
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from penstock import clock
from penstock.api import prefer, views
from penstock.api.ask import Ask
from penstock.api.idempotency import request_key
from penstock.api.lists import cut, page
from penstock.api.problems import Fault, Problem, duplicate, named, not_found, step
from penstock.api.queries import Cursors, PageQuery
from penstock.api.submissions import Intake, Origin
from penstock.api.traces import traceparent
from penstock.domain import ids
from penstock.domain.errors import DuplicateJob, Unavailable
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, NewJob, State
from penstock.domain.submission import Accepted, Submission
from penstock.domain.view import JobView

_NUMBER = struct.Struct(">i")  # positions in lists: an attempt,
_LINE = struct.Struct(">ii")  # and a line of one
_SLICE = 250  # jobs validated before others get their turn
_GLANCE_S = 0.05  # shortest time between two looks at a job that is waited for


async def submit(ask: Ask) -> web.Response:
    """One job, or the one that holds its unique_key; with `Prefer: wait=N` answered when it is
    over or the time is up."""
    values = [ask.body.value]
    (job,) = await _take(ask, values, "")
    accepted = await _accept(ask, Submission([job], await request_key(ask, values)), "")
    id_, wait_s = accepted.ids[0], prefer.wait_s(ask.request.headers)
    view = await _holder(ask, id_) if accepted.holders else None
    if accepted.replayed and view is None:
        job = replace(job, traceparent=await _traceparent_of(ask, id_))
    if wait_s and (view is None or view.state not in TERMINAL):
        view = await _end_of_new(ask, id_, wait_s) or view
    body = views.job(view) if view else views.submitted(replace(job, id=id_), accepted.at)
    answer = views.answer(body, 200 if accepted.holders else 201)
    answer.headers["Location"] = f"/v1/jobs/{ids.text(id_)}"
    answer.headers.update(prefer.applied(wait_s) | _replayed(accepted))
    return answer


async def submit_batch(ask: Ask) -> web.Response:
    """Up to 10,000 jobs, all or none."""
    values = _listed(ask.body.value, ask.door.limits.batch_jobs_max)
    jobs = await _take(ask, values, "/jobs/{}")
    accepted = await _accept(ask, Submission(jobs, await request_key(ask, values)), "/jobs/{}")
    states = await _states(ask, accepted.holders)
    items = [
        views.brief(id_, states.get(id_) or views.standing(job, accepted.at)[0])
        for job, id_ in zip(jobs, accepted.ids, strict=True)
    ]
    answer = views.answer({"items": items}, 201)
    answer.headers.update(_replayed(accepted))
    return answer


async def show(ask: Ask) -> web.Response:
    """The job as it stands; with `Prefer: wait=N` when it is over or the time is up."""
    wait_s = prefer.wait_s(ask.request.headers)
    view = await _own(ask)
    if wait_s and view.state not in TERMINAL:
        view = await _end(ask, view.id, wait_s) or view
    answer = views.answer(views.job(view))
    answer.headers.update(prefer.applied(wait_s))
    return answer


async def attempts(ask: Ask) -> web.Response:
    """What has been tried, oldest first."""
    query = ask.query
    assert isinstance(query, PageQuery)
    cursors = Cursors(f"attempts {ask.key}", query, ask.caller)
    (after,) = _NUMBER.unpack(cursors.position(_NUMBER.size) or _NUMBER.pack(0))
    job = await _own(ask)
    found = await ask.door.reads.attempts(job.id, after, query.limit + 1)
    following = cut(query, found, lambda view: _NUMBER.pack(view.attempt))
    items = [views.attempt(one) for one in found]
    return page(ask, items, cursors.cursor(following) if following else None)


async def logs(ask: Ask) -> web.Response:
    """What the handler logged, oldest first."""
    query = ask.query
    assert isinstance(query, PageQuery)
    cursors = Cursors(f"logs {ask.key}", query, ask.caller)
    attempt, seq = _LINE.unpack(cursors.position(_LINE.size) or _LINE.pack(0, 0))
    job = await _own(ask)
    found = await ask.door.reads.logs(job.id, (attempt, seq), query.limit + 1)
    following = cut(query, found, lambda view: _LINE.pack(view.attempt, view.seq))
    items = [views.log_line(line) for line in found]
    return page(ask, items, cursors.cursor(following) if following else None)


async def cancel(ask: Ask) -> web.Response:
    job = await _own(ask)
    await ask.door.changes.cancel(job.id)
    return views.answer(views.job(await _own(ask)))


async def retry(ask: Ask) -> web.Response:
    """A new life for a job that is dead, cancelled or skipped."""
    job = await _own(ask)
    await ask.door.changes.retry(job.id)
    return views.answer(views.job(await _own(ask)))


async def _own(ask: Ask) -> JobView:
    """The job that the path names; one in a queue that the caller doesn't see isn't there."""
    id_ = ids.parse(ask.key)
    view = await ask.door.reads.job(id_) if id_ is not None else None
    if view is None or not ask.caller.sees(view.queue):
        raise not_found()
    return view


async def _end(ask: Ask, id_: JobId, wait_s: float) -> JobView | None:
    """The job when it is over, or as it stands when the time is up."""
    until = clock.monotonic() + wait_s
    while True:
        began = clock.monotonic()
        await ask.door.waiters.wait(id_, max(until - began, 0.0))
        view = await ask.door.reads.job(id_)
        if view is None or view.state in TERMINAL or clock.monotonic() >= until:
            return view
        if clock.monotonic() - began < _GLANCE_S:
            await asyncio.sleep(_GLANCE_S)


async def _end_of_new(ask: Ask, id_: JobId, wait_s: float) -> JobView | None:
    """As `_end`; but the job is accepted, so what goes wrong now must not read as a refusal."""
    try:
        return await _end(ask, id_, wait_s)
    except Unavailable:
        return None


async def _take(ask: Ask, values: Sequence[Any], place: str) -> list[NewJob]:
    """The jobs that a request asks for. `place`: of job {} in its body.

    The rules on times don't count where it repeats a request that was accepted (Idempotency-Key):
    what was to come then may have passed by now.
    """
    jobs, refusal = await _validated(ask, values, place, ask.door.now_ms())
    if refusal is not None and _may_be_late(refusal) and await _was_accepted(ask, values):
        jobs, refusal = await _validated(ask, values, place, None)
    if refusal is not None:
        raise refusal
    return jobs


async def _validated(
    ask: Ask, values: Sequence[Any], place: str, now_ms: int | None
) -> tuple[list[NewJob], Problem | None]:
    """Validates in slices, so that a large batch doesn't hold up everybody else."""
    headers, body = ask.request.headers, ask.body
    intake = Intake(
        ask.door, Origin(ask.caller.sub, traceparent(headers), suspect=body.suspect), now_ms
    )
    jobs: list[NewJob] = []
    for i, value in enumerate(values):
        if i and i % _SLICE == 0:
            await asyncio.sleep(0)
            if intake.is_full:
                break
        job = intake.take(value, place.format(i))
        if job is not None:
            jobs.append(job)
    return jobs, intake.refusal()


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


async def _accept(ask: Ask, submission: Submission, place: str) -> Accepted:
    _check_queues(ask, submission.jobs, place)
    try:
        return await ask.door.submitter.submit(submission)
    except DuplicateJob as error:
        raise duplicate(error, place) from None


async def _holder(ask: Ask, id_: JobId) -> JobView:
    """The job that was there before. It may have ended since, and be pruned: then 410."""
    view = await ask.door.reads.job(id_)
    if view is None:
        raise Problem("gone", f"the job {ids.text(id_)} had this unique_key; it has ended since")
    return view


async def _traceparent_of(ask: Ask, id_: JobId) -> str | None:
    """That of the first request, which a repeated one has not."""
    view = await ask.door.reads.job(id_)
    return None if view is None else view.traceparent


async def _states(ask: Ask, holders: Collection[JobId]) -> dict[JobId, State]:
    """Of jobs that were there before. The batch is stored, so a failure now is no refusal."""
    try:
        return await ask.door.reads.states_among(holders) if holders else {}
    except Unavailable:
        return {}


def _replayed(accepted: Accepted) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if accepted.replayed else {}


def _listed(body: dict[str, Any], jobs_max: int) -> list[Any]:
    """The jobs of a batch, not yet looked into."""
    values = body.get("jobs")
    faults = [Fault(step(name), "is not a known field") for name in body if name != "jobs"]
    if not isinstance(values, list):
        faults.append(Fault("/jobs", "must be a list" if "jobs" in body else "is required"))
    elif not 1 <= len(values) <= jobs_max:
        faults.append(Fault("/jobs", f"must have 1 to {jobs_max} jobs, has {len(values)}"))
    if faults or not isinstance(values, list):
        raise named("validation-failed", faults)
    return values


def _check_queues(ask: Ask, jobs: Sequence[NewJob], place: str) -> None:
    """403 where a job goes to a queue that the token doesn't open."""
    closed = {queue for queue in {job.queue for job in jobs} if not ask.caller.sees(queue)}
    if closed:
        faults = [
            Fault(f"{place.format(i)}/queue", "is not open to this token")
            for i, job in enumerate(jobs)
            if job.queue in closed
        ]
        raise named("forbidden-queue", faults)
