"""Lists of jobs: which places to look in, and one page out of what was found there.

In: filters and where the last page ended. Out: a page of jobs, newest first. A page is read in one
snapshot, so a job that moves meanwhile is in it once, as it stood when the page was begun. Always
holds: a page looks at about 20,000 rows at most, however much there is; what it hasn't looked at
is left to the next one.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from penstock import clock
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, State
from penstock.domain.terms import Current
from penstock.domain.view import JobView
from penstock.store.health import Health
from penstock.store.postgres import Postgres, Record
from penstock.store.reads import job_view

LOOKS_MAX = 20_000  # rows that one page looks at
# Of payloads, results, errors and names of parents: a page ends when it has more.
PAGE_BYTES = 1024 * 1024
LOWEST, HIGHEST = JobId(bytes(16)), JobId(b"\xff" * 16)

_QUEUES_MAX = 500  # with more of them, looking at all jobs is cheaper
_PROBED_MAX = 1000  # rows looked at where each costs a look at another table
_FEW = 3000  # what is read at once where it is all there is
_COMMON = 2000  # newest jobs among which a common tag is soon found
_SLICE = 2  # jobs read first with what may have MiBs each; then twice as many,
_SLICE_MAX = 16  # up to so many

_REMEMBERED_S, _REMEMBERED_MAX = 60.0, 1000

_T = TypeVar("_T")
_Tags = tuple[str, ...]
_Read = Callable[..., Awaitable[list[Record]]]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: from id `since` on and below id `below`; None is any queue, kind, tag, state,
    workflow or none."""

    queues: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    states: frozenset[State] | None = None
    since: JobId = LOWEST
    below: JobId = HIGHEST
    workflow: JobId | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """`next`: the following page has what is below this id; None: there is no more."""

    items: list[JobView]
    next: JobId | None


@dataclass(slots=True)
class _Found:
    """Candidates of one search, and from which id on it has looked at everything."""

    ids: list[JobId]
    reached: JobId = LOWEST


class Lists:
    def __init__(self, postgres: Postgres, health: Health, current: Current | None = None) -> None:
        self._pg = postgres
        self._current = current or Current()
        self._health = health
        self._common: set[_Tags] = set()
        self._common_until = 0.0

    async def jobs(self, of: JobFilter, limit: int, *, whole: bool = False) -> JobPage:
        """A page of `limit` jobs at most, or of fewer and `next` where it had to stop looking.
        `whole`: with payloads and results. Raises StoreUnavailable."""
        with self._health.watch():
            async with self._pg.snapshot() as read:
                found = await _Search(read, of, limit + 1, self._remembered()).run()
                ids = sorted(found.ids, reverse=True)
                following = found.reached if found.reached != LOWEST else None
                if len(ids) > limit:
                    ids, following = ids[:limit], ids[limit - 1]
                items = await _read_jobs(read, ids, whole=whole)
        if len(items) < len(ids):
            following = items[-1].id
        return JobPage([self._current.followed(item) for item in items], following)

    def _remembered(self) -> set[_Tags]:
        """Tags that were common a moment ago."""
        now = clock.monotonic()
        if now > self._common_until or len(self._common) > _REMEMBERED_MAX:
            self._common, self._common_until = set(), now + _REMEMBERED_S
        return self._common


