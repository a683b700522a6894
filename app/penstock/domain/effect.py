"""What leaves the house when a job or a workflow ends: what, to whom, under which id. Pure.

A job may ask for it itself (`notify`), rules of the configuration may, and every death is a dead
letter for the broker, where there is one. The id is made of what happened, so that its receiver
sees the same one however often it is sent; one that dies again after a replay has another attempt.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache

from penstock.domain import ids
from penstock.domain.grouping import Grouping
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.quiet import Window
from penstock.domain.workflow import WorkflowState


class Channel(StrEnum):
    DEAD_LETTER = "dead-letter"
    WEBHOOK = "webhook"
    EMAIL = "email"


class On(StrEnum):
    """What may be told of. The last two are for rules alone, and look at what came before, by queue
    and kind: the relay decides the first of them, and looks for the second."""

    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    FIRST_FAILURE = "first_failure"  # a death after success
    RECOVERY = "recovery"  # success after a death


TEST_EVENT = "penstock.test.v1"  # of an effect without job and workflow, which tells of nothing

NOTIFY_ON = (On.SUCCEEDED, On.DEAD, On.CANCELLED)  # what a job or workflow may ask for itself


@dataclass(frozen=True, slots=True)
class Wish:
    """Who is to be told of which ends: a webhook's URL or an e-mail address."""

    on: tuple[On, ...]
    channel: Channel
    endpoint: str


def wishes_json(wishes: Sequence[Wish]) -> str | None:
    """As a job keeps them, which is as they were asked for; None where there are none."""
    if not wishes:
        return None
    return json.dumps([{"on": list(it.on), it.channel.value: it.endpoint} for it in wishes])


@lru_cache(maxsize=1024)
def wishes_from(text: str | None) -> tuple[Wish, ...]:
    """What `wishes_json` made."""
    return tuple(
        Wish(tuple(map(On, one["on"])), channel, one[channel.value])
        for one in json.loads(text or "[]")
        for channel in (Channel.WEBHOOK, Channel.EMAIL)
        if channel.value in one
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """A wish of the configuration, for jobs of these queues, kinds (globs) and tags; none: all.
    `throttle_s`: at most one message of a queue and kind in so many seconds; `quiet`: when its
    messages wait; `group`: what is told of in one."""

    name: str
    wish: Wish
    queues: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    throttle_s: float = 0.0
    quiet: tuple[Window, ...] = ()
    group: Grouping | None = None

    def covers(self, queue: str, kind: str, tags: Sequence[str]) -> bool:
        return (
            _any_of(self.queues, queue)
            and _any_of(self.kinds, kind)
            and (not self.tags or not set(self.tags).isdisjoint(tags))
        )

    @property
    def looks_back(self) -> bool:
        """Whether what was told before counts."""
        return On.FIRST_FAILURE in self.wish.on or On.RECOVERY in self.wish.on


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
    """One that has just ended, at that time in ms since 1970: it may run again, and end again."""

    id: JobId
    state: WorkflowState
    ended_ms: int
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


_STATE_OF = {
    On.SUCCEEDED: State.SUCCEEDED,
    On.DEAD: State.DEAD,
    On.CANCELLED: State.CANCELLED,
    On.FIRST_FAILURE: State.DEAD,
    On.RECOVERY: State.DEAD,  # it begins what a success ends: successes would be a row each
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What is told, besides what jobs ask for. `dead_letters`: the topic that deaths go to."""

    dead_letters: str | None = None
    rules: tuple[Rule, ...] = ()
    looks_at: frozenset[State] = field(init=False)

    def __post_init__(self) -> None:
        told = {_STATE_OF[on] for rule in self.rules for on in rule.wish.on}
        object.__setattr__(self, "looks_at", frozenset(told))

    def is_silent(self, state: State, notify: str | None) -> bool:
        """Whether nothing is told of any job that ends so and asks for that: most don't."""
        return (
            notify is None
            and state not in self.looks_at
            and (state is not State.DEAD or self.dead_letters is None)
        )

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


TELLS_NOTHING = Policy()

RECOVERED = "penstock.job.recovered.v1"


def of_recovery(job: EndedJob, rule: Rule) -> NewEffect:
    """A success after a death, told by a rule."""
    return replace(
        _of_job(job, rule.wish, rule.name),
        event=RECOVERED,
        dedupe=f"{ids.text(job.id)}:{job.attempt}:{RECOVERED}:{_told_to(rule.wish, rule.name)}",
    )


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
            f"{ids.text(ended.id)}:{ended.ended_ms}:{event}:{_short(wish.endpoint)}",
            event,
            ended.state,
            workflow=ended.id,
        )
        for wish in ended.wishes
        if on in wish.on
    ]


