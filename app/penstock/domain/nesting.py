"""Whose references are whose in the payload of a job of kind `workflow`. Pure.

Such a payload is a workflow itself, and its jobs' payloads may refer to their own parents as well.
A reference belongs to the job of the innermost workflow that has parents: those in the payload of
an inner job with `depends_on` are that job's, all others belong to the job of kind `workflow`, if
that one has parents. The door refuses a name that a job beside the inner one has as well: it would
be another's result than was meant.
"""

from dataclasses import dataclass
from typing import Any

from penstock.domain.workflow import KIND


@dataclass(frozen=True, slots=True)
class Aside:
    """A payload that was taken out of its job."""

    job: dict[str, Any]
    payload: Any


def set_aside(payload: Any) -> list[Aside]:
    """Takes out of a workflow, as it is submitted, the payloads whose references are for inside;
    null stands in their place until `put_back`. Takes anything, whatever is wrong with it."""
    found: list[Aside] = []
    todo = [payload]
    while todo:
        for job in inner_jobs(todo.pop()):
            if job.get("depends_on"):
                found.append(Aside(job, job["payload"]))
                job["payload"] = None
            elif job.get("kind") == KIND:
                todo.append(job["payload"])
    return found


def put_back(aside: list[Aside]) -> None:
    """Undoes `set_aside`, in the same payload or in what was made of it in place."""
    for one in aside:
        one.job["payload"] = one.payload


def is_inside(at: str) -> bool:
    """Whether a JSON Pointer into a workflow leads into the payload of one of its jobs."""
    steps = at.split("/")
    return len(steps) > 3 and steps[1] == "jobs" and steps[3] == "payload"


def inner_jobs(payload: Any) -> list[dict[str, Any]]:
    """The jobs of a workflow that have a payload; none where it isn't one."""
    jobs = payload.get("jobs") if isinstance(payload, dict) else None
    found = jobs if isinstance(jobs, list) else []
    return [job for job in found if isinstance(job, dict) and "payload" in job]
