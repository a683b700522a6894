"""Jobs that the engine makes of JSON by itself, held to what the door holds a caller's to.

In: the payload of a started job of kind `workflow`, or what a handler submits while it runs. Out:
what `commands/submit.py` takes. Always holds: defaults are filled in as at the door; what is wrong
is a ValueError that names every fault with its pointer. Times may lie anywhere by now: a job whose
expiry has passed is stored all the same, and expires.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from penstock.api.door import Recipe
from penstock.api.job_body import MEMBER
from penstock.api.linking import faults_of, ids_by_name, link
from penstock.api.problems import Fault
from penstock.api.submissions import Intake, Origin, inner_jobs
from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, Started
from penstock.domain.submission import Submission
from penstock.domain.workflow import NewWorkflow, OnFailure
from penstock.store.workflow_reads import Member

_TOLD_MAX = 10  # faults in a message


@dataclass(frozen=True, slots=True)
class Joining:
    """Whose jobs a handler submits: those of `job`, whose workflow, if it is in one, is
    `workflow_id` and has `there`, as far as the new jobs name any of it."""

    job: Started
    workflow_id: JobId | None = None
    there: Mapping[str, Member] = field(default_factory=dict)


class Within:
    """Makes submissions of what comes from within. `recipe`: as the door has it."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def workflow(self, job: Started) -> Submission:
        """The workflow that a started job of kind `workflow` stands for. Raises ValueError."""
        payload = orjson.loads(job.payload)
        faults: list[Fault] = []
        values = inner_jobs(payload, faults)
        _check(faults)
        workflow = NewWorkflow(
            JobId(self._recipe.mint()),
            payload.get("name") or ids.text(job.id),
            OnFailure(payload.get("on_failure", OnFailure.CONTINUE)),
            job.created_by,
            job.traceparent,
            holder=job.id,
        )
        jobs = self._taken(values, job, workflow.id)
        return Submission(_linked(jobs, {}), workflow=workflow)

    def more(
        self, bodies: Sequence[Mapping[str, Any]], new_ids: Sequence[JobId], to: Joining
    ) -> list[NewJob]:
        """What a handler submits: jobs as POST /v1/workflows/{id}/jobs takes them, with these ids.

        Outside of a workflow a job may go without a name, which counts among these jobs only.
        Raises ValueError.
        """
        if to.workflow_id is None:
            bodies = [{"name": f"job {i}", **body} for i, body in enumerate(bodies)]
        jobs = self._taken(bodies, to.job, to.workflow_id)
        jobs = [replace(job, id=id_) for job, id_ in zip(jobs, new_ids, strict=True)]
        jobs = _linked(jobs, to.there)
        return jobs if to.workflow_id is not None else list(map(_alone, jobs))

    def _taken(
        self, values: Sequence[Any], job: Started, workflow_id: JobId | None
    ) -> list[NewJob]:
        origin = Origin(job.created_by, job.traceparent, suspect=True, workflow_id=workflow_id)
        intake = Intake(self._recipe, origin, None, MEMBER)
        jobs = []
        for i, value in enumerate(values):
            taken = intake.take(value, f"/jobs/{i}")
            if taken is not None:
                jobs.append(taken)
            elif intake.is_full:
                break
        _check([*intake.faults, *intake.twins])
        return jobs


def names_in(bodies: Sequence[Any]) -> list[str]:
    """The names that jobs depend on and that aren't their own: those that `Joining.there` is to
    tell of. Takes anything."""
    jobs = [body for body in bodies if isinstance(body, Mapping)]
    own = {name for job in jobs if isinstance(name := job.get("name"), str)}
    asked = {
        name
        for job in jobs
        if isinstance(names := job.get("depends_on"), list | tuple)
        for name in names
        if isinstance(name, str)
    }
    return sorted(asked - own)


def _linked(jobs: Sequence[NewJob], there: Mapping[str, Member]) -> list[NewJob]:
    _check(faults_of(jobs, there))
    known = ids_by_name(jobs, there)
    return [link(job, known) for job in jobs]


def _alone(job: NewJob) -> NewJob:
    """As a job by itself is stored: it names its parents by their ids, and has no name."""
    return replace(job, name=None, depends_on=tuple(map(ids.text, job.parents)))


def _check(faults: Sequence[Fault]) -> None:
    if not faults:
        return
    told = "; ".join(f"{fault.pointer or 'it'}: {fault.detail}" for fault in faults[:_TOLD_MAX])
    more = len(faults) - _TOLD_MAX
    raise ValueError(told + (f"; and {more} more" if more > 0 else ""))
