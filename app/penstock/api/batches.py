"""From a body to jobs, at a pace: whatever its size, nobody waits for it longer than a few ms.

In: a decoded body, or one that was split. Out: `NewJob`s, or a Problem that names every bad job.
Small jobs are taken in on the loop, in turns; what takes long in a large one is done in a thread
beforehand: pure Python there hands the loop its turn, as `Intake.take` on the loop would not.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.api import views
from penstock.api.blame import refusal
from penstock.api.bodies import LARGE_BYTES, PACED_BYTES, Body, decode, unknown_names
from penstock.api.pace import Pace
from penstock.api.problems import Fault, Problem, named
from penstock.api.submissions import Intake
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, State
from penstock.domain.submission import Accepted
from penstock.domain.workflow import KIND

_FIELDS = frozenset({"jobs"})


async def take_one(intake: Intake, body: Body, pace: Pace) -> NewJob:
    """The job that a body asks for. Raises 422."""
    takes_long = body.size > LARGE_BYTES or _holds_jobs(body.value)
    if body.size <= PACED_BYTES and not takes_long:
        job = intake.take(body.value)
    else:
        async with pace:
            if takes_long:
                await asyncio.to_thread(intake.look_ahead, body.value)
            job = intake.take(body.value)
    if job is None:
        raise intake.refusal()
    return job


def listed(body: dict[str, Any], jobs_max: int, head: Sequence[Fault] | None = None) -> list[Any]:
    """The jobs of a batch, not yet looked into. `head`: what is wrong with the body's other fields,
    where it may have some. Raises 422."""
    values = body.get("jobs")
    faults = unknown_names(body, _FIELDS) if head is None else list(head)
    if not isinstance(values, list):
        faults.append(Fault("/jobs", "must be a list" if "jobs" in body else "is required"))
    elif not 1 <= len(values) <= jobs_max:
        faults.append(Fault("/jobs", f"must have 1 to {jobs_max} jobs, has {len(values)}"))
    if faults or not isinstance(values, list):
        raise refusal(faults)
    return values


async def take_all(intake: Intake, values: list[Any], pace: Pace) -> list[NewJob]:
    """All jobs of a batch, or a Problem. Items of a body that was split are decoded one by one."""
    jobs: list[NewJob] = []
    async with pace:
        for i, value in enumerate(values):
            at = f"/jobs/{i}"
            if type(value) is memoryview:
                job = await _take_part(intake, value, at, pace)
            else:
                if _holds_jobs(value):
                    await asyncio.to_thread(intake.look_ahead, value)
                job = intake.take(value, at)
            if job is not None:
                jobs.append(job)
            elif intake.is_full:
                break
            if pace.is_over:
                await pace.breathe()
    if not intake.is_clean:
        raise intake.refusal()
    return jobs


async def told(
    jobs: list[NewJob], accepted: Accepted, states: Mapping[JobId, State], pace: Pace
) -> list[dict[str, str]]:
    """What is answered for each job; `states` are those of jobs that had been there."""
    items: list[dict[str, str]] = []
    async with pace:
        await asyncio.sleep(0)  # what the commit brought with it has had this turn
        for job, id_ in zip(jobs, accepted.ids, strict=True):
            state = states.get(id_) or views.standing(job, accepted.at)[0]
            items.append(views.brief(id_, state))
            if pace.is_over:
                await pace.breathe()
    return items


async def _take_part(intake: Intake, part: memoryview, at: str, pace: Pace) -> NewJob | None:
    """Decodes an item and takes it in; what was decoded is gone before the next one is."""
    if len(part) > LARGE_BYTES:
        await asyncio.sleep(0)  # to decode it takes a turn of its own
    try:
        value, intake.suspect = decode(bytes(part))
    except Problem as problem:
        if problem.slug == "not-json":
            raise Problem(problem.slug, f"{at}: {problem.detail}") from None
        raise named(problem.slug, [Fault(at, fault.detail) for fault in problem.faults]) from None
    if len(part) > LARGE_BYTES or _holds_jobs(value):
        await pace.breathe()
        await asyncio.to_thread(intake.look_ahead, value)
    return intake.take(value, at)


def _holds_jobs(value: Any) -> bool:
    """Whether a job's payload is a workflow, which takes long to look at for its size."""
    return isinstance(value, dict) and value.get("kind") == KIND
