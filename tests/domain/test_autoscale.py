"""How many replicas are asked for, in a table."""

from dataclasses import replace

import pytest

from penstock.domain.autoscale import (
    Capacity,
    Cluster,
    Demand,
    Load,
    Rule,
    demand,
    desired_replicas,
    together,
)
from penstock.domain.job import State

RULE = Rule(target_s=30.0, slots=10, replicas_min=0, replicas_max=20)
IDLE = Demand(ready=0, oldest_s=0.0, busy=0, ended_per_s=0.0, replicas=0, slots=0)


def of(**fields: float) -> Demand:
    return replace(IDLE, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        # Nothing to do, and the first of something.
        (of(), 0),
        (of(replicas=3, slots=30), 0),
        (of(ready=1, oldest_s=0.1), 1),
        (of(busy=1, replicas=1, slots=10), 1),
        # What runs needs its slots.
        (of(busy=10, ended_per_s=1, replicas=1, slots=10), 1),
        (of(busy=11, ended_per_s=1, replicas=2, slots=20), 2),
        # Nobody knows how long they take: a slot each.
        (of(ready=55), 6),
        (of(ready=1000), 20),
        # A second each, 10 slots: 300 start within the target in the slots that get free.
        (of(ready=300, busy=10, ended_per_s=10, replicas=1, slots=10), 2),
        (of(ready=3000, busy=10, ended_per_s=10, replicas=1, slots=10), 11),
        # A millisecond each: a long line is nothing.
        (of(ready=3000, busy=10, ended_per_s=10_000, replicas=1, slots=10), 2),
        # An hour each: a short line is much.
        (of(ready=10, busy=10, ended_per_s=10 / 3600, replicas=1, slots=10), 2),
        (of(ready=90, busy=10, ended_per_s=10 / 3600, replicas=1, slots=10), 10),
        # They wait for too long: never fewer, and more where all slots are busy.
        (of(ready=1, oldest_s=31, busy=3, ended_per_s=100, replicas=4, slots=40), 4),
        (of(ready=1, oldest_s=29, busy=3, ended_per_s=100, replicas=4, slots=40), 1),
        (of(ready=1, oldest_s=31, busy=40, ended_per_s=1000, replicas=4, slots=40), 5),
        (of(ready=1, oldest_s=999, busy=200, ended_per_s=1000, replicas=20, slots=200), 20),
    ],
)
def test_replicas_by_age_and_rate(now: Demand, wanted: int) -> None:
    assert desired_replicas(now, RULE) == wanted


@pytest.mark.parametrize(
    ("now", "rule", "wanted"),
    [
        (of(), Rule(replicas_min=2, replicas_max=5), 2),
        (of(ready=10**6), Rule(slots=1, replicas_min=2, replicas_max=5), 5),
        (of(ready=1, replicas=1, slots=100), Rule(replicas_min=0, replicas_max=5), 1),
        # As those that live have them: 40 slots each here; where none lives, the default.
        (of(ready=100, replicas=2, slots=80), Rule(replicas_max=50), 3),
        (of(ready=100), Rule(slots_default=20, replicas_max=50), 5),
    ],
)
def test_bounds_and_the_slots_of_a_replica(now: Demand, rule: Rule, wanted: int) -> None:
    assert desired_replicas(now, rule) == wanted


@pytest.mark.parametrize("ready", [0, 1, 7, 10_000])
@pytest.mark.parametrize("busy", [0, 1, 500])
@pytest.mark.parametrize("rate", [0.0, 0.001, 1.0, 5000.0])
def test_never_none_while_something_is_to_do_and_never_beyond_the_bounds(
    ready: int, busy: int, rate: float
) -> None:
    for oldest_s in (0.0, 5.0, 1e6):
        for replicas in (0, 1, 3, 50):
            now = Demand(ready, oldest_s if ready else 0.0, busy, rate, replicas, replicas * 10)
            found = desired_replicas(now, RULE)
            assert (1 if ready or busy else 0) <= found <= RULE.replicas_max


def load(queue: str, ready: int = 0, busy: int = 0, oldest_s: float = 0.0, **more: bool) -> Load:
    paused = more.get("paused", False)
    return Load(queue, paused, {State.READY: ready, State.DEAD: 1}, oldest_s, busy, 2.0)


CLUSTER = Cluster(
    [
        load("a", 5, 2, 9.0),
        load("b", 7, 1, 3.0),
        load("held", 100, 4, 900.0, paused=True),
        load("mail.x", 1, 0, 1.0),
    ],
    [Capacity(("*",), 2, 20), Capacity(("mail.*",), 1, 5)],
)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (None, Demand(13, 9.0, 7, 8.0, 3, 25)),
        ({"a"}, Demand(5, 9.0, 2, 2.0, 2, 20)),
        ({"a", "b"}, Demand(12, 9.0, 3, 4.0, 2, 20)),
        ({"mail.x"}, Demand(1, 1.0, 0, 2.0, 3, 25)),
        ({"held"}, Demand(0, 0.0, 4, 2.0, 2, 20)),
        ({"nowhere"}, IDLE),
        (set(), IDLE),
    ],
)
def test_what_is_asked_for_is_summed_and_paused_queues_do_not_wait(
    names: set[str] | None, found: Demand
) -> None:
    assert demand(CLUSTER, names) == found


def test_queues_told_together_are_one() -> None:
    one = together("other", CLUSTER.loads)
    assert (one.queue, one.ready, one.counts[State.DEAD]) == ("other", 113, 4)
    assert (one.oldest_s, one.busy, one.paused) == (900.0, 7, False)
