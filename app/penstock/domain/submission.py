"""What a caller submits at once, and what becomes of it where its keys may be taken. Pure.

The store says what it found of the keys, `resolve` says what that means. Submissions of one batch
are looked at in their order, so that of two twins in it the second meets the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from penstock.domain.audit_log import Entry
from penstock.domain.errors import DuplicateJob, KeyBusy, KeyReused, PenstockError
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, State
from penstock.domain.workflow import NewWorkflow

UniqueKey = tuple[str, str]  # queue, unique_key


class Source(StrEnum):
    """Where a life of a job comes from, for those who count."""

    API = "api"  # a job by itself
    BATCH = "batch"
    WORKFLOW = "workflow"  # with it, added to it, or nested
    HANDLER = "handler"  # ctx.submit
    RETRY = "retry"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An Idempotency-Key: 16 bytes made of caller, call and key, 32 of the request's body."""

    id: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs that are stored all together or not at all."""

    jobs: Sequence[NewJob]
    key: RequestKey | None = None
    workflow: NewWorkflow | None = None  # new as well, with these jobs; its id is the answer
    into: JobId | None = None  # the running workflow that these jobs join
    entry: Entry | None = None  # of the audit log; None: a handler submits, or they aren't wanted
    source: Source = Source.API

    @property
    def is_graph(self) -> bool:
        """Whether others' ends may decide about its jobs: it takes a transaction of its own."""
        return (
            self.workflow is not None
            or self.into is not None
            or any(job.parents for job in self.jobs)
        )

    @property
    def has_keys(self) -> bool:
        return self.key is not None or any(job.unique_key is not None for job in self.jobs)

    def unique_keys(self) -> list[UniqueKey]:
        return [(job.queue, job.unique_key) for job in self.jobs if job.unique_key is not None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a submission is answered: `ids` in the order of its jobs, or that of a new workflow;
    `at` the commit's time.

    `holders` are those ids that had been there before. `replayed`: it is the answer of an earlier
    request with the same Idempotency-Key.
    """

    at: datetime
    ids: Sequence[JobId]
    holders: frozenset[JobId] = frozenset()
    replayed: bool = False
    standing: Mapping[JobId, State] = field(default_factory=dict)  # of jobs that have parents


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer, and the body that it was given for."""

    body: bytes
    accepted: Accepted


@dataclass(slots=True)
class Found:
    """What is known of the keys of a batch. `busy_…`: another transaction is taking them.

    `again`: the batch was sent before and nobody knows what came of it; `stored` are those of its
    jobs that are there.
    """

    answers: dict[bytes, Answer] = field(default_factory=dict)
    holders: dict[UniqueKey, JobId] = field(default_factory=dict)
    busy_requests: frozenset[bytes] = frozenset()
    busy_keys: frozenset[UniqueKey] = frozenset()
    again: bool = False
    stored: frozenset[JobId] = frozenset()


@dataclass(frozen=True, slots=True)
class Store:
    """Store `new`; the answer will be `ids`, of which `holders` had been there."""

    new: Sequence[NewJob]
    ids: Sequence[JobId]
    holders: frozenset[JobId]


@dataclass(frozen=True, slots=True)
class Replay:
    accepted: Accepted


@dataclass(frozen=True, slots=True)
class Refuse:
    error: PenstockError


@dataclass(frozen=True, slots=True)
class Again:
    """A twin's transaction is under way: look again when it is over."""


Resolution = Store | Replay | Refuse | Again


def resolve(batch: Sequence[Submission], found: Found) -> list[Resolution]:
    """What to do with each submission; `found` learns what those before it will store."""
    begun: set[bytes] = set()  # requests of this batch: for a second one, they are under way
    return [_resolve(one, found, begun) for one in batch]


def _resolve(one: Submission, found: Found, begun: set[bytes]) -> Resolution:
    key = one.key
    if key is not None:
        answer = found.answers.get(key.id)
        if answer is not None:
            return _answered(one, key, answer)
        if key.id in found.busy_requests and found.again:
            return Again()  # it may be our own first sending that is still under way
        if key.id in found.busy_requests or key.id in begun:
            return Refuse(KeyBusy("a request with this Idempotency-Key is under way"))
    resolution = _placed(one, found)
    if key is not None and isinstance(resolution, Store):
        begun.add(key.id)
    return resolution


def _answered(one: Submission, key: RequestKey, answer: Answer) -> Resolution:
    if answer.body != key.body:
        return Refuse(KeyReused("this Idempotency-Key was used for another body"))
    accepted = answer.accepted
    ours = {job.id for job in one.jobs} | {one.workflow.id if one.workflow else None}
    replayed = ours.isdisjoint(accepted.ids)  # else this is the answer to our own first sending
    return Replay(Accepted(accepted.at, accepted.ids, accepted.holders, replayed))


def _placed(one: Submission, found: Found) -> Resolution:
    if any(key in found.busy_keys and key not in found.holders for key in one.unique_keys()):
        return Again()
    ids: list[JobId] = []
    new: list[NewJob] = []
    held: dict[int, JobId] = {}
    taken: dict[UniqueKey, JobId] = {}  # by this submission; counts only if it is stored
    for i, job in enumerate(one.jobs):
        holder = None
        if job.unique_key is not None and job.id not in found.stored:
            key = (job.queue, job.unique_key)
            holder = found.holders.get(key) or taken.setdefault(key, job.id)
        if holder is None or holder == job.id:  # its own id: it was stored by an earlier sending
            ids.append(job.id)
            new.append(job)
            continue
        ids.append(holder)
        if not job.return_holder:
            held[i] = holder
    if held:
        return Refuse(DuplicateJob(held))
    found.holders.update(taken)
    if one.workflow is not None:
        return Store(new, [one.workflow.id], frozenset())
    return Store(new, ids, frozenset(ids) - {job.id for job in new})
