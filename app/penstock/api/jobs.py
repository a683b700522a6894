"""Jobs at the door: submitting, looking at, cancelling and retrying them.

Next station: `commands/submit.py`. A job is answered with 201 when Postgres has committed it; if
we die before, the caller gets no answer and may find it accepted or not.
"""

import asyncio

from aiohttp import web

from penstock import clock
from penstock.api import prefer, views
from penstock.api.ask import Ask
from penstock.api.batches import listed, take_all, take_one, told
from penstock.api.problems import Fault, Problem, named, not_found
from penstock.api.submissions import Intake
from penstock.api.traces import traceparent
from penstock.domain import ids
from penstock.domain.errors import Unavailable
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, NewJob
from penstock.domain.view import JobView

_GLANCE_S = 0.05  # shortest time between two looks at a job that is waited for


async def submit(ask: Ask) -> web.Response:
    """One job; with `Prefer: wait=N` answered when it is over or the time is up."""
    _no_idempotency_key(ask)
    job = await take_one(_intake(ask), ask.body, ask.door.pace)
    _check_queues(ask, [job], "")
    committed_at = await ask.door.submitter.submit([job])
    wait_s = prefer.wait_s(ask.request.headers)
    view = await _end_of_new(ask, job.id, wait_s) if wait_s else None
    answer = views.answer(views.job(view) if view else views.submitted(job, committed_at), 201)
    answer.headers["Location"] = f"/v1/jobs/{ids.text(job.id)}"
    answer.headers.update(prefer.applied(wait_s))
    return answer


async def submit_batch(ask: Ask) -> web.Response:
    """Up to 10,000 jobs, all or none."""
    _no_idempotency_key(ask)
    values = listed(ask.body.value, ask.door.limits.batch_jobs_max)
    jobs = await take_all(_intake(ask), values, ask.door.pace)
    _check_queues(ask, jobs, "/jobs/{}")
    committed_at = await ask.door.submitter.submit(jobs)
    return views.answer({"items": await told(jobs, committed_at, ask.door.pace)}, 201)


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
    job = await _own(ask)
    return views.page([views.attempt(one) for one in await ask.door.reads.attempts(job.id)])


async def logs(ask: Ask) -> web.Response:
    """What the handler logged, oldest first."""
    job = await _own(ask)
    return views.page([views.log_line(line) for line in await ask.door.reads.logs(job.id)])


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


def _no_idempotency_key(ask: Ask) -> None:
    if "Idempotency-Key" in ask.request.headers:
        raise Problem("not-supported-yet", "the header Idempotency-Key is not supported yet")


def _intake(ask: Ask) -> Intake:
    return Intake(
        ask.door,
        created_by=ask.caller.sub,
        traceparent=traceparent(ask.request.headers),
        suspect=ask.body.suspect,
    )


def _check_queues(ask: Ask, jobs: list[NewJob], place: str) -> None:
    """403 where a job goes to a queue that the token doesn't open."""
    closed = {queue for queue in {job.queue for job in jobs} if not ask.caller.sees(queue)}
    if closed:
        faults = [
            Fault(f"{place.format(i)}/queue", "is not open to this token")
            for i, job in enumerate(jobs)
            if job.queue in closed
        ]
        raise named("forbidden-queue", faults)
