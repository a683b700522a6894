"""Which jobs of a workflow run again when it is retried, and where they begin. Pure.

What succeeded is kept. An edge from a job that runs again is reset: its child, if it waits or runs
again too, waits for it anew. An edge from a job that is kept counts as that job stands. A job whose
condition can't hold by those stays as it is, and so does what only led through it.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.workflow import Counts, Decision, RunIf, decide

_RETRIED = frozenset({State.DEAD, State.CANCELLED, State.SKIPPED})


@dataclass(frozen=True, slots=True)
class Node:
    """A job of the workflow. `run_if` is None without parents, `state` None while it isn't over."""

    id: JobId
    name: str
    run_if: RunIf | None
    parents: tuple[JobId, ...]
    state: State | None


@dataclass(frozen=True, slots=True)
class Again:
    """A job that runs again. `was` is what it ended as; of its `parents` so many are over by
    `counts`; `is_due`: it needn't wait for the rest."""

    id: JobId
    was: State
    parents: int
    counts: Counts
    is_due: bool


def plan_retry(nodes: Sequence[Node], names: Collection[str] | None) -> list[Again]:
    """What runs again, parents before children: all that didn't succeed, or of that only the jobs
    of these names and what depends on them."""
    by_id = {node.id: node for node in nodes}
    wanted = None if names is None else frozenset(names)
    chosen: set[JobId] = set()
    again: dict[JobId, Again] = {}
    for node in _in_order(by_id):
        if wanted is None or node.name in wanted or not chosen.isdisjoint(node.parents):
            chosen.add(node.id)
            if node.state in _RETRIED and (one := _life(node, by_id, again)) is not None:
                again[node.id] = one
    return list(again.values())


def _in_order(by_id: dict[JobId, Node]) -> Iterator[Node]:
    sorter = TopologicalSorter({node.id: node.parents for node in by_id.values()})
    return (by_id[id_] for id_ in sorter.static_order())


def _life(node: Node, by_id: dict[JobId, Node], again: dict[JobId, Again]) -> Again | None:
    """Its new life, or None where its condition can't hold."""
    assert node.state is not None
    if node.run_if is None:
        return Again(node.id, node.state, 0, Counts(), is_due=True)
    counts = Counts()
    for parent in node.parents:
        state = None if parent in again else by_id[parent].state
        if state is not None:
            counts = counts.plus(state)
    decision = decide(node.run_if, counts, len(node.parents))
    if decision is Decision.SKIP:
        return None
    is_due = decision is Decision.RUN
    return Again(node.id, node.state, len(node.parents), counts, is_due)
