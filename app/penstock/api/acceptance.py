"""Whether what was taken in may be submitted: by its times, its parents, its queues.

In: how a request's jobs are taken in. Out: the jobs, or a Problem. Always holds: a request that
repeats one that was accepted (Idempotency-Key) isn't refused for what was good then: what was to
come may have passed, parents may have been pruned, a kind may be refused since.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.api.ask import Ask
from penstock.api.blame import refusal
from penstock.api.idempotency import request_key
from penstock.api.problems import Fault, Problem, named, no_parents
from penstock.domain import graph
from penstock.domain.errors import ParentNotFound
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob
from penstock.domain.submission import Accepted

_READ_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Taken:
    """`inner_queues`: where workflows in payloads name a queue."""

    jobs: list[NewJob]
    inner_queues: Mapping[str, str] = field(default_factory=dict)


Take = Callable[[int | None], Awaitable[Taken]]  # by Postgres' time; None: times may lie anywhere


async def accept(ask: Ask, parts: Sequence[Any], place: str, take: Take) -> Taken:
    """Takes in what a request asks for, whose body says `parts`. `place`: of job {} in it."""
    try:
        taken = await take(ask.door.now_ms())
        await _check_parents(ask, taken.jobs, place)
    except Problem as problem:
        if not (_was_good(problem) and await _was_accepted(ask, parts)):
            raise
        taken = await take(None)
    _check_queues(ask, taken, place)
    return taken


def replayed(accepted: Accepted) -> dict[str, str]:
    """The header that says that an answer was given before."""
    return {"Idempotent-Replayed": "true"} if accepted.replayed else {}


def _was_good(problem: Problem) -> bool:
    """Whether the same request may have been good earlier."""
    return any(
        fault.pointer.endswith(("/expires_at", "/kind")) or "/depends_on/" in fault.pointer
        for fault in problem.faults
    )


async def _was_accepted(ask: Ask, parts: Sequence[Any]) -> bool:
    try:
        key = await request_key(ask, parts)
    except TypeError:  # what can't be written as JSON again was never accepted
        return False
    answer = await ask.door.submitter.answer(key) if key else None
    return key is not None and answer is not None and answer.body == key.body


async def _check_parents(ask: Ask, jobs: Sequence[NewJob], place: str) -> None:
    """422 where a job by itself depends on one that isn't there, or isn't for this caller."""
    loose = [job for job in jobs if job.parents and job.workflow_id is None]
    if not loose:
        return
    edges = sum(len(job.parents) for job in loose)
    if edges > graph.EDGES_MAX:
        told = f"have {edges} dependencies; {graph.EDGES_MAX} may be submitted at once"
        raise refusal([Fault("/jobs", told)])
    wanted = list({parent for job in loose for parent in job.parents})
    queues: dict[JobId, str] = {}
    for start in range(0, len(wanted), _READ_AT_ONCE):
        queues |= await ask.door.reads.queues_of(wanted[start : start + _READ_AT_ONCE])
    missing = {id_ for id_ in wanted if id_ not in queues or not ask.caller.sees(queues[id_])}
    if missing:
        raise no_parents(ParentNotFound(dict(_places(jobs, missing))), place)


def _places(jobs: Sequence[NewJob], ids: set[JobId]) -> Iterable[tuple[tuple[int, int], JobId]]:
    for i, job in enumerate(jobs):
        for n, parent in enumerate(job.parents):
            if parent in ids:
                yield (i, n), parent


def _check_queues(ask: Ask, taken: Taken, place: str) -> None:
    """403 where a job goes to a queue that the token doesn't open, itself or by its payload."""
    if ask.caller.queues is None:
        return
    queues = {job.queue for job in taken.jobs}
    closed = {queue for queue in queues if not ask.caller.sees(queue)}
    faults = [
        Fault(f"{place.format(i)}/queue", "is not open to this token")
        for i, job in enumerate(taken.jobs)
        if job.queue in closed
    ]
    faults += [
        Fault(at, "is not open to this token")
        for queue, at in taken.inner_queues.items()
        if not ask.caller.sees(queue)
    ]
    if faults:
        raise named("forbidden-queue", faults)
