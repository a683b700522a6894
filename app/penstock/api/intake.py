"""Jobs that the engine makes of JSON by itself, held to what the door holds a caller's to.

In: the payload of a started job of kind `workflow`, or what a handler submits while it runs. Out:
what `commands/submit.py` takes. Always holds: defaults are filled in as at the door; what is wrong
is a ValueError that names every fault with its pointer. Times may lie anywhere by now: a job whose
expiry has passed is stored all the same, and expires.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson

from penstock.api.door import Recipe
from penstock.api.job_body import JOB, MEMBER
from penstock.api.linking import faults_of, ids_by_name, link
from penstock.api.problems import Fault
from penstock.api.submissions import Intake, Origin, inner_jobs
from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, Started
from penstock.domain.submission import Source, Submission
from penstock.domain.workflow import LOOSE, NewWorkflow, OnFailure
from penstock.store.workflow_reads import Member

_TOLD_MAX = 10  # faults in a message


class Within:
    """Makes submissions of what comes from within, from any thread. `recipe`: as the door has it
    just now, but its `mint` must be nobody else's."""

    def __init__(self, recipe: Callable[[], Recipe]) -> None:
        self._mint = recipe().mint
        self._lock = threading.Lock()
        self._recipe = recipe

    def workflow(self, job: Started) -> Submission:
        """The workflow that a started job of kind `workflow` stands for, what its payload refers
        to being in place. Raises ValueError."""
        payload = orjson.loads(job.payload)
        faults: list[Fault] = []
        values = inner_jobs(payload, faults)
        _check(faults)
        workflow = NewWorkflow(
            JobId(self._minted()),
            payload.get("name") or ids.text(job.id),
            OnFailure(payload.get("on_failure", OnFailure.CONTINUE)),
            job.created_by,
            job.traceparent,
            holder=job.id,
        )
        jobs = self._taken(values, job, workflow.id)
        _check(faults_of(jobs, {}))
        known = ids_by_name(jobs, {})
        linked = [link(one, known) for one in jobs]
        return Submission(linked, workflow=workflow, source=Source.WORKFLOW)

    def children(self, job: Started, bodies: Sequence[Any]) -> Submission:
        """The jobs that a handler submitted: in a workflow as POST /v1/workflows/{id}/jobs takes
        them, with parents that are still to be linked by name; else as POST /v1/jobs/batch does.
        Their ids are for telling them apart only. Raises ValueError."""
        into = job.graph_id if job.graph_id not in (None, LOOSE) else None
        if into is None:
            _check(list(_names_outside(bodies)))
        jobs = self._taken(bodies, job, into)
        if into is not None:
            names = {one.name for one in jobs}
            others = {name for one in jobs for name in one.depends_on} - names
            _check(faults_of(jobs, {name: Member(LOOSE, is_skippable=True) for name in others}))
        return Submission(jobs, into=into, source=Source.HANDLER)

    def _taken(
        self, values: Sequence[Any], job: Started, workflow_id: JobId | None
    ) -> list[NewJob]:
        origin = Origin(job.created_by, job.traceparent, suspect=True, workflow_id=workflow_id)
        form = JOB if workflow_id is None else MEMBER
        recipe = replace(self._recipe(), mint=self._minted)
        intake = Intake(recipe, origin, None, form)
        jobs = []
        for i, value in enumerate(values):
            taken = intake.take(value, f"/jobs/{i}")
            if taken is not None:
                jobs.append(taken)
            elif intake.is_full:
                break
        _check([*intake.faults, *intake.twins])
        return jobs

    def _minted(self) -> bytes:
        with self._lock:
            return self._mint()


def _names_outside(bodies: Sequence[Any]) -> Iterator[Fault]:
    """What a handler took for names of jobs though its own is in no workflow."""
    for n, body in enumerate(bodies):
        if "name" in body:
            yield Fault(
                f"/jobs/{n}/name",
                "names, and depends_on by name, work only in a workflow: here leave name out",
            )
        for m, parent in enumerate(body.get("depends_on", ())):
            if isinstance(parent, str) and ids.parse(parent) is None:
                yield Fault(
                    f"/jobs/{n}/depends_on/{m}",
                    "names work only in a workflow: here it holds ids, as ctx.submit answers them",
                )


def _check(faults: Sequence[Fault]) -> None:
    if not faults:
        return
    told = "; ".join(f"{fault.pointer or 'it'}: {fault.detail}" for fault in faults[:_TOLD_MAX])
    more = len(faults) - _TOLD_MAX
    raise ValueError(told + (f"; and {more} more" if more > 0 else ""))
