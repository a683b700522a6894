"""The gate: how many requests may be under way, and who is turned away first.

In: requests, by their traffic. Out: a `Place` for each that is let in, else `Overloaded`. Always
holds: each traffic has a limit of its own, so that none takes another's place; health is never
turned away; submissions, which make work for everybody behind, are turned away first: how many
of them may be under way is learned from how long they take (`domain/aimd.py`). Who waits for a
job's end (`Prefer: wait`) holds memory only, gives its place back and counts apart. Decision 0015.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from penstock import clock
from penstock.api.door import Limits
from penstock.api.problems import Overloaded
from penstock.commands.backlog import Backlog
from penstock.domain.aimd import Aimd
from penstock.telemetry.metrics import Metrics

_FEW = 64  # submissions under way are let in however long they take: it keeps us busy
_LARGE = 2000  # jobs; a batch of more takes its time however little there is to do


class Traffic(StrEnum):
    """What a request is, those who go first at the top.

    Health (and the documents, which are bytes in memory) has no limit. `SETTLEMENT`: what workers
    elsewhere report; it ends work, so it comes before all that begins or looks at some.
    """

    HEALTH = "health"
    SETTLEMENT = "settlement"
    CHANGE = "change"
    READ = "read"
    SUBMISSION = "submission"


@dataclass(frozen=True, slots=True)
class Shut:
    """Why the gate is shut: `reason` for the metric, `detail` for the caller."""

    reason: str
    detail: str


class Gate:
    """One for the whole door."""

    def __init__(self, limits: Limits, backlog: Backlog, metrics: Metrics) -> None:
        self.limits = limits
        self._backlog = backlog
        self._metrics = metrics
        self._max: Mapping[Traffic, int] = {
            Traffic.CHANGE: limits.changes_in_flight_max,
            Traffic.READ: limits.reads_in_flight_max,
            Traffic.SUBMISSION: limits.submissions_in_flight_max,
        }
        self._full = {
            traffic: Shut("requests", f"http.{traffic}s_in_flight_max ({most}) are under way")
            for traffic, most in self._max.items()
        }
        self._many_jobs = Shut(
            "jobs", f"http.jobs_waiting_max ({limits.jobs_waiting_max}) wait for their commit"
        )
        wait_s = limits.submission_wait_max_s
        self._slow = Shut(
            "wait", f"more would wait longer than http.submission_wait_max_s ({wait_s:g})"
        )
        self._learned = Aimd(_FEW, limits.submissions_in_flight_max, wait_s)
        self.waits = 0
        self.in_flight = dict.fromkeys(Traffic, 0)

    def shut(self, traffic: Traffic) -> Shut | None:
        """Why one more can't come in, if so."""
        count = self.in_flight[traffic]
        if traffic is not Traffic.SUBMISSION:
            most = self._max.get(traffic)
            return self._full[traffic] if most is not None and count >= most else None
        if count >= self._learned.limit:
            return self._slow if self._learned.is_lowered else self._full[traffic]
        if self._backlog.jobs >= self.limits.jobs_waiting_max:
            return self._many_jobs
        return None

    def check(self, traffic: Traffic) -> None:
        """Raises Overloaded where one more can't come in."""
        if why := self.shut(traffic):
            raise self.refusal(traffic, why)

    def enter(self, traffic: Traffic) -> "Place":
        """A place; give it back. Raises Overloaded where there is none."""
        self.check(traffic)
        return Place(self, traffic)

    def left(self, place: "Place") -> None:
        """A place is free again."""
        if place.traffic is Traffic.SUBMISSION and place.jobs <= _LARGE:
            self._learned.ended(self.in_flight[place.traffic], place.since, clock.monotonic())
        self.in_flight[place.traffic] -= 1

    def count(self, traffic: Traffic, why: Shut) -> None:
        self._metrics.refused(traffic, why.reason).inc()

    def refusal(self, traffic: Traffic, why: Shut) -> Overloaded:
        self.count(traffic, why)
        return Overloaded(f"{why.detail}: try again")


class Place:
    """That of one request under way, `since` when; `jobs`: those that it submits."""

    __slots__ = ("_gate", "_is_in", "jobs", "since", "traffic")

    def __init__(self, gate: Gate, traffic: Traffic) -> None:
        gate.in_flight[traffic] += 1
        self._gate = gate
        self._is_in = True
        self.traffic = traffic
        self.since = clock.monotonic()
        self.jobs = 1

    def leave(self) -> None:
        """Any number of times."""
        if self._is_in:
            self._is_in = False
            self._gate.left(self)

    @property
    def may_wait(self) -> bool:
        """Whether one more may wait for the end of a job."""
        return self._gate.waits < self._gate.limits.waits_max

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """To wait in; the place itself is free from now on. Raises Overloaded."""
        gate = self._gate
        if not self.may_wait:
            detail = f"http.waits_max ({gate.limits.waits_max}) wait for a job already"
            raise gate.refusal(self.traffic, Shut("waits", detail))
        self.leave()
        gate.waits += 1
        try:
            yield
        finally:
            gate.waits -= 1


# Where a request keeps its place; `Connection` gives it back when the request is answered.
PLACE = web.RequestKey("place", Place)