class _Search:
    """Looks in the places that the filter allows for, until it has `count` jobs."""

    def __init__(self, read: _Read, of: JobFilter, count: int, common: set[_Tags]) -> None:
        self._read = read
        self._common = common
        self._of = of
        self._count = count
        states = of.states or frozenset(State)
        self._live = states & {State.SCHEDULED, State.READY}
        self._runs = State.RUNNING in states
        self._waits = State.BLOCKED in states
        self._ended = sorted(states & TERMINAL)
        # Most jobs succeed: those who did are found by looking at all jobs, or at all that ended.
        self._has_successes = State.SUCCEEDED in states

    async def run(self) -> _Found:
        if self._of.workflow is not None:
            return await self._ask("list_of_workflow", LOOKS_MAX, self._of.workflow)
        if self._of.tags is None:
            return await self._in_places(LOOKS_MAX)
        return await self._tagged()

    async def _tagged(self) -> _Found:
        """A common tag by looking at many jobs, a rare one by the index of tags."""
        if self._has_successes:
            found = await self._ask("list_tagged", _COMMON)
        else:
            found = await self._in_places(_PROBED_MAX)
        if self._is_done(found):
            return found
        few = await self._few_tagged()
        if few is not None:
            return few
        if self._has_successes:
            return await self._ask("list_tagged", _PROBED_MAX if self._of.states else LOOKS_MAX)
        return found

    async def _few_tagged(self) -> _Found | None:
        """All that have the tags, if they are few. To find that they aren't costs the more the
        more they are, so that is remembered for a while."""
        tags = tuple(self._of.tags or ())
        if tags in self._common:
            return None
        await self._read("set_planner", "enable_bitmapscan", "on")
        few = await self._ask_if_few("list_tagged_few", _FEW)
        await self._read("set_planner", "enable_bitmapscan", "off")
        if few is None:
            self._common.add(tags)
        return few

    async def _in_places(self, looks_max: int) -> _Found:
        places = (bool(self._live), self._runs, self._waits, bool(self._ended))
        share = looks_max // max(sum(places), 1)
        found = []
        if self._live:
            found.append(await self._line("list_due", "list_due_few", share))
        if self._runs:
            found.append(await self._ask("list_running", share))
        if self._waits:
            found.append(await self._line("list_blocked", "list_blocked_few", share))
        if self._ended:
            found.append(await self._over(share))
        return _merged(found)

    async def _line(self, query: str, query_few: str, looks_max: int) -> _Found:
        """What waits, in a place where others may have a backlog."""
        queues, kinds = self._of.queues, self._of.kinds
        if (queues or kinds) and len(queues or ()) <= _QUEUES_MAX:
            few = await self._ask_if_few(query_few, _FEW)
            if few is not None:
                return few
        return await self._ask(query, looks_max)

    async def _over(self, looks_max: int) -> _Found:
        queues, kinds = self._of.queues, self._of.kinds
        if (queues or kinds) and len(queues or ()) <= _QUEUES_MAX:
            found = await self._ask_if_few("list_ended_of_lanes", looks_max)
            if found is not None:
                return found
        query = "list_ended" if self._has_successes else "list_ended_of_states"
        return await self._ask(query, looks_max)

    def _is_done(self, found: _Found) -> bool:
        return len(found.ids) >= self._count or found.reached == LOWEST

    async def _ask(self, query: str, looks_max: int, *more: object) -> _Found:
        found = await self._ask_if_few(query, looks_max, *more)
        assert found is not None, query
        return found

    async def _ask_if_few(self, query: str, looks_max: int, *more: object) -> _Found | None:
        """What a query finds; None when it says that there is too much for it."""
        found = await self._rows(query, looks_max, *more)
        if found and found[-1][0] is None:
            return None
        reached = [JobId(row[0]) for row in found if row[1] is None]
        return _Found(
            [JobId(row[0]) for row in found if row[1] is not None],
            reached[0] if reached else LOWEST,
        )

    async def _rows(self, query: str, looks_max: int, *more: object) -> list[Record]:
        of = self._of
        states = self._ended if query.startswith("list_ended") else of.states
        return await self._read(
            query,
            *(of.below, of.since, looks_max, self._count),
            *(of.queues, of.kinds, None if states is None else list(states), of.tags),
            *more,
        )


def _merged(found: Iterable[_Found]) -> _Found:
    """Only what all of them have looked at."""
    parts = list(found)
    reached = max((part.reached for part in parts), default=LOWEST)
    return _Found([id_ for part in parts for id_ in part.ids if id_ >= reached], reached)


async def _read_jobs(read: _Read, ids: Sequence[JobId], *, whole: bool) -> list[JobView]:
    """The jobs in this order; fewer when they become too large."""
    if not whole:
        return await _with_parents(read, [job_view(row) for row in await read("jobs", ids, False)])
    found: list[JobView] = []
    size = 0
    for part in _slices(ids):
        for row in await read("jobs", part, True):
            view = job_view(row)
            size += view.size
            if found and size > PAGE_BYTES:
                return found
            found.append(view)
    return found


async def _with_parents(read: _Read, views: list[JobView]) -> list[JobView]:
    """With the names of those that they depend on, which may be many: so they are read apart."""
    depending = [n for n, view in enumerate(views) if view.run_if is not None]
    size = 0
    for part in _slices(depending):
        rows = await read("depends_on_of", [views[n].id for n in part])
        asked = {JobId(row[0]): tuple(row[1] or ()) for row in rows}
        for n in part:
            views[n] = replace(views[n], depends_on=asked.get(views[n].id, ()))
            size += views[n].size
            if n and size > PAGE_BYTES:
                return views[:n]
    return views


def _slices(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Few at first, for each may be large; then more."""
    start, step = 0, _SLICE
    while start < len(items):
        yield items[start : start + step]
        start, step = start + step, min(step * 2, _SLICE_MAX)
