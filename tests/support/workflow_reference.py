"""What may become of a graph of jobs, said as simply as can be: the reference that runs are held
against.

Timing is free: a cancel may come before or after a job ran, a stop may find a job waiting or
running. So each job has a set of states that it may end in, and what follows from what:

- Without calls, and with `continue`, every set has one member. Conditions look at how parents
  ended, not at when: `any_*` run early, but would not run less once all parents are over.
- A job of which a parent may end in several ways may run if some choice lets its condition hold,
  and be skipped if some choice doesn't: choices of different parents are taken as free of one
  another, so a set may be larger than what can happen, never smaller.
- A cancel may come when a job is over already, or with an attempt under way that succeeds: it adds
  `cancelled` to what it may hit, and takes nothing away. The same holds for a stop, but that spares
  what has begun: surely the parents that whoever dies has waited for.
- More members of one set may bring about more of another (an `all_finished` runs, and dies, and
  stops others), never fewer: so rounds over all jobs come to an end.

A retry comes when all is over, so its set is determined by how the jobs ended; what it keeps,
stays. How the states of one run fit together is not asked here: tests/support/checker/graphs.py
does.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SUCCEEDED, DEAD, CANCELLED, SKIPPED = "succeeded", "dead", "cancelled", "skipped"
SPARED = {"all_finished", "any_failed", "all_failed"}  # by a stop
States = frozenset[str]
Sets = Mapping[str, States]  # what may become of each job, by name

# A condition says of how many parents that they are in such a state.
_CONDITIONS: Mapping[str, tuple[Callable[[Iterable[bool]], bool], Callable[[str], bool]]] = {
    "all_succeeded": (all, lambda state: state == SUCCEEDED),
    "all_failed": (all, lambda state: state == DEAD),
    "all_skipped": (all, lambda state: state == SKIPPED),
    "all_finished": (all, lambda state: True),
    "any_succeeded": (any, lambda state: state == SUCCEEDED),
    "any_failed": (any, lambda state: state == DEAD),
    "none_failed": (all, lambda state: state != DEAD),
    "none_skipped": (all, lambda state: state != SKIPPED),
}
CONDITIONS = tuple(_CONDITIONS)


@dataclass(frozen=True, slots=True)
class Node:
    """A job. `dies`: it ends dead whenever it runs, else it succeeds, after failures or not."""

    name: str
    parents: tuple[str, ...] = ()
    run_if: str = "all_succeeded"
    dies: bool = False

    def holds(self, ends: Sequence[str]) -> bool:
        """Whether its condition holds of parents that ended so."""
        how_many, fits = _CONDITIONS[self.run_if]
        return how_many(fits(end) for end in ends)

    @property
    def waits_for_all(self) -> bool:
        """Whether it can't run before all of its parents are over."""
        return not self.run_if.startswith("any_") or len(self.parents) == 1


@dataclass(frozen=True, slots=True)
class Graph:
    """`nodes`: parents before children. `cancelled`: names that a caller may cancel at any time."""

    nodes: Sequence[Node]
    stop: bool = False
    cancelled: Collection[str] = ()
    kept: Mapping[str, str] = field(default_factory=dict)  # these don't run again

    def possible(self) -> Sets:
        """In which states each job may end."""
        sets: dict[str, States] = {name: frozenset({end}) for name, end in self.kept.items()}
        before: Sets | None = None
        while before != sets:
            before = dict(sets)
            stoppable = self._stoppable(before) if self.stop else set()
            for node in self.nodes:
                if node.name not in self.kept:
                    may_be_cancelled = node.name in self.cancelled or node.name in stoppable
                    sets[node.name] = _ends(node, sets) | (
                        {CANCELLED} if may_be_cancelled else set()
                    )
        return sets

    def _stoppable(self, sets: Sets) -> set[str]:
        """Those that may still wait when somebody dies first."""
        over = self._over_before(sets)
        dying = {n for n, states in sets.items() if DEAD in states} - self.kept.keys()
        return {
            node.name
            for node in self.nodes
            if node.run_if not in SPARED
            and any(node.name not in over[other] for other in dying - {node.name})
        }

    def _over_before(self, sets: Sets) -> dict[str, set[str]]:
        """Whom each job, if it runs before anybody died, surely finds over: its parents, and what
        they found, where they can't have been skipped or cancelled without having waited."""
        over: dict[str, set[str]] = {}
        for node in self.nodes:
            over[node.name] = set(node.parents) if node.waits_for_all else set()
            for name in sorted(over[node.name]):
                if SKIPPED not in sets.get(name, ()) and name not in {*self.cancelled, *self.kept}:
                    over[node.name] |= over[name]
        return over

    def ends_as(self, ends: Mapping[str, str], *, was_cancelled: bool) -> str:
        """The state of a workflow whose jobs ended so."""
        if was_cancelled:
            return CANCELLED
        return "failed" if DEAD in ends.values() else SUCCEEDED

    def again(self, ends: Mapping[str, str], names: Collection[str] | None = None) -> set[str]:
        """What a retry runs again: of what didn't succeed all, or the named and what lies below
        them, unless what is kept decides that it is skipped."""
        chosen: set[str] = set()
        below: set[str] = set(names or ())
        for node in self.nodes:
            if not below.isdisjoint(node.parents):
                below.add(node.name)
            if ends[node.name] == SUCCEEDED or (names is not None and node.name not in below):
                continue
            others: list[States] = [
                frozenset({SUCCEEDED, DEAD, CANCELLED, SKIPPED} if name in chosen else {ends[name]})
                for name in node.parents
            ]
            if True in _ways(node, others):
                chosen.add(node.name)
        return chosen


def _ends(node: Node, sets: Sets) -> States:
    """How a job may end that nobody cancels."""
    ways = _ways(node, [sets[name] for name in node.parents])
    ran = DEAD if node.dies else SUCCEEDED
    return frozenset({ran if runs else SKIPPED for runs in ways})


def _ways(node: Node, sets: Sequence[States]) -> set[bool]:
    """Whether the condition may hold, may not hold, or both. No parents: it holds."""
    if not sets:
        return {True}
    how_many, fits = _CONDITIONS[node.run_if]
    each = [{fits(state) for state in states} for states in sets]
    most, least = (how_many(pick(one) for one in each) for pick in (max, min))
    return {most, least}
