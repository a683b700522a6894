"""The lane of attempts that submitted jobs: these are stored before their attempt is settled.

In: attempts that succeeded, with the jobs that they submitted. Out: the same attempts, on to
settlement; with a failure in place of success where their jobs were refused. Always holds: nobody
else waits behind 10,000 jobs, and nothing is settled before its jobs are stored. If we die here,
the attempt is lost; whoever runs it again submits jobs of the same ids, and what is stored already
is passed over.
"""

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from penstock import chaos, clock
from penstock.commands.submit import Submitter
from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.errors import (
    Contended,
    DuplicateJob,
    NameTaken,
    ParentNotFound,
    PenstockError,
    StoreUnavailable,
    WorkflowNotFound,
    WrongWorkflowState,
)
from penstock.domain.ids import JobId, nth_of, text
from penstock.domain.job import NewJob, Started
from penstock.domain.submission import Submission
from penstock.handlers.gathered import REFUSED
from penstock.handlers.text import cut, one_line
from penstock.loops.backoff import backoff_s
from penstock.store.jobs import Jobs
from penstock.telemetry.logs import get_logger

if TYPE_CHECKING:
    from penstock.loops.settle import Outgoing

_LANES = 32  # under way at once; small ones share a transaction
_IN_A_THREAD = 200  # jobs whose reading is too long for the event loop
_TOLD_MAX = 20  # of what is wrong, in an error's details
_SHOWN_MAX_BYTES = 200
_LAST_SEQ = 2**31 - 1  # of a log line that comes after all of the handler's

Read = Callable[[Started, Sequence[dict[str, Any]]], Submission]
IdsOf = Callable[[JobId, Sequence[str]], Awaitable[Mapping[str, JobId]]]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the nth job that was submitted."""

    ordinal: int
    detail: str


class Fanout:
    """`ids_of(workflow, names)` are the ids of jobs that a workflow has. `read` makes a submission
    of what a job submitted, or raises ValueError; it may be called in a thread."""

    def __init__(self, submitter: Submitter, jobs: Jobs, ids_of: IdsOf) -> None:
        self._submitter = submitter
        self._jobs = jobs
        self._ids_of = ids_of
        self.read: Read  # these two are set by who wires us
        self.on_stored: Callable[[Outgoing], None]
        self._waiting: deque[Outgoing] = deque()
        self._left = 0
        self._filled = asyncio.Semaphore(0)
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, outgoing: "Outgoing") -> None:
        self._waiting.append(outgoing)
        self._left += 1
        self._idle.clear()
        self._filled.release()

    async def run(self) -> None:
        """Stores until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_LANES):
                group.create_task(self._serve())

    async def drained(self) -> None:
        """Returns when all that was put has gone on."""
        await self._idle.wait()

    async def _serve(self) -> None:
        while True:
            await self._filled.acquire()
            outgoing = self._waiting.popleft()
            await self._store(outgoing)
            self.on_stored(outgoing)
            self._left -= 1
            if not self._left:
                self._idle.set()

    async def _store(self, outgoing: "Outgoing") -> None:
        """However long Postgres is away: nobody else knows these jobs."""
        children, outgoing.children = outgoing.children, ()
        job = outgoing.job
        try:
            submission = await self._read_all(job, children)
            await self._submit_until_answered(job, submission)
        except (WrongWorkflowState, WorkflowNotFound) as error:
            outgoing.logs = [*outgoing.logs, _dropped(job, len(children), error)]
        except (PenstockError, ValueError) as error:
            outgoing.ending = _refused(error, children)
        except Exception:  # one job's data must not end the process (A20)
            log.exception("children_refused", job_id=text(job.id))
            outgoing.ending = _failed(
                "penstock could not read them", traceback.format_exc(limit=-5)
            )

    async def _read_all(self, job: Started, children: Sequence[bytes]) -> Submission:
        if len(children) <= _IN_A_THREAD:
            return self._read_now(job, children)
        return await asyncio.to_thread(self._read_now, job, children)

    def _read_now(self, job: Started, children: Sequence[bytes]) -> Submission:
        submission = self.read(job, [orjson.loads(child) for child in children])
        return replace(submission, jobs=numbered(job.id, submission.jobs))

    async def _submit_until_answered(self, job: Started, submission: Submission) -> None:
        """An attempt that isn't ours any more submits nothing: whoever has the job now does."""
        failures = 0
        while True:
            try:
                await chaos.point("before_children")
                if not await self._jobs.still_runs(job):
                    return
                linked = await self._linked(submission)
                # Always as if for the second time: an earlier attempt may have stored them.
                await self._submitter.submit(linked, again=True)
                await chaos.point("after_children")
                return
            except (StoreUnavailable, Contended) as error:
                if failures % 20 == 0:
                    log.warning(
                        "children_wait", job_id=text(job.id), why=str(error), failures=failures
                    )
                failures += 1
                await asyncio.sleep(backoff_s(failures))

    async def _linked(self, submission: Submission) -> Submission:
        """With the ids of parents that go by their names in a workflow. Raises ValueError."""
        into, jobs = submission.into, submission.jobs
        if into is None:
            return submission
        ids = {job.name: job.id for job in jobs if job.name is not None}
        strange = {name for job in jobs for name in job.depends_on} - ids.keys()
        if strange:
            ids |= await self._ids_of(into, sorted(strange))
        return replace(submission, jobs=[_linked(n, job, ids) for n, job in enumerate(jobs, 1)])


