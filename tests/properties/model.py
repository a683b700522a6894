"""What must be true of jobs, said a second time and as simply as can be: the reference model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from penstock.domain.attempt import Ending, Outcome
from penstock.domain.ids import JobId, WorkerId
from penstock.domain.job import NewJob, OnLost, Started
from penstock.domain.verdict import Patience

PATIENCE = Patience(losses_max=3, crashes_max=2)

DUE, RUNNING = "due", "running"  # the other places are the terminal states


@dataclass(slots=True)
class Job:
    """One job: its place, and all that ever happened to it."""

    new: NewJob
    place: str = DUE
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    crashes: int = 0
    worker: WorkerId | None = None
    cancel_requested: bool = False
    ready_at: datetime | None = None  # None: nobody was told, since its second life began
    outcomes: list[tuple[WorkerId, str]] = field(default_factory=list)  # attempt 1, 2, …
    ends_in_this_life: int = 0
    may_expire: bool = False  # until its first start in this life
    expired: bool = False

    def __post_init__(self) -> None:
        self.may_expire = self.new.ttl_s is not None

    @property
    def live(self) -> bool:
        return self.place in (DUE, RUNNING)

    def start(self, started: Started) -> None:
        assert self.place == DUE, f"started although it is {self.place}"
        assert started.attempt == self.attempt + 1, "an attempt's number was skipped or used twice"
        spent = (started.failures, started.losses, started.crashes)
        assert spent == (self.failures, self.losses, self.crashes)
        assert started.started_at >= started.ready_at, "I9: started before its time"
        assert self.ready_at in (None, started.ready_at), "it lost its place in line"
        assert not self.expired, "started after its time to live"
        self.may_expire = False
        self.place, self.attempt, self.worker = RUNNING, started.attempt, WorkerId(started.worker)

    def is_run_by(self, run: Started) -> bool:
        """Whether this attempt is the one under way: the fence."""
        fence = (self.place, self.attempt, self.worker)
        return fence == (RUNNING, run.attempt, run.worker)

    def settle(self, ending: Ending, *, cancel_known: bool) -> None:
        """Applies an ending of the attempt under way."""
        outcome = ending.outcome
        assert self.worker is not None
        self.outcomes.append((self.worker, outcome.value))
        self.worker = None
        place = self._after(ending, cancel_known=cancel_known)
        self.cancel_requested = False
        if place == DUE:
            self.place = DUE
        else:
            self.end(place)

    def due_again(self, run: Started, ending: Ending, ready_at: datetime | None) -> None:
        """What settling answered: when it is due, if it is. Losses and releases cost no place."""
        assert (ready_at is None) == (self.place != DUE)
        if ready_at and ending.outcome in (Outcome.LOST, Outcome.RELEASED):
            assert ready_at == run.ready_at
        self.ready_at = ready_at

    def end(self, state: str) -> None:
        self.place, self.expired = state, False
        self.ends_in_this_life += 1
        assert self.ends_in_this_life == 1, "I2: it ended twice"

    def live_again(self) -> None:
        self.place, self.ends_in_this_life = DUE, 0
        self.failures = self.losses = self.crashes = 0
        self.ready_at, self.may_expire = None, self.new.ttl_s is not None

    def _after(self, ending: Ending, *, cancel_known: bool) -> str:
        outcome = ending.outcome
        if outcome is Outcome.SUCCEEDED:
            return "succeeded"
        if cancel_known or outcome is Outcome.CANCELLED:
            return "cancelled"
        if outcome is Outcome.RELEASED:
            return DUE
        if outcome is Outcome.LOST:
            self.losses += 1
            given_up = self.new.on_lost is OnLost.DEAD or self.losses >= PATIENCE.losses_max
            return "dead" if given_up else DUE
        if outcome is Outcome.CRASHED:
            self.crashes += 1
            given_up = self.new.on_lost is OnLost.DEAD or self.crashes >= PATIENCE.crashes_max
            return "dead" if given_up else DUE
        self.failures += 1
        given_up = not ending.retryable or self.failures >= self.new.max_attempts
        return "dead" if given_up else DUE


@dataclass(slots=True)
class Worker:
    """A worker process: its name in Postgres and what only its memory holds."""

    name: WorkerId
    expired: bool = False
    condemned: bool = False
    crashed: bool = False
    claimed: dict[str, list[JobId]] = field(default_factory=dict)  # by queue
    runs: list[Started] = field(default_factory=list)  # started and, as it thinks, not settled


# What Postgres must hold, compared as a whole after every step.
Places = dict[JobId, tuple[object, ...]]


@dataclass(slots=True)
class Model:
    jobs: dict[JobId, Job] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    runs: list[Started] = field(default_factory=list)  # all that any worker ever heard of

    def holder(self, new: NewJob) -> JobId | None:
        """The live job that has this one's unique key."""
        key = (new.queue, new.unique_key)
        held = [
            i for i, j in self.jobs.items() if j.live and (j.new.queue, j.new.unique_key) == key
        ]
        assert new.unique_key is None or len(held) <= 1, "two live jobs have one unique key"
        return held[0] if held and new.unique_key is not None else None

    def answer(self, jobs: Sequence[NewJob]) -> list[JobId] | None:
        """The ids that a submission is answered with; None: refused."""
        ids: list[JobId] = []
        first: dict[tuple[str, str | None], JobId] = {}
        for job in jobs:
            twin = first.setdefault((job.queue, job.unique_key), job.id)
            holder = self.holder(job) or (twin if job.unique_key else job.id)
            if holder != job.id and not job.return_holder:
                return None
            ids.append(holder)
        return ids

    def keyed(self) -> list[JobId]:
        return [i for i, job in self.jobs.items() if job.live and job.new.unique_key is not None]

    def places(self) -> Places:
        """I7: each job in exactly one place, with what belongs to it there."""
        found: Places = {}
        for id_, job in self.jobs.items():
            budget = (job.attempt, job.failures, job.losses, job.crashes)
            if job.place == RUNNING:
                found[id_] = (RUNNING, *budget, job.worker, job.cancel_requested)
            else:
                found[id_] = (job.place, *budget, None, False)
        return found

    def attempts(self) -> set[tuple[JobId, int, WorkerId, str]]:
        """I4, I6: each ended attempt once, under the worker that ran it, as it ended."""
        return {
            (id_, n, worker, outcome)
            for id_, job in self.jobs.items()
            for n, (worker, outcome) in enumerate(job.outcomes, start=1)
        }

    def ended(self) -> dict[str, int]:
        counts = Counter(job.place for job in self.jobs.values() if not job.live)
        return dict(counts)
