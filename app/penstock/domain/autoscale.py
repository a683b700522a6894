"""How many replicas the work at hand needs. Pure.

By age and rate, not by length: a thousand jobs that are done in a second need nobody, ten that take
an hour each need ten slots. By Little's law a slot holds a job for `busy / ended per second`; a
slot that is freed takes `target / that` jobs before the oldest has waited for the target.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil

from penstock.domain.job import State


@dataclass(frozen=True, slots=True)
class Load:
    """A queue as all replicas see it. `busy`: slots that it holds; `ended_per_s`: jobs that ran,
    over the last minute."""

    queue: str
    paused: bool
    counts: Mapping[State, int]
    oldest_s: float
    busy: int
    ended_per_s: float

    @property
    def ready(self) -> int:
        return self.counts.get(State.READY, 0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Replicas that live and serve the queues of these globs, and their slots together."""

    globs: Sequence[str]
    replicas: int
    slots: int

    def serves(self, queue: str) -> bool:
        return any(fnmatchcase(queue, glob) for glob in self.globs)


@dataclass(frozen=True, slots=True)
class Cluster:
    loads: Sequence[Load]  # of all queues, by name
    capacity: Sequence[Capacity]


@dataclass(frozen=True, slots=True)
class Demand:
    """What some queues need together, and what they have. What waits in a paused queue counts for
    nothing: no replica would start it."""

    ready: int
    oldest_s: float
    busy: int
    ended_per_s: float
    replicas: int
    slots: int


@dataclass(frozen=True, slots=True)
class Rule:
    """`target_s`: for so long a job may wait. `slots`: of one replica; None: as those that live
    have them, or `slots_default` where none does."""

    target_s: float = 30.0
    slots: int | None = None
    slots_default: int = 500
    replicas_min: int = 1
    replicas_max: int = 10


def together(name: str, loads: Sequence[Load]) -> Load:
    """Some queues as if they were one."""
    counts: Counter[State] = Counter()
    for load in loads:
        counts.update(load.counts)
    return Load(
        name,
        paused=all(load.paused for load in loads),
        counts=counts,
        oldest_s=max(load.oldest_s for load in loads),
        busy=sum(load.busy for load in loads),
        ended_per_s=sum(load.ended_per_s for load in loads),
    )


def demand(cluster: Cluster, names: Collection[str] | None) -> Demand:
    """Of these queues, or of all."""
    loads = [load for load in cluster.loads if names is None or load.queue in names]
    able = [load for load in loads if not load.paused]
    serving = [one for one in cluster.capacity if any(one.serves(load.queue) for load in loads)]
    return Demand(
        ready=sum(load.ready for load in able),
        oldest_s=max((load.oldest_s for load in able), default=0.0),
        busy=sum(load.busy for load in loads),
        ended_per_s=sum(load.ended_per_s for load in loads),
        replicas=sum(one.replicas for one in serving),
        slots=sum(one.slots for one in serving),
    )


def desired_replicas(now: Demand, rule: Rule) -> int:
    """How many replicas there should be, within the bounds.

    Slots for what runs, and for what waits as many as start it within the target. While the oldest
    waits longer than that, never fewer than there are, and one more where every slot is busy. At
    least one while anything runs or waits to be started.
    """
    slots = now.busy + _slots_for_waiting(now, rule.target_s)
    wanted = ceil(slots / _slots_of_one(now, rule))
    if now.ready and now.oldest_s > rule.target_s:
        is_full = now.busy >= now.slots
        wanted = max(wanted, now.replicas + 1 if is_full else now.replicas)
    least = max(rule.replicas_min, 1 if now.ready or now.busy else 0)
    return max(min(wanted, rule.replicas_max), least)


def _slots_for_waiting(now: Demand, target_s: float) -> float:
    """A slot each where nobody knows how long such jobs take, or they take longer than the target:
    one that is taken by another is free too late."""
    if not now.busy or not now.ended_per_s:
        return float(now.ready)
    job_s = now.busy / now.ended_per_s
    return now.ready * min(job_s / target_s, 1.0)


def _slots_of_one(now: Demand, rule: Rule) -> float:
    if rule.slots is not None:
        return rule.slots
    return now.slots / now.replicas if now.slots else rule.slots_default