def numbered(job: JobId, children: Sequence[NewJob]) -> list[NewJob]:
    """The same, each with the id that it has whenever this job submits it."""
    ids = {one.id: nth_of(job, ordinal) for ordinal, one in enumerate(children, 1)}
    return [
        replace(one, id=ids[one.id], parents=tuple(ids.get(it, it) for it in one.parents))
        for one in children
    ]


def _linked(ordinal: int, job: NewJob, ids: Mapping[str, JobId]) -> NewJob:
    for name in job.depends_on:
        if name not in ids:
            shown = cut(one_line(name), _SHOWN_MAX_BYTES)
            raise ValueError(f"job {ordinal}: the workflow has no job {shown!r} to depend on")
    return replace(job, parents=tuple(ids[name] for name in job.depends_on))


def _dropped(
    job: Started, count: int, error: PenstockError
) -> tuple[JobId, int, int, float, str, str]:
    """A line of the job's log: its workflow was halted while it ran, so nothing more begins."""
    jobs = "job" if count == 1 else "jobs"
    message = cut(f"dropped {count} submitted {jobs}: {error}", _SHOWN_MAX_BYTES)
    return (job.id, job.attempt, _LAST_SEQ, clock.wall_s(), "warning", one_line(message))


def _refused(error: Exception, children: Sequence[bytes]) -> Ending:
    """Running it again would submit the same: a failure for good that says which were wrong."""
    faults = _faults(error)
    if not faults:
        return _failed(str(error))
    told = [
        {"job": fault.ordinal, "kind": _kind(children, fault.ordinal), "detail": fault.detail}
        for fault in faults[:_TOLD_MAX]
    ]
    first = faults[0]
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return _failed(f"job {first.ordinal} ({told[0]['kind']}): {first.detail}{more}", told)


def _faults(error: Exception) -> list[Fault]:
    match error:
        case NameTaken():
            return [
                Fault(place + 1, f"the workflow has a job named {name!r}")
                for place, name in sorted(error.names.items())
            ]
        case ParentNotFound():
            return [
                Fault(place + 1, f"it depends on {text(id_)}, and there is no such job")
                for (place, _), id_ in sorted(error.places.items())
            ]
        case DuplicateJob():
            return [
                Fault(place + 1, f"the job {text(id_)} has its unique_key")
                for place, id_ in sorted(error.holders.items())
            ]
    return []


def _kind(children: Sequence[bytes], ordinal: int) -> Any:
    kind = orjson.loads(children[ordinal - 1]).get("kind")
    return cut(str(kind), _SHOWN_MAX_BYTES)


def _failed(why: str, details: Any = None) -> Ending:
    message = cut(f"the jobs that it submitted were refused: {why}", 2048)
    return Ending(Outcome.FAILED, failure=Failure(REFUSED, message, details), retryable=False)
