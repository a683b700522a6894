"""Workflows of a few jobs, said by name: `woven({"a": [], "b": ["a"]})`."""

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.domain.ids import JobId
from penstock.domain.job import NewJob
from penstock.domain.submission import Submission
from penstock.domain.workflow import NewWorkflow, OnFailure
from tests.support import making


def woven(
    depends_on: Mapping[str, Sequence[str]],
    fields: Mapping[str, Mapping[str, Any]] | None = None,
    on_failure: OnFailure = OnFailure.CONTINUE,
) -> Submission:
    """A new workflow: whom each job depends on, and other fields of some of them."""
    workflow = NewWorkflow(making.job_id(), "woven", on_failure)
    ids = {name: making.job_id() for name in depends_on}
    jobs = [
        making.new_job(
            id=ids[name],
            name=name,
            workflow_id=workflow.id,
            depends_on=tuple(parents),
            parents=tuple(ids[parent] for parent in parents),
            **(fields or {}).get(name, {}),
        )
        for name, parents in depends_on.items()
    ]
    return Submission(jobs, workflow=workflow)


def ids_of(submission: Submission) -> dict[str, JobId]:
    """Its jobs' ids by their names."""
    return {job.name: job.id for job in submission.jobs if job.name is not None}


def loose(*parents: JobId, **fields: Any) -> NewJob:
    """A job that depends on others outside of workflows."""
    names = tuple(parent.hex() for parent in parents)
    return making.new_job(parents=parents, depends_on=names, **fields)
