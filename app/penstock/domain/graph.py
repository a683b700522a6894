"""Whether jobs that name one another make a graph that can run: bounded, acyclic, satisfiable.

Pure. In: the jobs of a workflow, or some that join one, by name. Out: what is wrong, each with a
JSON Pointer into the body. Always holds: what has no fault here ends, whatever becomes of its
jobs, and none of its conditions is one that can never hold for what its parents are.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from penstock.domain.pointer import NAME_MAX
from penstock.domain.workflow import RunIf

JOBS_MAX = 10_000  # of a workflow
EDGES_MAX = 100_000
PARENTS_MAX = 10_000  # of a job in a workflow
LOOSE_PARENTS_MAX = 1000  # of a job outside
NAME_CHARS_MAX = 255
DEPTH_MAX = 8  # workflows within one another, the outermost counted
FAULTS_MAX = 101  # one more than an answer names

_PATH_MAX = 8  # names of a cycle that are told

Fault = tuple[str, str]  # JSON Pointer, detail


@dataclass(frozen=True, slots=True)
class Node:
    """A job of the graph. `depends_on` are names, `run_if` counts where there are any."""

    name: str
    depends_on: Sequence[str] = ()
    run_if: str = RunIf.ALL_SUCCEEDED


@dataclass(frozen=True, slots=True)
class There:
    """What a workflow that nodes join has already: whether each job that they may name can ever
    be skipped."""

    skippable: Mapping[str, bool] = field(default_factory=dict)


def faults(nodes: Sequence[Node], there: There | None = None) -> list[Fault]:
    """What is wrong with these jobs, 101 faults at most; pointers begin with /jobs.

    Linear in jobs and edges: 10,000 and 100,000 take about 100 ms.
    """
    return list(islice(_Check(nodes, there or There()).run(), FAULTS_MAX))


class _Check:
    def __init__(self, nodes: Sequence[Node], there: There) -> None:
        self._nodes = nodes
        self._there = there.skippable
        self._places: dict[str, int] = {}

    def run(self) -> Iterator[Fault]:
        """What hinders the next look from making sense ends the check."""
        named = list(islice(self._names(), FAULTS_MAX))
        yield from named
        edges = sum(len(node.depends_on) for node in self._nodes)
        if edges > EDGES_MAX:
            told = f"have {edges} dependencies; a workflow may have {EDGES_MAX}"
            yield "/jobs", told
            return
        linked = list(islice(self._links(), FAULTS_MAX))
        yield from linked
        if named or linked:
            return
        order = self._order()
        if len(order) < len(self._nodes):
            yield from self._cycles(set(order))
        else:
            yield from self._conditions(order)

    def _names(self) -> Iterator[Fault]:
        for i, node in enumerate(self._nodes):
            first = self._places.setdefault(node.name, i)
            if first != i:
                yield f"/jobs/{i}/name", f"is the name of /jobs/{first} too"

    def _links(self) -> Iterator[Fault]:
        """Whom the jobs name: somebody else who is there, each once."""
        places, there = self._places, self._there
        for i, node in enumerate(self._nodes):
            seen: set[str] = set()
            for n, name in enumerate(node.depends_on):
                if name in seen:
                    yield f"/jobs/{i}/depends_on/{n}", "stands there twice"
                elif name == node.name:
                    yield f"/jobs/{i}/depends_on/{n}", "is the job itself"
                elif name not in places and name not in there:
                    yield f"/jobs/{i}/depends_on/{n}", f"there is no job {short(name)!r}"
                seen.add(name)

    def _order(self) -> list[int]:
        """Parents before children (Kahn); what is in a cycle or behind one is left out."""
        places = self._places
        children: list[list[int]] = [[] for _ in self._nodes]
        left = []
        for i, node in enumerate(self._nodes):
            parents = [places[name] for name in node.depends_on if name in places]
            left.append(len(parents))
            for parent in parents:
                children[parent].append(i)
        todo = deque(i for i, count in enumerate(left) if not count)
        order = []
        while todo:
            parent = todo.popleft()
            order.append(parent)
            for child in children[parent]:
                left[child] -= 1
                if not left[child]:
                    todo.append(child)
        return order

    def _cycles(self, free: set[int]) -> Iterator[Fault]:
        """Cycles among the jobs that aren't free of them, no two with a job in common. From each
        of these jobs, its first parent that isn't free leads into one."""
        walked = set(free)
        for start in range(len(self._nodes)):
            at, path = start, dict[int, int]()  # jobs of this walk, to their place in it
            while at not in walked:
                walked.add(at)
                path[at] = len(path)
                at = self._bound_parent(at, free)[1]
            if at in path:
                yield self._cycle(list(path)[path[at] :], free)

    def _cycle(self, waits: list[int], free: set[int]) -> Fault:
        """`waits`: each waits for the next, and the last for the first."""
        first = waits.index(min(waits))
        waits = waits[first:] + waits[:first]
        n, _ = self._bound_parent(waits[0], free)
        runs = [short(self._nodes[i].name) for i in (waits[0], *reversed(waits))]
        if len(runs) > _PATH_MAX:
            runs = [*runs[: _PATH_MAX - 2], f"… {len(runs) - _PATH_MAX + 1} more …", runs[-1]]
        return f"/jobs/{waits[0]}/depends_on/{n}", f"makes a cycle: {' -> '.join(runs)}"

    def _bound_parent(self, i: int, free: set[int]) -> tuple[int, int]:
        """The first parent that isn't free of cycles: its place in depends_on, and in the jobs."""
        for n, name in enumerate(self._nodes[i].depends_on):
            parent = self._places.get(name)
            if parent is not None and parent not in free:
                return n, parent
        raise AssertionError(i)

    def _conditions(self, order: Sequence[int]) -> Iterator[Fault]:
        """Conditions that can't hold for jobs that are never skipped."""
        skippable = dict(self._there)
        for i in order:
            node = self._nodes[i]
            can = [skippable[name] for name in node.depends_on]
            skippable[node.name] = may_be_skipped(node.run_if, can)
            if node.run_if == RunIf.ALL_SKIPPED and not all(can):
                name = node.depends_on[can.index(False)]
                yield f"/jobs/{i}/run_if", f"can never hold: {short(name)!r} is never skipped"


def may_be_skipped(run_if: str, parents: Sequence[bool]) -> bool:
    """Whether a job can ever be skipped, of whose parents each can be or not."""
    if not parents or run_if == RunIf.ALL_FINISHED:
        return False
    return any(parents) if run_if == RunIf.NONE_SKIPPED else True


def short(name: str) -> str:
    """A caller's own name, cut to what we repeat."""
    return name if len(name) <= NAME_MAX else name[:NAME_MAX] + "…"


def repeated(names: Sequence[str]) -> list[int]:
    """Places of those that stand there a second time."""
    if len(set(names)) == len(names):
        return []
    seen: set[str] = set()
    found = []
    for n, name in enumerate(names):
        if name in seen:
            found.append(n)
        seen.add(name)
    return found
