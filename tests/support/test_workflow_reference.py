"""The reference of workflows: tables for what is determined, and runs in any order for what isn't.

A run here is a few lines: at each step any job that may begin does, or any that runs ends, or a
caller cancels one. Whatever comes of it, the reference must have thought of it.
"""

import random
from collections.abc import Mapping

import pytest

from tests.support.workflow_reference import (
    CANCELLED,
    CONDITIONS,
    DEAD,
    SKIPPED,
    SPARED,
    SUCCEEDED,
    Graph,
    Node,
)

_BLOCKED, _DUE, _RUNNING = "blocked", "due", "running"
_RUNS = 3000


def ends(*nodes: Node, stop: bool = False) -> dict[str, str]:
    """How each job ends or may end, as the words of its states."""
    sets = Graph(nodes, stop).possible()
    return {name: " ".join(sorted(states)) for name, states in sets.items()}


@pytest.mark.parametrize(
    ("run_if", "after"),
    [
        ("all_succeeded", (SUCCEEDED, SKIPPED, SKIPPED, SKIPPED)),
        ("all_failed", (SKIPPED, SUCCEEDED, SKIPPED, SKIPPED)),
        ("all_finished", (SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED)),
        ("any_succeeded", (SUCCEEDED, SKIPPED, SUCCEEDED, SUCCEEDED)),
        ("any_failed", (SKIPPED, SUCCEEDED, SUCCEEDED, SKIPPED)),
        ("none_failed", (SUCCEEDED, SKIPPED, SKIPPED, SUCCEEDED)),
        ("none_skipped", (SUCCEEDED, SUCCEEDED, SUCCEEDED, SKIPPED)),
        ("all_skipped", (SKIPPED, SKIPPED, SKIPPED, SKIPPED)),
    ],
)
def test_what_a_child_does_after_a_good_a_dead_both_and_a_good_and_a_skipped_parent(
    run_if: str, after: tuple[str, ...]
) -> None:
    good, dead, skipped = Node("good"), Node("dead", dies=True), Node("skipped", ("dead",))
    for parents, end in zip(
        (("good",), ("dead",), ("good", "dead"), ("good", "skipped")), after, strict=True
    ):
        child = Node("child", parents, run_if)
        assert ends(good, dead, skipped, child)["child"] == end, parents


def test_without_calls_and_stops_each_end_is_determined() -> None:
    for seed in range(300):
        sets = Graph(some_nodes(random.Random(seed), 30)).possible()
        assert {len(states) for states in sets.values()} == {1}


def test_a_stop_cancels_what_waits_and_spares_what_has_begun_and_what_cleans_up() -> None:
    found = ends(
        Node("first"),
        Node("dies", ("first",), dies=True),
        Node("beside", ("first",)),
        Node("below", ("dies",)),
        Node("cleans", ("dies", "beside"), "all_finished"),
        Node("tells", ("dies",), "any_failed"),
        stop=True,
    )
    assert found == {
        "first": "succeeded",
        "dies": "dead",
        "beside": "cancelled succeeded",
        "below": "cancelled skipped",
        "cleans": "succeeded",
        "tells": "succeeded",
    }


def test_a_retry_runs_what_did_not_succeed_and_can_run() -> None:
    nodes = [
        Node("good"),
        Node("dead", dies=True),
        Node("below", ("dead",)),
        Node("never", ("good",), "all_failed"),
        Node("other", dies=True),
    ]
    graph = Graph(nodes)
    first = {name: min(states) for name, states in graph.possible().items()}
    assert first["below"] == first["never"] == SKIPPED
    assert graph.again(first) == {"dead", "below", "other"}
    assert graph.again(first, ["dead"]) == {"dead", "below"}
    assert graph.again(first, ["below"]) == set()  # its parent stays dead


def test_whatever_comes_of_a_run_was_thought_of() -> None:
    several = 0
    for seed in range(_RUNS):
        chance = random.Random(seed)
        nodes = some_nodes(chance, chance.randint(1, 8))
        may_cancel = [one.name for one in nodes if chance.random() < 0.2] if seed % 3 == 0 else []
        graph = Graph(nodes, stop=seed % 2 == 0, cancelled=may_cancel)
        sets = graph.possible()
        several += sum(len(states) > 1 for states in sets.values())
        for _ in range(4):
            for name, state in run(graph, chance).items():
                assert state in sets[name], (seed, name, state, sets[name], nodes)
    assert several > _RUNS / 2


def test_nothing_is_thought_of_that_never_comes_in_small_graphs() -> None:
    """The sets take choices as free of one another: here they are."""
    nodes = [Node("a", dies=True), Node("b"), Node("c", ("b",), "all_finished")]
    graph = Graph(nodes, stop=True)
    chance = random.Random(0)
    runs = [run(graph, chance) for _ in range(500)]
    found = {name: frozenset(one[name] for one in runs) for name in "abc"}
    assert found == graph.possible()


def some_nodes(chance: random.Random, count: int) -> list[Node]:
    nodes: list[Node] = []
    for number in range(count):
        parents = chance.sample(nodes, min(len(nodes), chance.choice([0, 1, 1, 2, 3])))
        run_if = chance.choice(CONDITIONS)
        names = tuple(one.name for one in parents)
        nodes.append(Node(f"n{number}", names, run_if, dies=chance.random() < 0.3))
    return nodes


def run(graph: Graph, chance: random.Random) -> dict[str, str]:
    """One run, its steps in any order."""
    states = {one.name: _BLOCKED if one.parents else _DUE for one in graph.nodes}
    nodes = {one.name: one for one in graph.nodes}
    stopped = False
    while live := [name for name, state in states.items() if state in (_BLOCKED, _DUE, _RUNNING)]:
        name = chance.choice(live)
        if name in graph.cancelled and chance.random() < 0.2:
            states[name] = CANCELLED
        elif states[name] == _DUE:
            states[name] = _RUNNING
        elif states[name] == _RUNNING:
            states[name] = DEAD if nodes[name].dies else SUCCEEDED
            if states[name] == DEAD and graph.stop and not stopped:
                stopped = True
                _stop(nodes, states)
        _unlock(nodes, states)
    return states


def _stop(nodes: Mapping[str, Node], states: dict[str, str]) -> None:
    for name, state in states.items():
        if state in (_BLOCKED, _DUE) and nodes[name].run_if not in SPARED:
            states[name] = CANCELLED


def _unlock(nodes: Mapping[str, Node], states: dict[str, str]) -> None:
    for node in nodes.values():  # parents stand before children
        over = [states[name] for name in node.parents if states[name] not in (_DUE, _RUNNING)]
        over = [state for state in over if state != _BLOCKED]
        if states[node.name] != _BLOCKED:
            continue
        is_all = len(over) == len(node.parents)
        if node.holds(over) and (is_all or node.run_if.startswith("any_")):
            states[node.name] = _DUE
        elif is_all or (not node.run_if.startswith("any_") and not node.holds(over)):
            states[node.name] = SKIPPED
