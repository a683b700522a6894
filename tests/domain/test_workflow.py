"""Conditions: every one of them, over every way in which up to four parents can be over."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest

from penstock.domain.ids import BYTES, JobId
from penstock.domain.job import TERMINAL, State
from penstock.domain.workflow import (
    LOOSE,
    STOP_SPARES,
    Counts,
    Decision,
    Halt,
    OnFailure,
    RunIf,
    Workflow,
    WorkflowState,
    decide,
)

PARENTS_MAX = 4
ENDS = (State.SUCCEEDED, State.DEAD, State.CANCELLED, State.SKIPPED)
Ends = tuple[State, ...]  # of some parents

# What each condition says of parents that are all over, as the contract says it.
SAYS: dict[RunIf, Callable[[Ends], bool]] = {
    RunIf.ALL_SUCCEEDED: lambda ends: set(ends) == {"succeeded"},
    RunIf.ALL_FAILED: lambda ends: set(ends) == {"dead"},
    RunIf.ALL_FINISHED: lambda ends: True,
    RunIf.ANY_SUCCEEDED: lambda ends: "succeeded" in ends,
    RunIf.ANY_FAILED: lambda ends: "dead" in ends,
    RunIf.NONE_FAILED: lambda ends: "dead" not in ends,
    RunIf.NONE_SKIPPED: lambda ends: "skipped" not in ends,
    RunIf.ALL_SKIPPED: lambda ends: set(ends) == {"skipped"},
}
EARLY = {RunIf.ANY_SUCCEEDED, RunIf.ANY_FAILED}  # run as soon as they hold


def ways(parents: int) -> Iterator[Ends]:
    """All ways in which so many parents can be over, whoever was which."""
    return itertools.combinations_with_replacement(ENDS, parents)


def partial(parents: int) -> Iterator[Ends]:
    """The same of none of them, one, … and all."""
    return itertools.chain.from_iterable(ways(over) for over in range(parents + 1))


def counted(ends: Sequence[State]) -> Counts:
    counts = Counts()
    for state in ends:
        counts = counts.plus(state)
    return counts


def plainly(run_if: RunIf, ends: Ends, parents: int) -> Decision:
    """The same as `decide`, by going through all that may still become of the other parents."""
    futures = {SAYS[run_if](ends + others) for others in ways(parents - len(ends))}
    if futures == {False}:
        return Decision.SKIP
    if futures == {True} and (len(ends) == parents or run_if in EARLY):
        return Decision.RUN
    return Decision.WAIT


TABLE = [
    (run_if, parents, ends)
    for run_if in RunIf
    for parents in range(1, PARENTS_MAX + 1)
    for ends in partial(parents)
]


def test_the_table_has_every_condition_and_every_state() -> None:
    assert set(SAYS) == set(RunIf)
    assert set(ENDS) == TERMINAL
    assert len(TABLE) == 8 * sum(
        len(list(ways(over))) for parents in range(1, 5) for over in range(parents + 1)
    )


def test_every_decision_is_what_the_condition_says_plainly() -> None:
    wrong = [
        (run_if, parents, ends, decided)
        for run_if, parents, ends in TABLE
        if (decided := decide(run_if, counted(ends), parents)) != plainly(run_if, ends, parents)
    ]
    assert not wrong


def test_nobody_waits_for_parents_that_are_all_over() -> None:
    for run_if, parents, ends in TABLE:
        if len(ends) == parents:
            decided = decide(run_if, counted(ends), parents)
            assert decided is (Decision.RUN if SAYS[run_if](ends) else Decision.SKIP)


def test_a_decision_stands_whatever_becomes_of_the_other_parents() -> None:
    for run_if, parents, ends in TABLE:
        decided = decide(run_if, counted(ends), parents)
        if decided is Decision.WAIT:
            continue
        for others in partial(parents - len(ends)):
            later = decide(run_if, counted(ends + others), parents)
            assert later is decided, (run_if, parents, ends, others)


def test_only_any_of_them_runs_before_all_parents_are_over() -> None:
    early = {
        run_if
        for run_if, parents, ends in TABLE
        if len(ends) < parents and decide(run_if, counted(ends), parents) is Decision.RUN
    }
    assert early == EARLY


def test_no_condition_is_decided_before_the_first_parent_is_over() -> None:
    for run_if, parents, ends in TABLE:
        if not ends:
            assert decide(run_if, counted(ends), parents) is Decision.WAIT


@pytest.mark.parametrize("run_if", RunIf)
def test_cancelled_is_finished_and_nothing_else(run_if: RunIf) -> None:
    decided = decide(run_if, counted([State.CANCELLED]), 1)
    runs = run_if in (RunIf.ALL_FINISHED, RunIf.NONE_FAILED, RunIf.NONE_SKIPPED)
    assert decided is (Decision.RUN if runs else Decision.SKIP)


def test_ten_thousand_parents_are_decided_like_four() -> None:
    parents = 10_000
    nearly = Counts(succeeded=parents - 1)
    assert decide(RunIf.ALL_SUCCEEDED, nearly, parents) is Decision.WAIT
    assert decide(RunIf.ALL_SUCCEEDED, nearly.plus(State.SUCCEEDED), parents) is Decision.RUN
    assert decide(RunIf.ANY_FAILED, nearly.plus(State.DEAD), parents) is Decision.RUN
    assert decide(RunIf.ALL_SKIPPED, nearly.plus(State.SKIPPED), parents) is Decision.SKIP


def test_what_a_stop_spares_is_what_may_wait_for_a_failure() -> None:
    """Those that can still hold once a parent is dead, but for `any_succeeded` and
    `none_skipped`: those go on with the work, they neither clean up nor tell."""
    can_hold = {
        run_if
        for run_if, parents, ends in TABLE
        if len(ends) == parents and "dead" in ends and SAYS[run_if](ends)
    }
    assert can_hold - STOP_SPARES == {RunIf.ANY_SUCCEEDED, RunIf.NONE_SKIPPED}
    assert can_hold > STOP_SPARES


def workflow(
    ends: Ends, total: int, halt: Halt | None = None, *, halting: bool = False
) -> Workflow:
    return Workflow(
        id=JobId(bytes(range(BYTES))),
        on_failure=OnFailure.STOP if halt is Halt.STOP else OnFailure.CONTINUE,
        holder=None,
        ancestors=(),
        state=WorkflowState.RUNNING,
        total=total,
        counts=counted(ends),
        halt=halt,
        halting=halting,
    )


@pytest.mark.parametrize("halt", [None, *Halt])
def test_a_workflow_is_over_when_all_its_jobs_are_and_ends_as_they_did(halt: Halt | None) -> None:
    for total in range(1, PARENTS_MAX + 1):
        for ends in partial(total):
            one = workflow(ends, total, halt)
            assert one.is_over == (len(ends) == total)
            assert not workflow(ends, total, halt, halting=True).is_over
            if halt is Halt.CANCEL:
                expected = WorkflowState.CANCELLED
            elif State.DEAD in ends:
                expected = WorkflowState.FAILED
            else:
                expected = WorkflowState.SUCCEEDED
            assert one.end_state() is expected


def test_counts_count_what_is_over_by_state() -> None:
    for ends in partial(PARENTS_MAX):
        counts = counted(ends)
        assert counts.ended == len(ends)
        assert {state: getattr(counts, state) for state in ENDS} == {
            state: ends.count(state) for state in ENDS
        }
    assert Counts().plus(State.DEAD, 3) == Counts(dead=3)


def test_the_loose_graph_is_no_workflow_that_was_ever_minted() -> None:
    assert bytes(BYTES) == LOOSE
