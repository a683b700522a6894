"""What leaves the house when a job or a workflow ends: which effects, to whom, under which id. Pure.

A job may ask for them itself (`notify`), rules of the configuration may, and every death is a dead
letter for the broker, where there is one. The id is made of what happened, so that its receiver sees
the same one however often it is sent; a job that dies again after a replay has another attempt.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.workflow import WorkflowState


class Channel(StrEnum):
    DEAD_LETTER = "dead-letter"
    WEBHOOK = "webhook"
    EMAIL = "email"


class On(StrEnum):
    """What may be told of. The last two look at what was told before: the relay decides them."""

    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    FIRST_FAILURE = "first_failure"  # a death after success
    RECOVERY = "recovery"  # success after a death


NOTIFY_ON = (On.SUCCEEDED, On.DEAD, On.CANCELLED)  # what a job or workflow may ask for itself


@dataclass(frozen=True, slots=True)
class Wish:
    """Who is to be told of which ends: a webhook's URL or an e-mail address."""

    on: tuple[On, ...]
    channel: Channel
    endpoint: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A wish of the configuration, for jobs of these queues, kinds (globs) and tags; none: all."""

    name: str
    wish: Wish
    queues: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def covers(self, queue: str, kind: str, tags: Sequence[str]) -> bool:
        return (
            _any_of(self.queues, queue)
            and _any_of(self.kinds, kind)
            and (not self.tags or not set(self.tags).isdisjoint(tags))
        )


def _any_of(globs: Sequence[str], name: str) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has just ended, as far as effects go."""

    id: JobId
    attempt: int
    queue: str
    kind: str
    state: State
    reason: str | None = None
    tags: Sequence[str] = ()
    wishes: Sequence[Wish] = ()


@dataclass(frozen=True, slots=True)
class EndedWorkflow:
    id: JobId
    state: WorkflowState
    wishes: Sequence[Wish] = ()


@dataclass(frozen=True, slots=True)
class NewEffect:
    """An effect as it is written. One of `job` and `workflow` is set."""

    channel: Channel
    endpoint: str
    dedupe: str
    event: str
    state: str
    job: JobId | None = None
    workflow: JobId | None = None
    attempt: int = 0
    reason: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What is told, besides what jobs ask for. `dead_letters`: the topic that deaths go to."""

    dead_letters: str | None = None
    rules: tuple[Rule, ...] = ()
    looks_at: frozenset[State] = field(init=False)

    def __post_init__(self) -> None:
        told = {_STATE_OF[on] for rule in self.rules for on in rule.wish.on}
        object.__setattr__(self, "looks_at", frozenset(told))

    def of_job(self, job: EndedJob) -> list[NewEffect]:
        """Everything that is to be told of a job's end."""
        effects = [_of_job(job, wish, None) for wish in job.wishes if job.state in _told(wish)]
        if job.state in self.looks_at:
            effects += [
                _of_job(job, rule.wish, rule.name)
                for rule in self.rules
                if job.state in _told(rule.wish) and rule.covers(job.queue, job.kind, job.tags)
            ]
        if job.state is State.DEAD and self.dead_letters is not None:
            effects.append(_dead_letter(job, self.dead_letters))
        return effects


_STATE_OF = {
    On.SUCCEEDED: State.SUCCEEDED,
    On.DEAD: State.DEAD,
    On.CANCELLED: State.CANCELLED,
    On.FIRST_FAILURE: State.DEAD,
    On.RECOVERY: State.SUCCEEDED,
}
_WORKFLOW_ON = {
    WorkflowState.SUCCEEDED: On.SUCCEEDED,
    WorkflowState.FAILED: On.DEAD,
    WorkflowState.CANCELLED: On.CANCELLED,
}


def of_workflow(ended: EndedWorkflow) -> list[NewEffect]:
    """Everything that is to be told of a workflow's end; `dead` stands for failed there."""
    on = _WORKFLOW_ON[ended.state]
    event = f"penstock.workflow.{ended.state}.v1"
    return [
        NewEffect(
            wish.channel,
            wish.endpoint,
            f"{ids.text(ended.id)}:{event}:{_short(wish.endpoint)}",
            event,
            ended.state,
            workflow=ended.id,
        )
        for wish in ended.wishes
        if on in wish.on
    ]


def fingerprint(kind: str, error_type: str, place: str) -> str:
    """The same for failures that are alike: 16 hexadecimal digits."""
    return hashlib.sha256(f"{kind}\n{error_type}\n{place}".encode()).hexdigest()[:16]


def _told(wish: Wish) -> Iterable[State]:
    return {_STATE_OF[on] for on in wish.on}


def _event(state: State) -> str:
    return f"penstock.job.{state}.v1"


def _of_job(job: EndedJob, wish: Wish, rule: str | None) -> NewEffect:
    event = _event(job.state)
    told = _short(wish.endpoint if rule is None else f"{rule} {wish.endpoint}")
    dedupe = f"{ids.text(job.id)}:{job.attempt}:{event}:{told}"
    return NewEffect(
        wish.channel,
        wish.endpoint,
        dedupe,
        event,
        job.state,
        job=job.id,
        attempt=job.attempt,
        reason=job.reason,
        rule=rule,
    )


def _dead_letter(job: EndedJob, topic: str) -> NewEffect:
    return NewEffect(
        Channel.DEAD_LETTER,
        topic,
        f"{ids.text(job.id)}:{job.attempt}",
        _event(job.state),
        job.state,
        job=job.id,
        attempt=job.attempt,
        reason=job.reason,
    )


def _short(endpoint: str) -> str:
    return hashlib.sha256(endpoint.encode()).hexdigest()[:12]
