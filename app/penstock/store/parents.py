"""What a job of a graph is told when it starts: its name, and its parents with their results.

In: started jobs of graphs. Out: their kin. Always holds: a result that several of them share is
read once; no more is in memory than what each may get, and a slice is read at a time. It changes
nothing, so it may be asked again at any time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.domain.ids import JobId, text
from penstock.domain.job import Started, State
from penstock.domain.workflow import LOOSE, Kin, Parent
from penstock.store.postgres import Postgres

_CHILDREN = 100  # a statement: each may have 10,000 parents
_SLICE_BYTES = 64 * 1024 * 1024  # of results that one statement may bring
_SLICE_ROWS = 2000
_UNPACKED = 256  # times as large as stored a result may be, at the very most


@dataclass(slots=True)
class _Told:
    """What is known of one child. `parents`: those that are there, by id; `depends_on`: how it was
    asked for them."""

    name: str | None = None
    depends_on: Sequence[str] = ()
    parents: dict[JobId, tuple[str, State]] = field(default_factory=dict)
    stored: int = 0  # bytes of their results, as stored


class Parents:
    """`results_max_bytes`: of all of its parents' results that a job may get together."""

    def __init__(self, postgres: Postgres, results_max_bytes: int) -> None:
        self._pg = postgres
        self._results_max_bytes = results_max_bytes

    async def of(self, jobs: Sequence[Started]) -> dict[JobId, Kin]:
        """The kin of each of these jobs. Raises StoreUnavailable."""
        found: dict[JobId, Kin] = {}
        for start in range(0, len(jobs), _CHILDREN):
            part = jobs[start : start + _CHILDREN]
            told, sizes, results = await self._told([job.id for job in part])
            fit = [one for one in told.values() if one.stored <= self._results_max_bytes]
            wanted = {id_ for one in fit for id_ in one.parents if sizes[id_]} - results.keys()
            results |= await self._results({id_: sizes[id_] for id_ in wanted})
            whole = {id_: len(result.encode()) for id_, result in results.items()}
            for job in part:
                one = told[job.id]
                size = max(one.stored, sum(whole.get(id_, 0) for id_ in one.parents))
                withheld = size if size > self._results_max_bytes else 0
                found[job.id] = _kin(job, one, {} if withheld else results, withheld)
        return found

    async def ids_of(self, workflow: JobId, names: Sequence[str]) -> dict[str, JobId]:
        """Those jobs of a workflow that have one of these names."""
        found = await self._pg.rows("names_taken", workflow, names)
        return {name: JobId(id_) for name, id_ in found}

    async def _told(
        self, ids: Sequence[JobId]
    ) -> tuple[dict[JobId, _Told], dict[JobId, int], dict[JobId, str]]:
        """By child; how large each parent's result is as stored; and those that are small."""
        told = {id_: _Told() for id_ in ids}
        sizes: dict[JobId, int] = {}
        results: dict[JobId, str] = {}
        for row in await self._pg.rows("parents_of", ids):
            child, parent, name, state, size, small, depends_on = row
            if parent is None:
                told[child].name, told[child].depends_on = name, depends_on or ()
                continue
            sizes[parent] = size or 0
            if small is not None:
                results[parent] = small
            told[child].parents[parent] = (name, State(state))
            told[child].stored += size or 0
        return told, sizes, results

    async def _results(self, sizes: Mapping[JobId, int]) -> dict[JobId, str]:
        results: dict[JobId, str] = {}
        for ids in _slices(sizes):
            found = await self._pg.rows("results_of", ids)
            results.update((row[0], row[1]) for row in found if row[1] is not None)
        return results


def _kin(job: Started, told: _Told, results: Mapping[JobId, str], withheld: int) -> Kin:
    by_id = job.graph_id == LOOSE
    parents = [
        Parent(id_, text(id_) if by_id else name, state, results.get(id_, "null"))
        for id_, (name, state) in sorted(told.parents.items())
    ]
    asked = (it.lower() if by_id else it for it in told.depends_on)
    places = {name: place for place, name in enumerate(asked)}
    parents.sort(key=lambda one: places.get(one.name, len(places)))
    return Kin(told.name, {one.name: one for one in parents}, withheld)


def _slices(sizes: Mapping[JobId, int]) -> Iterator[list[JobId]]:
    """Ids in portions that can't have more bytes than one statement may bring, whatever
    compression has made of them, or of one id."""
    part: list[JobId] = []
    left = _SLICE_BYTES
    for id_ in sorted(sizes):
        most = sizes[id_] * _UNPACKED
        if part and (most > left or len(part) == _SLICE_ROWS):
            yield part
            part, left = [], _SLICE_BYTES
        part.append(id_)
        left -= most
    if part:
        yield part