def _told(wish: Wish) -> Iterable[State]:
    return {_STATE_OF[on] for on in wish.on}


def _event(state: State) -> str:
    return f"penstock.job.{state}.v1"


def _of_job(job: EndedJob, wish: Wish, rule: str | None) -> NewEffect:
    event = _event(job.state)
    dedupe = f"{ids.text(job.id)}:{job.attempt}:{event}:{_told_to(wish, rule)}"
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


def _told_to(wish: Wish, rule: str | None) -> str:
    return _short(wish.endpoint if rule is None else f"{rule} {wish.endpoint}")


def _short(endpoint: str) -> str:
    return hashlib.sha256(endpoint.encode()).hexdigest()[:12]


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class WaitsFor(StrEnum):
    """Why an effect wasn't sent when it was claimed before, or that an operator wants it sent."""

    QUIET = "quiet"  # the end of quiet hours
    GROUP = "group"  # others of its group
    RETRY = "retry"  # its endpoint
    ASKED = "asked"  # nothing: whatever its rule says


@dataclass(frozen=True, slots=True)
class EffectFields:
    """What an effect tells, pending or over. `dedupe` is the id that its receiver sees."""

    id: bytes
    channel: Channel
    endpoint: str
    dedupe: str
    event: str
    job: JobId | None
    workflow: JobId | None
    attempt: int
    state: str
    reason: str | None
    rule: str | None
    at: datetime
    tries: int


@dataclass(frozen=True, slots=True)
class Effect(EffectFields):
    """An effect as it was claimed, `now`, by Postgres' clock, under that lease. `tries` counts this
    one, and none of which nobody told how it ended; `lapsed`: the last one was such. `group`: the
    one that it is of; `message`: the effect whose message tells of it, once that is settled;
    `labels`: of that message, as JSON."""

    waits_for: WaitsFor | None = None
    group: bytes | None = None
    message: bytes | None = None
    labels: str | None = None
    lapsed: bool = False
    now: datetime = _LONG_AGO
    lease: bytes = b""

    @property
    def has_failed(self) -> bool:
        """Whether it was sent before, and its endpoint did not take it."""
        waited = self.waits_for is WaitsFor.QUIET and self.tries > 1  # a retry that fell into them
        return waited or self.waits_for is WaitsFor.RETRY

    @property
    def gathers(self) -> bool:
        """Whether others may still join it."""
        return self.group is not None and self.message is None

    @property
    def is_another_s(self) -> bool:
        """Whether another's message tells of it, whatever is asked for."""
        asked = self.waits_for is WaitsFor.ASKED
        return self.message is not None and self.message != self.id and not asked


@dataclass(frozen=True, slots=True)
class Message:
    """What an outlet sends: an effect, and the job or workflow that it tells of as JSON text, as it
    was when it ended. `traceparent`: of its submission."""

    effect: Effect
    data: str
    traceparent: str | None = None


class Fate(StrEnum):
    """What came of a try to deliver."""

    DELIVERED = "delivered"
    LATER = "later"  # it may work another time
    NEVER = "never"  # this message can't be delivered there
    GONE = "gone"  # nothing can any more: the endpoint says so itself
    DROPPED = "dropped"  # nobody wants it: it was not tried
    HELD = "held"  # it waits for the end of quiet hours
    GROUPED = "grouped"  # another's message tells of it


@dataclass(frozen=True, slots=True)
class Delivery:
    """`after_s`: the receiver's own wish for the next try, seconds; `until`: of what is held."""

    fate: Fate
    error: str | None = None
    after_s: float | None = None
    until: datetime | None = None


DELIVERED = Delivery(Fate.DELIVERED)

# Standard Webhooks' schedule, a day and a half in all; mail goes by it too. A broker is tried for
# ever: what dies while it is away must be in its topic in the end.
_WAITS_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
_BROKER_MAX_S = 60.0


def is_last_try(effect: Effect) -> bool:
    """Whether none comes after this one."""
    return effect.channel is not Channel.DEAD_LETTER and effect.tries > len(_WAITS_S)


def wait_s(effect: Effect, delivery: Delivery, chance: float) -> float | None:
    """Seconds until the next try after one that failed; None: there is none. `chance` in [0, 1)
    spreads what failed together over a fifth of the wait."""
    if is_last_try(effect):
        return None
    if effect.channel is Channel.DEAD_LETTER:
        wait = min(2.0 ** min(effect.tries - 1, 10), _BROKER_MAX_S)
    else:
        wait = max(_WAITS_S[effect.tries - 1], delivery.after_s or 0.0)
    return wait * (1 + 0.2 * chance)
