"""The gate: how many requests may be under way, and who is turned away first.

In: requests, by their traffic. Out: a `Place` for each that is let in, else `Overloaded`. Always
holds: each traffic has a limit of its own, so that none takes another's place; health is never
turned away; submissions, which make work for everybody behind, are turned away first: how many
of them may be under way is learned from how long they take (`domain/aimd.py`): requests of those
with one job, jobs of batches, for these take as long as they are large. Who waits for a
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
_FEW_JOBS = 4000  # of batches, in the same sense
_FIRST_JOBS = 8000  # while nothing has been learned
_BATCH_WAITS = 4  # times as long as a submission of one job may a batch wait
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
    BATCH = "batch"


@dataclass(frozen=True, slots=True, eq=False)
class Shut:
    """Why the gate is shut: `reason` for the metric, `detail` for the caller."""

    reason: str
    detail: str
    refused: Counted


@dataclass(slots=True, eq=False)
class _Lane:
    """The requests of one traffic that are under way; `load`: in what is learned of it."""

    full: Shut
    most: int
    slow: Shut
    learned: Aimd | None = None
    count: int = 0
    load: int = 0

    def shut(self) -> Shut | None:
        if self.count >= self.most:
            return self.full
        if self.learned is not None and self.load >= self.learned.limit:
            return self.slow
        return None


class Gate:
    """One for the whole door."""

    def __init__(self, limits: Limits, backlog: Backlog, metrics: Metrics) -> None:
        self.limits = limits
        self.waits = 0
        self._backlog = backlog
        self._metrics = metrics
        most, wait_s = limits.submissions_in_flight_max, limits.submission_wait_max_s
        requests = Aimd(_FEW, most, wait_s)
        jobs = Aimd(_FEW_JOBS, limits.jobs_waiting_max, wait_s * _BATCH_WAITS, _FIRST_JOBS)
        self._lanes = {
            Traffic.HEALTH: self._lane(Traffic.HEALTH, _NO_LIMIT),
            Traffic.CHANGE: self._lane(Traffic.CHANGE, limits.changes_in_flight_max),
            Traffic.READ: self._lane(Traffic.READ, limits.reads_in_flight_max),
            Traffic.SUBMISSION: self._lane(Traffic.SUBMISSION, most, requests),
            Traffic.BATCH: self._lane(Traffic.BATCH, most, jobs),
        }
        many = f"http.jobs_waiting_max ({limits.jobs_waiting_max}) wait for their commit"
        self._many_jobs = self._shut(Traffic.SUBMISSION, "jobs", many)
        waits = f"http.waits_max ({limits.waits_max}) wait for a job already"
        self._many_waits = self._shut(Traffic.READ, "waits", waits)

    def shut(self, traffic: Traffic) -> Shut | None:
        """Why one more can't come in, if so."""
        lane = self._lanes[traffic]
        if why := lane.shut():
            return why
        if lane.learned is not None and self._backlog.jobs >= self.limits.jobs_waiting_max:
            return self._many_jobs
        return None

    def check(self, traffic: Traffic) -> None:
        """Raises Overloaded where one more can't come in."""
        why = self.shut(traffic)
        if why is not None:
            raise _refusal(why)

    def enter(self, traffic: Traffic, jobs: int = 1) -> "Place":
        """A place for a request of so many jobs, about; give it back. Raises Overloaded where there
        is none."""
        self.check(traffic)
        return Place(self, self._lanes[traffic], jobs)

    def enter_submission(self) -> "Place":
        """The same where the gate was found open for one."""
        return Place(self, self._lanes[Traffic.SUBMISSION])

    @property
    def may_wait(self) -> bool:
        """Whether one more may wait for the end of a job."""
        return self.waits < self.limits.waits_max

    def check_waits(self) -> None:
        """Raises Overloaded where one more may not wait."""
        if not self.may_wait:
            raise _refusal(self._many_waits)

    def _lane(self, traffic: Traffic, most: int, learned: Aimd | None = None) -> _Lane:
        name = Traffic.SUBMISSION if traffic is Traffic.BATCH else traffic
        full = f"http.{name}s_in_flight_max ({most}) are under way"
        wait = f"http.submission_wait_max_s ({self.limits.submission_wait_max_s:g}) allows"
        slow = self._shut(traffic, "wait", f"more would wait longer than {wait}")
        return _Lane(self._shut(traffic, "requests", full), most, slow, learned)

    def _shut(self, traffic: Traffic, reason: str, detail: str) -> Shut:
        return Shut(reason, f"{detail}: try again", self._metrics.refused(traffic, reason))


class Place:
    """That of one request under way."""

    __slots__ = ("_is_in", "_jobs", "_lane", "_load", "_since", "gate")

    def __init__(self, gate: Gate, lane: _Lane, jobs: int = 1) -> None:
        lane.count += 1
        self.gate = gate
        self._jobs = self._load = 0
        self._lane = lane
        self._since = clock.monotonic()
        self._is_in = True
        self.holds(jobs)

    def holds(self, jobs: int) -> None:
        """Counts the jobs that it submits; again when they are known better."""
        load = min(jobs, _LARGE)  # else one large batch would shut it for all others
        if self._is_in:
            self._lane.load += load - self._load
        self._jobs, self._load = jobs, load

    def leave(self) -> None:
        """Any number of times."""
        if self._is_in:
            self._is_in = False
            lane = self._lane
            if lane.learned is not None and self._jobs <= _LARGE:
                lane.learned.ended(lane.load, self._load, self._since, clock.monotonic())
            lane.count -= 1
            lane.load -= self._load

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
