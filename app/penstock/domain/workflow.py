"""Jobs that depend on one another: conditions, and what becomes of a child when a parent is over.

Pure. `decide` never answers WAIT when all parents are terminal, whatever the condition: so nothing
that depends on jobs can wait for ever (tests/domain/test_workflow.py goes through all of them).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import assert_never

from penstock.domain.ids import BYTES, JobId
from penstock.domain.job import State

KIND = "workflow"  # of jobs whose attempt is a workflow; no handler may have this name

# The graph of jobs that have parents or children by `depends_on` and belong to no workflow.
LOOSE = JobId(bytes(BYTES))


class RunIf(StrEnum):
    """What must have become of a job's parents. `failed` means dead; cancelled is finished, and
    neither succeeded, failed nor skipped."""

    ALL_SUCCEEDED = "all_succeeded"
    ALL_FAILED = "all_failed"
    ALL_FINISHED = "all_finished"
    ANY_SUCCEEDED = "any_succeeded"
    ANY_FAILED = "any_failed"
    NONE_FAILED = "none_failed"
    NONE_SKIPPED = "none_skipped"
    ALL_SKIPPED = "all_skipped"


# Those that a stopped workflow still runs: they are there to clean up or to tell.
STOP_SPARES = frozenset({RunIf.ALL_FINISHED, RunIf.ANY_FAILED, RunIf.ALL_FAILED})


class OnFailure(StrEnum):
    CONTINUE = "continue"
    STOP = "stop"


class Halt(StrEnum):
    """Why a workflow lets nothing more begin."""

    STOP = "stop"  # a job died, and that is its rule
    CANCEL = "cancel"  # a caller asked for it


class WorkflowState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Decision(StrEnum):
    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Counts:
    """Jobs that are over, by state."""

    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    skipped: int = 0

    @property
    def ended(self) -> int:
        return self.succeeded + self.dead + self.cancelled + self.skipped

    def plus(self, state: State, count: int = 1) -> "Counts":
        return replace(self, **{state.value: getattr(self, state.value) + count})


def decide(run_if: RunIf, counts: Counts, parents: int) -> Decision:
    """What a child does whose condition is `run_if`, of whose `parents` so many are over."""
    holds, fails = _standing(run_if, counts, parents)
    if holds:
        return Decision.RUN
    return Decision.SKIP if fails else Decision.WAIT


def _standing(run_if: RunIf, counts: Counts, parents: int) -> tuple[bool, bool]:
    """Whether the condition holds for good, and whether it can't hold any more."""
    all_over = counts.ended == parents
    match run_if:
        case RunIf.ALL_SUCCEEDED:
            return counts.succeeded == parents, counts.ended > counts.succeeded
        case RunIf.ALL_FAILED:
            return counts.dead == parents, counts.ended > counts.dead
        case RunIf.ALL_SKIPPED:
            return counts.skipped == parents, counts.ended > counts.skipped
        case RunIf.ALL_FINISHED:
            return all_over, False
        case RunIf.ANY_SUCCEEDED:
            return counts.succeeded > 0, all_over
        case RunIf.ANY_FAILED:
            return counts.dead > 0, all_over
        case RunIf.NONE_FAILED:
            return all_over and counts.dead == 0, counts.dead > 0
        case RunIf.NONE_SKIPPED:
            return all_over and counts.skipped == 0, counts.skipped > 0
        case _:
            assert_never(run_if)


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A validated workflow without its jobs. `holder`: the job whose attempt it is."""

    id: JobId
    name: str
    on_failure: OnFailure = OnFailure.CONTINUE
    created_by: str = ""
    traceparent: str | None = None
    holder: JobId | None = None
    notify: str | None = None  # JSON text of its wishes; see `effect.wishes_from`


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow's row, locked. `total` counts its jobs, `counts` those that are over."""

    id: JobId
    on_failure: OnFailure
    holder: JobId | None
    ancestors: Sequence[JobId]
    state: WorkflowState
    total: int
    counts: Counts
    halt: Halt | None
    halting: bool  # what isn't running is to be cancelled, and not all of it has been yet

    @property
    def is_over(self) -> bool:
        """All its jobs are terminal."""
        return self.counts.ended == self.total and not self.halting

    def end_state(self) -> WorkflowState:
        """What it ends as."""
        if self.halt is Halt.CANCEL:
            return WorkflowState.CANCELLED
        return WorkflowState.FAILED if self.counts.dead else WorkflowState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Parent:
    """A parent as its child sees it when it starts. `result` is JSON text, null unless it
    succeeded."""

    id: JobId
    name: str  # in its workflow; without one, its id as text
    state: State
    result: str = "null"


@dataclass(frozen=True, slots=True)
class Kin:
    """What a job of a graph is told of it when it starts: its own name, and its parents by name.

    `withheld`: so many bytes of results are more than a job may get, and none are here.
    """

    name: str | None = None
    parents: Mapping[str, Parent] = field(default_factory=dict)
    withheld: int = 0


NO_KIN = Kin()


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What a retry of a workflow does, by name: what runs again, and what is reused as it is."""

    again: Sequence[str]
    reused: Sequence[str]
    ids: Sequence[JobId] = field(default=())  # of `again`
