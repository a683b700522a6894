"""Workflows at the door: submitting one, looking at it, adding to it, cancelling and retrying it.

Next stations: `commands/submit.py`, `commands/workflows.py`. A workflow is answered with all of its
jobs, made piece by piece: 10,000 of them are some MiB. One that isn't in queues which the caller
sees, all of them, isn't there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from penstock.api import notices, prefer, rates, traces, views
from penstock.api.acceptance import Taken, accept, replayed
from penstock.api.ask import Ask
from penstock.api.batches import listed, take_all
from penstock.api.blame import head_faults, refusal, validated
from penstock.api.entries import entry, only, submission
from penstock.api.gate import PLACE
from penstock.api.idempotency import request_key
from penstock.api.job_body import MEMBER
from penstock.api.linking import linked
from penstock.api.lists import own_queues, page
from penstock.api.problems import Fault, Problem, duplicate, not_found
from penstock.api.queries import Cursors, WorkflowsQuery, one_of
from penstock.api.submissions import Intake, Origin
from penstock.api.waiting import until_over
from penstock.api.workflow_answers import begun, members, shown, written
from penstock.api.workflow_body import HEAD, RETRY_BODY
from penstock.domain import graph, ids
from penstock.domain.audit_log import Entry
from penstock.domain.errors import DuplicateJob, Unavailable
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, State
from penstock.domain.letter import Renewal
from penstock.domain.submission import Accepted, Source, Submission
from penstock.domain.view import WorkflowView
from penstock.domain.workflow import NewWorkflow, OnFailure, RetryPlan, WorkflowState
from penstock.store.workflow_reads import Member, WorkflowFilter

_ID_BYTES = 16
_MEMBER_BYTES = 360  # of a job in an answer, its name and parents aside
_BRIEF_BYTES = 110  # of one that was added
_PLACE = "/jobs/{}"  # where a job stands in a body
_READ_AT_ONCE = 5000


async def create(ask: Ask) -> web.Response:
    """A workflow with its jobs; with `Prefer: wait=N` answered when it is over or the time is
    up."""
    body = ask.body.value
    wrong = head_faults(body, HEAD) or list(
        notices.faults(body.get("notify", ()), "", ask.door.reach)
    )
    values = listed(body, graph.JOBS_MAX, wrong)
    await rates.charge(ask, len(values))
    head = {name: value for name, value in body.items() if name != "jobs"}
    workflow = NewWorkflow(
        JobId(ask.door.minter.mint()),
        head["name"],
        OnFailure(head.get("on_failure", OnFailure.CONTINUE)),
        ask.caller.sub,
        traces.kept(ask.request.headers).trace,
        notify=notices.text(head.get("notify", ())),
    )
    ask.room.foresee(ask.body.size + _MEMBER_BYTES * len(values))
    taken = await accept(ask, [head, *values], _PLACE, partial(_taken, ask, values, workflow.id))
    key = await request_key(ask, [head, *values])
    told = _told_of(ask, workflow.id, taken.jobs)
    submission = Submission(taken.jobs, key, workflow, entry=told, source=Source.WORKFLOW)
    accepted = await _store(ask, submission)
    id_, wait_s = accepted.ids[0], prefer.wait_s(ask.request.headers)
    if wait_s and not ask.request[PLACE].gate.may_wait:
        wait_s = None  # it is accepted: that many wait already is no reason to refuse
    answer = await _end_of_new(ask, id_, wait_s) if wait_s else None
    if answer is None and accepted.replayed:
        answer = await _as_it_stands(ask, id_)
    elif answer is None:
        answer = await written(ask, begun(workflow), members(taken.jobs, accepted.at))
    answer.set_status(201)
    answer.headers["Location"] = f"/v1/workflows/{ids.text(id_)}"
    answer.headers.update(prefer.applied(wait_s) | replayed(accepted))
    return answer


async def add(ask: Ask) -> web.Response:
    """Jobs for a workflow that runs, all or none."""
    values = listed(ask.body.value, graph.JOBS_MAX)
    workflow = await _own(ask)
    await rates.charge(ask, len(values))
    ask.room.foresee(ask.body.size + _BRIEF_BYTES * len(values))
    taken = await accept(ask, values, _PLACE, partial(_taken, ask, values, workflow.id))
    key, told = await request_key(ask, values), _told_of(ask, workflow.id, taken.jobs)
    into, source = workflow.id, Source.WORKFLOW
    submission = Submission(taken.jobs, key, into=into, entry=told, source=source)
    accepted = await _store(ask, submission)
    states = accepted.standing
    if accepted.replayed:
        states = await _states(ask, accepted.ids)
    items = []
    async with ask.door.pace as pace:
        for job, id_ in zip(taken.jobs, accepted.ids, strict=True):
            state = states.get(id_) or views.standing(job, accepted.at)[0]
            items.append({**views.brief(id_, state), "name": job.name})
            if pace.is_over:
                await pace.breathe()
    answer = views.answer({"items": items}, 201)
    answer.headers.update(replayed(accepted))
    return answer


async def show(ask: Ask) -> web.Response:
    """The workflow as it stands; with `Prefer: wait=N` when it is over or the time is up."""
    wait_s = prefer.wait_s(ask.request.headers)
    view = await _own(ask)
    if wait_s and not _is_over(view):
        look = ask.door.workflow_reads.workflow
        view = await until_over(ask, view.id, wait_s, look, _is_over) or view
    answer = await shown(ask, view)
    answer.headers.update(prefer.applied(wait_s))
    return answer


async def list_all(ask: Ask) -> web.Response:
    """Workflows all of whose queues the caller sees, newest first, without their jobs."""
    query = ask.query
    assert isinstance(query, WorkflowsQuery)
    cursors = Cursors("workflows", query, ask.caller)
    position = cursors.position(_ID_BYTES)
    queues = await own_queues(ask, ask.caller)
    of = WorkflowFilter(queues, frozenset(query.state) or None, one_of(query.name))
    if position is not None:
        of = replace(of, below=JobId(position))
    found = await ask.door.workflow_reads.page(of, query.limit)
    items = [views.workflow(view) for view in found.items]
    return page(ask, items, None if found.next is None else cursors.cursor(found.next))


async def cancel(ask: Ask) -> web.Response:
    """Lets nothing of it begin any more."""
    view = await _own(ask)
    await ask.door.workflows.cancel(view.id, _entry(ask, view))
    return await shown(ask, await _own(ask))


async def retry(ask: Ask) -> web.Response:
    """Runs again what didn't succeed; a dry run only tells."""
    asked = validated(RETRY_BODY, ask.body.value)
    view = await _own(ask)
    names, dry_run = asked.get("from_"), asked.get("dry_run", False)
    if names is not None:
        await _check_names(ask, view.id, names)
    renewal = Renewal(by=ask.caller.sub, entry=_entry(ask, view))
    plan = await ask.door.workflows.retry(view.id, names, renewal, dry_run=dry_run)
    if dry_run:
        return views.answer({"dry_run": True, **_told(plan)})
    return await shown(ask, await _own(ask), _told(plan))


