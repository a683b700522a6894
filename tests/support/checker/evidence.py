"""What the checker holds PostgreSQL and Redis against, and what it answers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.support.execution_log import Event


class Said(StrEnum):
    """What a caller knows of his request. A time-out, a reset and a 5xx are `unknown`, never
    `failed`: that is only what was surely not stored (a 4xx, a connection that was refused)."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Submitted:
    """One line of the submission log: one request. Its `marker` is a tag of each of its `count`
    jobs; requests that repeat an Idempotency-Key (`key`) have one body, and so one marker. `ids`:
    what was answered, in order."""

    marker: str
    said: Said
    count: int = 1
    ids: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Drained:
    """A replica that was sent SIGTERM. Times in seconds since 1970; `status`: its exit status."""

    pid: int
    signalled_at: float
    exited_at: float
    status: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What a replica was found to use, by name: {"rss_bytes": 1e8, "fds": 40}."""

    replica: str
    used: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Evidence:
    """`unknown`: how many jobs may be there or not, whoever asked for them; `overlaps_max`: how
    often two attempts of one job may have run at once. What is left out isn't held against
    anything.

    `lost_max`: how many attempts may be lost: none where nobody died and nobody was stopped for
    longer than a time to live. `late_max_s`: what is due starts so soon. `canaries` must stand in
    none of `texts`, nor in what was stored of errors and logs. `caps`: of samples, by their names.
    """

    accepted: Collection[str]
    events: Collection[Event]
    unknown: int = 0
    overlaps_max: int = 0
    submitted: Collection[Submitted] = ()
    drains: Collection[Drained] = ()
    samples: Collection[Sample] = ()
    caps: Mapping[str, float] = field(default_factory=dict)
    canaries: Collection[str] = ()
    texts: Collection[Path] = ()
    late_max_s: float | None = None
    lost_max: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; nothing of it is a fault."""

    jobs: int
    outcomes: dict[str, int]
    overlaps: int
    recovered: int  # unknown submissions that were accepted
    late_s: float = 0.0  # the latest start after its time


class Violations(AssertionError):
    """The rules that don't hold: `broken`, by name, with all of their offenders."""

    def __init__(self, broken: Mapping[str, Collection[str]]) -> None:
        self.broken = {name: sorted(found) for name, found in broken.items()}
        lines = [
            f"{name}: {len(found)} offend, such as {', '.join(found[:_SHOWN])}"
            for name, found in self.broken.items()
        ]
        super().__init__("\n".join(["these rules don't hold:", *lines]))


_SHOWN = 3  # offenders of a rule that a failure shows
