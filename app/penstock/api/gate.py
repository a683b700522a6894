"""The gate: how many requests may be under way, and who is turned away first.

In: requests, by their traffic. Out: a `Place` for each that is let in, else `Overloaded`. Always
holds: each traffic has a limit of its own, so that none takes another's place; health is never
turned away; submissions, which make work for everybody behind, are turned away first: how many
of them may be under way is learned from how long they take (`domain/aimd.py`). Who waits for a
job's end (`Prefer: wait`) holds memory only, gives its place back and counts apart. Decision 0015.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from penstock import clock
from penstock.api.door import Limits
from penstock.api.problems import Overloaded
from penstock.commands.backlog import Backlog
from penstock.domain.aimd import Aimd
from penstock.telemetry.metrics import Counted, Metrics

_FEW = 64  # submissions under way are let in however long they take: it keeps us busy
_LARGE = 2000  # jobs; a batch of more takes its time however little there is to do
_NO_LIMIT = 2**63


class Traffic(StrEnum):
    """What a request is, those who go first at the top.

    Health (and the documents, which are bytes in memory) has no limit. Settlements by workers
    elsewhere, once there are such, belong below it: they end work.
    """

    HEALTH = "health"
    CHANGE = "change"
    READ = "read"
    SUBMISSION = "submission"


@dataclass(frozen=True, slots=True, eq=False)
class Shut:
    """Why the gate is shut: `reason` for the metric, `detail` for the caller."""

    reason: str
    detail: str
    refused: Counted


@dataclass(slots=True, eq=False)
class _Lane:
    """The requests of one traffic that are under way."""

    full: Shut
    most: int
    count: int = 0


class Gate:
    """One for the whole door."""

    def __init__(self, limits: Limits, backlog: Backlog, metrics: Metrics) -> None:
        self.limits = limits
        self.waits = 0
        self._backlog = backlog
        self._metrics = metrics
        self._lanes = {
            Traffic.HEALTH: self._lane(Traffic.HEALTH, _NO_LIMIT),
            Traffic.CHANGE: self._lane(Traffic.CHANGE, limits.changes_in_flight_max),
            Traffic.READ: self._lane(Traffic.READ, limits.reads_in_flight_max),
            Traffic.SUBMISSION: self._lane(Traffic.SUBMISSION, limits.submissions_in_flight_max),
        }
        self._submissions = self._lanes[Traffic.SUBMISSION]
        self._learned = Aimd(_FEW, limits.submissions_in_flight_max, limits.submission_wait_max_s)
        wait = f"http.submission_wait_max_s ({limits.submission_wait_max_s:g})"
        self._slow = self._shut(Traffic.SUBMISSION, "wait", f"more would wait longer than {wait}")
        jobs = f"http.jobs_waiting_max ({limits.jobs_waiting_max}) wait for their commit"
        self._many_jobs = self._shut(Traffic.SUBMISSION, "jobs", jobs)
        waits = f"http.waits_max ({limits.waits_max}) wait for a job already"
        self._many_waits = self._shut(Traffic.READ, "waits", waits)

    def shut(self) -> Shut | None:
        """Why one more submission can't come in, if so."""
        if self._submissions.count >= self._learned.limit:
            return self._slow if self._learned.is_lowered else self._submissions.full
        if self._backlog.jobs >= self.limits.jobs_waiting_max:
            return self._many_jobs
        return None

    def check(self, traffic: Traffic) -> None:
        """Raises Overloaded where one more can't come in."""
        if traffic is Traffic.SUBMISSION:
            why = self.shut()
        else:
            lane = self._lanes[traffic]
            why = lane.full if lane.count >= lane.most else None
        if why is not None:
            raise _refusal(why)

    def enter(self, traffic: Traffic) -> "Place":
        """A place; give it back. Raises Overloaded where there is none."""
        self.check(traffic)
        return Place(self, self._lanes[traffic])

    def enter_submission(self) -> "Place":
        """The same where the gate was found open."""
        return Place(self, self._submissions)

    def left(self, lane: _Lane, since: float, jobs: int) -> None:
        """A place is free again."""
        if lane is self._submissions and jobs <= _LARGE:
            self._learned.ended(lane.count, since, clock.monotonic())
        lane.count -= 1

    @property
    def may_wait(self) -> bool:
        """Whether one more may wait for the end of a job."""
        return self.waits < self.limits.waits_max

    def check_waits(self) -> None:
        """Raises Overloaded where one more may not wait."""
        if not self.may_wait:
            raise _refusal(self._many_waits)

    def _lane(self, traffic: Traffic, most: int) -> _Lane:
        detail = f"http.{traffic}s_in_flight_max ({most}) are under way"
        return _Lane(self._shut(traffic, "requests", detail), most)

    def _shut(self, traffic: Traffic, reason: str, detail: str) -> Shut:
        return Shut(reason, f"{detail}: try again", self._metrics.refused(traffic, reason))


class Place:
    """That of one request under way; `jobs`: those that it submits."""

    __slots__ = ("_is_in", "_lane", "_since", "gate", "jobs")

    def __init__(self, gate: Gate, lane: _Lane) -> None:
        lane.count += 1
        self.gate = gate
        self.jobs = 1
        self._lane = lane
        self._since = clock.monotonic()
        self._is_in = True

    def leave(self) -> None:
        """Any number of times."""
        if self._is_in:
            self._is_in = False
            self.gate.left(self._lane, self._since, self.jobs)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """To wait in; the place itself is free from now on. Raises Overloaded."""
        gate = self.gate
        gate.check_waits()
        self.leave()
        gate.waits += 1
        try:
            yield
        finally:
            gate.waits -= 1


def _refusal(why: Shut) -> Overloaded:
    why.refused.inc()
    return Overloaded(why.detail)


# Where a request keeps its place; `Connection` gives it back when the request is answered.
PLACE = web.RequestKey("place", Place)