async def _taken(ask: Ask, values: list[Any], id_: JobId, now_ms: int | None) -> Taken:
    """The jobs of a request, as those of this workflow."""
    kept = traces.kept(ask.request.headers, len(values))
    origin = Origin(ask.caller.sub, kept.trace, ask.body.suspect, id_, kept.jobs_max)
    intake = Intake(ask.door.recipe, origin, now_ms, MEMBER)
    jobs = await take_all(intake, values, ask.door.pace)
    names = {job.name for job in jobs}
    outside = list({name for job in jobs for name in job.depends_on} - names)
    there: dict[str, Member] = {}
    if ask.key:  # of a workflow that is there already
        for start in range(0, len(outside), _READ_AT_ONCE):
            part = outside[start : start + _READ_AT_ONCE]
            there |= await ask.door.workflow_reads.members(id_, part)
    return Taken(await linked(jobs, there, ask.door.pace), intake.inner_queues)


async def _store(ask: Ask, submission: Submission) -> Accepted:
    ask.request[PLACE].holds(len(submission.jobs))
    ask.body.drop()
    try:
        return await ask.door.submitter.submit(submission)
    except DuplicateJob as error:
        raise duplicate(error, _PLACE) from None


def _entry(ask: Ask, view: WorkflowView) -> Entry:
    """What the audit log tells of a change to a workflow."""
    return entry(ask, ids.text(view.id), only(view.queues))


def _told_of(ask: Ask, id_: JobId, jobs: Sequence[NewJob]) -> Entry | None:
    """And of its jobs."""
    return submission(ask, ids.text(id_), {job.queue for job in jobs}, jobs=len(jobs))


async def _own(ask: Ask) -> WorkflowView:
    """The workflow that the path names; 404 where the caller doesn't see all of its queues."""
    id_ = ids.parse(ask.key)
    view = await ask.door.workflow_reads.workflow(id_) if id_ is not None else None
    if view is None or not all(map(ask.caller.sees, view.queues)):
        raise not_found()
    return view


async def _as_it_stands(ask: Ask, id_: JobId) -> web.Response:
    """One that was submitted before. Raises 410 where it has been pruned since."""
    view = await ask.door.workflow_reads.workflow(id_)
    if view is None:
        raise Problem("gone", f"the workflow {ids.text(id_)} was the answer; it is deleted")
    return await shown(ask, view)


async def _end_of_new(ask: Ask, id_: JobId, wait_s: float) -> web.Response | None:
    """It when it is over or the time is up. It is accepted, so what goes wrong now must not read
    as a refusal."""
    try:
        view = await until_over(ask, id_, wait_s, ask.door.workflow_reads.workflow, _is_over)
        return None if view is None else await shown(ask, view)
    except (Unavailable, Problem):
        return None


async def _states(ask: Ask, among: Sequence[JobId]) -> Mapping[JobId, State]:
    """Of jobs that were added before; what fails now is no refusal."""
    try:
        return await ask.door.reads.states_among(among)
    except Unavailable:
        return {}


async def _check_names(ask: Ask, id_: JobId, names: Sequence[str]) -> None:
    """422 where a retry begins at jobs that the workflow doesn't have."""
    there = await ask.door.workflow_reads.members(id_, names)
    faults = [
        Fault(f"/from/{n}", f"there is no job {graph.short(name)!r}")
        for n, name in enumerate(names)
        if name not in there
    ]
    if faults:
        raise refusal(faults)


def _told(plan: RetryPlan) -> dict[str, Any]:
    return {"again": plan.again, "reused": plan.reused}


def _is_over(view: WorkflowView) -> bool:
    return view.state is not WorkflowState.RUNNING
