"""What makes a graph that can run, and how its faults are told."""

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain import graph
from penstock.domain.graph import Node, There, faults, may_be_skipped
from penstock.domain.job import State
from penstock.domain.workflow import Counts, Decision, RunIf, decide
from tests.support.figures import figures


def nodes(**parents: str) -> list[Node]:
    """nodes(a="", b="a c")"""
    return [Node(name, tuple(said.split())) for name, said in parents.items()]


def test_a_diamond_is_fine() -> None:
    assert faults(nodes(a="", b="a", c="a", d="b c")) == []


def test_names_are_unique() -> None:
    twice = [Node("a"), Node("b"), Node("a"), Node("a")]
    assert faults(twice) == [
        ("/jobs/2/name", "is the name of /jobs/0 too"),
        ("/jobs/3/name", "is the name of /jobs/0 too"),
    ]


def test_parents_are_others_who_are_there_each_once() -> None:
    assert faults(nodes(a="", b="a a b nobody")) == [
        ("/jobs/1/depends_on/1", "stands there twice"),
        ("/jobs/1/depends_on/2", "is the job itself"),
        ("/jobs/1/depends_on/3", "there is no job 'nobody'"),
    ]
    long = "x" * 255
    ((_, told),) = faults([Node("a", (long,))])
    assert told == f"there is no job '{'x' * 64}…'"


def test_who_joins_a_workflow_may_name_what_it_has() -> None:
    assert faults(nodes(b="a"), There({"a": False})) == []
    assert faults(nodes(b="a c"), There({"a": False})) == [
        ("/jobs/0/depends_on/1", "there is no job 'c'")
    ]


@pytest.mark.parametrize(
    ("parents", "pointer", "path"),
    [
        ({"a": "b", "b": "a"}, "/jobs/0/depends_on/0", "a -> b -> a"),
        ({"a": "c", "b": "a", "c": "b"}, "/jobs/0/depends_on/0", "a -> b -> c -> a"),
        ({"r": "", "a": "r c", "b": "a", "c": "b"}, "/jobs/1/depends_on/1", "a -> b -> c -> a"),
        ({"x": "b", "a": "b", "b": "a", "y": "x"}, "/jobs/1/depends_on/0", "a -> b -> a"),
    ],
)
def test_a_cycle_is_told_with_its_path(parents: dict[str, str], pointer: str, path: str) -> None:
    assert faults(nodes(**parents)) == [(pointer, f"makes a cycle: {path}")]


def test_cycles_that_share_nothing_are_all_told_and_long_ones_cut() -> None:
    two = nodes(a="b", b="a", c="d", d="c")
    assert [pointer for pointer, _ in faults(two)] == [
        "/jobs/0/depends_on/0",
        "/jobs/2/depends_on/0",
    ]
    ring = [Node(f"n{i}", (f"n{(i - 1) % 20}",)) for i in range(20)]
    ((pointer, told),) = faults(ring)
    assert pointer == "/jobs/0/depends_on/0"
    assert told == "makes a cycle: n0 -> n1 -> n2 -> n3 -> n4 -> n5 -> … 14 more … -> n0"


def test_a_condition_that_can_never_hold_is_refused() -> None:
    ok = [
        Node("a"),
        Node("b", ("a",)),
        Node("c", ("b",), RunIf.ALL_SKIPPED),
        Node("d", ("b", "a"), RunIf.NONE_SKIPPED),
        Node("e", ("d",), RunIf.ALL_SKIPPED),
    ]
    assert faults(ok) == []
    never = [
        Node("a"),
        Node("f", ("a",), RunIf.ALL_FINISHED),
        Node("n", ("a", "f"), RunIf.NONE_SKIPPED),
        Node("b", ("a",), RunIf.ALL_SKIPPED),
        Node("c", ("f",), RunIf.ALL_SKIPPED),
        Node("d", ("n",), RunIf.ALL_SKIPPED),
    ]
    assert faults(never) == [
        ("/jobs/3/run_if", "can never hold: 'a' is never skipped"),
        ("/jobs/4/run_if", "can never hold: 'f' is never skipped"),
        ("/jobs/5/run_if", "can never hold: 'n' is never skipped"),
    ]
    joins = [Node("x", ("old",), RunIf.ALL_SKIPPED)]
    assert faults(joins, There({"old": True})) == []
    assert faults(joins, There({"old": False}))


@pytest.mark.parametrize("run_if", RunIf)
@pytest.mark.parametrize("can", [c for n in (1, 2) for c in itertools.product([0, 1], repeat=n)])
def test_what_may_be_skipped_is_what_is_decided_so(run_if: RunIf, can: tuple[int, ...]) -> None:
    """Every way in which these parents can end, against the function that decides."""
    ends = [State.SUCCEEDED, State.DEAD, State.CANCELLED]
    ways = itertools.product(*(ends + [State.SKIPPED] * skips for skips in can))
    decisions = set()
    for way in ways:
        counts = Counts()
        for state in way:
            counts = counts.plus(state)
        decisions.add(decide(run_if, counts, len(can)))
    assert may_be_skipped(run_if, list(map(bool, can))) == (Decision.SKIP in decisions)
    refused = faults(
        [Node("x", tuple(map(str, range(len(can)))), run_if)],
        There({str(n): bool(one) for n, one in enumerate(can)}),
    )
    assert bool(refused) == (Decision.RUN not in decisions)


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_without_faults_there_is_an_order(count: int, source: random.Random) -> None:
    made = [
        Node(str(i), tuple(source.sample([str(n) for n in range(count) if n != i], k)))
        for i in range(count)
        for k in [source.randint(0, min(2, count - 1))]
    ]
    found = faults(made)
    done: set[str] = set()
    for _ in made:
        done |= {node.name for node in made if done.issuperset(node.depends_on)}
    assert (found == []) == (len(done) == count)
    for pointer, told in found:
        assert "cycle" in told, pointer


def test_no_more_is_told_than_an_answer_names_and_limits_are_kept() -> None:
    assert len(faults([Node("a")] * 500)) == graph.FAULTS_MAX
    crowd = [Node(f"p{i}") for i in range(11)]
    crowd += [Node(f"c{i}", tuple(f"p{n}" for n in range(11))) for i in range(9_500)]
    assert faults(crowd) == [
        ("/jobs", "have 104500 dependencies; a workflow may have 100000"),
    ]


def test_the_largest_graph_is_looked_at_in_no_time() -> None:
    source = random.Random(1)
    large = [
        Node(f"n{i}", tuple(f"n{n}" for n in source.sample(range(i), min(i, 10))))
        for i in range(10_000)
    ]
    began = time.thread_time()
    assert faults(large) == []
    spent = time.thread_time() - began
    figures("graph of 10,000 jobs", seconds=spent)
    assert spent < 1.0  # of the processor; 0.1 where it has nothing else to do


def test_repeated_names_have_places() -> None:
    assert graph.repeated(["a", "b", "a", "a"]) == [2, 3]
    assert graph.repeated(["a", "b"]) == []
