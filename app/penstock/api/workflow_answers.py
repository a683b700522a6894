"""A workflow as it is answered, with all of its jobs: made job by job, so that nobody waits for it.

In: what the store read, or what was just submitted. Out: the answer. Always holds: its counts are
those of the jobs in it; to be looked at, a large one needs room, which a change that was made
doesn't ask for any more.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.room import SMALL_MAX_BYTES
from penstock.domain.job import NewJob, State
from penstock.domain.view import MemberView, WorkflowView
from penstock.domain.workflow import NewWorkflow, WorkflowState


async def shown(
    ask: Ask, view: WorkflowView, more: Mapping[str, Any] | None = None
) -> web.Response:
    """A workflow with its jobs as they stand, and what else is to be said. Raises 503 where there
    is no room to look at it."""
    return await written(ask, view, await ask.door.workflow_reads.jobs(view.id), more)


async def written(
    ask: Ask,
    view: WorkflowView,
    members: Iterable[MemberView],
    more: Mapping[str, Any] | None = None,
) -> web.Response:
    parts: list[bytes] = []
    counts: Counter[State] = Counter()
    size = room = 0
    async with ask.door.pace as pace:
        for one in members:
            counts[one.state] += 1
            parts.append(orjson.dumps(views.member(one)))
            size += len(parts[-1])
            if size > room + SMALL_MAX_BYTES and ask.request.method == "GET":
                ask.room.foresee(room := size)
            if pace.is_over:
                await pace.breathe()
        jobs = orjson.Fragment(b"[" + b",".join(parts) + b"]")
        head = views.workflow(replace(view, counts=counts))
    dead = await ask.door.workflow_reads.dead_jobs(view.id) if counts[State.DEAD] else []
    told = {**head, "dead_jobs": list(map(views.dead_job, dead)), "jobs": jobs}
    return views.answer({**told, **(more or {})})


def begun(workflow: NewWorkflow) -> WorkflowView:
    """One that was stored just now; its jobs are counted when they are written."""
    return WorkflowView(
        id=workflow.id,
        name=workflow.name,
        state=WorkflowState.RUNNING,
        on_failure=workflow.on_failure,
        queues=(),
        counts={},
        halt=None,
        held_by=workflow.holder,
        created_by=workflow.created_by,
        traceparent=workflow.traceparent,
        finished_at=None,
        notify=workflow.notify,
    )


def members(jobs: Sequence[NewJob], at: datetime) -> Iterator[MemberView]:
    """Its jobs as they stood when they were committed `at`."""
    for job in jobs:
        yield MemberView(
            id=job.id,
            name=job.name or "",
            kind=job.kind,
            queue=job.queue,
            state=views.standing(job, at)[0],
            depends_on=job.depends_on,
            run_if=job.run_if if job.depends_on else None,
            attempt=0,
            started_at=None,
            finished_at=None,
        )
