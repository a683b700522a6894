"""Submitting at the door: one job, or a batch.

Next station: `commands/submit.py`. A job is answered with 201 when Postgres has committed it; if
we die before, the caller gets no answer and may find it accepted or not: with an Idempotency-Key he
sends it again.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from penstock.api import entries, prefer, rates, traces, views
from penstock.api.acceptance import Taken, accept, replayed
from penstock.api.ask import Ask
from penstock.api.batches import listed, take_all, take_one, told
from penstock.api.gate import PLACE
from penstock.api.idempotency import request_key
from penstock.api.jobs import end_of
from penstock.api.problems import Problem, duplicate, no_parents
from penstock.api.submissions import Intake, Origin
from penstock.domain import ids
from penstock.domain.audit_log import Entry
from penstock.domain.errors import DuplicateJob, ParentNotFound, Unavailable
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, NewJob, OnLost, State
from penstock.domain.submission import Accepted, Source, Submission
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
        view = await ask.door.reads.job(id_) if job.parents else None
        job = await _as_first(ask, job, id_)
    if wait_s and not ask.request[PLACE].gate.may_wait:
        wait_s = None  # the job is accepted: that many wait already is no reason to refuse
    if wait_s and (view is None or view.state not in TERMINAL):
        view = await _end_of_new(ask, id_, wait_s) or view
    if job.id != id_:
        job = replace(job, id=id_)
    stands = accepted.standing.get(id_)
    body = views.job(view) if view else views.submitted(job, accepted.at, stands)
    answer = views.answer(body, 200 if accepted.holders else 201)
    answer.headers["Location"] = f"/v1/jobs/{ids.text(id_)}"
    answer.headers.update(prefer.applied(wait_s) | replayed(accepted))
    return answer


async def batch(ask: Ask) -> web.Response:
    """Up to 10,000 jobs, all or none."""
    values = listed(ask.body.value, ask.door.limits.batch_jobs_max)
    await rates.charge(ask, len(values))
    ask.room.foresee(len(values) * _BRIEF_BYTES)
    jobs, accepted = await _submit(ask, values, _BATCH)
    states = {**accepted.standing, **await _states(ask, _moved(jobs, accepted))}
    answer = views.answer({"items": await told(jobs, accepted, states, ask.door.pace)}, 201)
    answer.headers.update(replayed(accepted))
    return answer


async def _submit(ask: Ask, values: list[Any], place: str) -> tuple[list[NewJob], Accepted]:
    """Takes in and stores what a request asks for. `place`: of job {} in its body."""
    taken = await accept(ask, values, place, partial(_taken, ask, values))
    ask.request[PLACE].holds(len(taken.jobs))
    told = _entry(ask, taken.jobs, is_one=not place)
    source = Source.BATCH if place else Source.API
    submission = Submission(taken.jobs, await request_key(ask, values), entry=told, source=source)
    ask.body.drop()
    try:
        return taken.jobs, await ask.door.submitter.submit(submission)
    except DuplicateJob as error:
        raise duplicate(error, place) from None
    except ParentNotFound as error:
        raise no_parents(error, place) from None


def _entry(ask: Ask, jobs: Sequence[NewJob], *, is_one: bool) -> Entry | None:
    """What the audit log tells of them."""
    first, last = jobs[0], jobs[-1]
    if is_one:
        return entries.submission(ask, ids.text(first.id), (first.queue,))
    ends = {"first_id": ids.text(first.id), "last_id": ids.text(last.id)}
    return entries.submission(ask, None, {job.queue for job in jobs}, jobs=len(jobs), **ends)


async def _taken(ask: Ask, values: list[Any], now_ms: int | None) -> Taken:
    headers, body = ask.request.headers, ask.body
    kept = traces.kept(headers, len(values))
    origin = Origin(ask.caller.sub, kept.trace, body.suspect, traced_max=kept.jobs_max)
    intake = Intake(ask.door.recipe, origin, now_ms)
    if values[0] is body.value:
        jobs = [await take_one(intake, body, ask.door.pace)]
    else:
        jobs = await take_all(intake, values, ask.door.pace)
    return Taken(jobs, intake.inner_queues)


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
    view = await ask.door.reads.job_as_asked(id_)
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
        expires_at=view.expires_at,
        ttl_s=None,
        notify=view.notify,
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


def _moved(jobs: Sequence[NewJob], accepted: Accepted) -> Collection[JobId]:
    """Those that may stand elsewhere than where they were put just now."""
    if not accepted.replayed:
        return accepted.holders
    pairs = zip(jobs, accepted.ids, strict=True)
    return accepted.holders | {id_ for job, id_ in pairs if job.parents}


async def _states(ask: Ask, holders: Collection[JobId]) -> dict[JobId, State]:
    """Of jobs that may have moved. The batch is stored, so a failure now is no refusal."""
    try:
        return await ask.door.reads.states_among(holders) if holders else {}
    except Unavailable:
        return {}
