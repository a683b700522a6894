"""Groups of effects: what a rule tells of in one message. Pure.

The first of a group waits for others; what comes meanwhile is told of with it. What comes later
makes the next message, which waits at least until the group has rested. Ends of different sorts
(`penstock.job.dead.v1`, `penstock.job.recovered.v1`) are never of one group.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MEMBERS_MAX = 10_000  # of one message

_ONE, _MANY = "penstock.job.", "penstock.jobs."


class By(StrEnum):
    """What the members of a group have in common."""

    KIND = "kind"
    QUEUE = "queue"
    ERROR_TYPE = "error_type"
    FINGERPRINT = "fingerprint"


@dataclass(frozen=True, slots=True)
class Grouping:
    """The first of a group waits `wait_s`; messages are `every_s` apart, of `jobs_max` at most."""

    by: tuple[By, ...] = ()
    wait_s: float = 30.0
    every_s: float = 300.0
    jobs_max: int = MEMBERS_MAX


@dataclass(frozen=True, slots=True)
class Fact:
    """What groups are made by, of one effect. `error_type` and `fingerprint`: of deaths alone."""

    effect: bytes
    event: str
    at: datetime
    queue: str
    kind: str
    error_type: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """`key`: which one of its rule's; `labels`: what its members have in common, as JSON."""

    key: str
    labels: str


def grouped(grouping: Grouping, facts: Iterable[Fact]) -> dict[Group, list[Fact]]:
    """Facts by group, the oldest first."""
    groups: dict[Group, list[Fact]] = {}
    for fact in sorted(facts, key=lambda one: (one.at, one.effect)):
        groups.setdefault(_group_of(grouping, fact), []).append(fact)
    return groups


def event_of_many(event: str) -> str:
    """What a message of many is called, by the event of each."""
    return event.replace(_ONE, _MANY, 1)


def tells_of_many(event: str) -> bool:
    return event.startswith(_MANY)


def _group_of(grouping: Grouping, fact: Fact) -> Group:
    labels = {by.value: getattr(fact, by) for by in By if by in grouping.by}
    named = json.dumps([fact.event, labels])
    return Group(hashlib.sha256(named.encode()).hexdigest(), json.dumps(labels))
