"""Dead letters: lists of deaths, groups of those that are alike, what is replayed and discarded.

In: filters and where the last page ended. Out: a page, newest death first. Always holds: a page
looks at 20,000 letters at most; what it hasn't looked at is left to the next one. If we die after
a commit, a replayed job is in line by the reconciler's next look.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from penstock.domain.audit_log import Entry
from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.domain.letter import GroupView, LetterView, Message, Resolution, Which
from penstock.store import rows
from penstock.store.audit_log import note, small_change
from penstock.store.health import Health
from penstock.store.lists import HIGHEST, LOOKS_MAX, LOWEST
from penstock.store.postgres import Postgres, Record

_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_ATTEMPT_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a letter stands among all: by the time of death."""

    died_at: datetime
    job: JobId
    attempt: int


NEWEST = Place(_LAST, HIGHEST, _ATTEMPT_MAX)
OLDEST = Place(rows.EPOCH, LOWEST, 0)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters; None is any. `start`: only those beyond it, in the order of the search. `job`
    and `workflow` are for lists and groups: only theirs."""

    queues: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    error_types: Sequence[str] | None = None
    fingerprints: Sequence[str] | None = None
    which: Which = Which.OPEN
    start: Place = NEWEST
    job: JobId | None = None
    workflow: JobId | None = None


@dataclass(frozen=True, slots=True)
class LetterPage:
    """`next`: the following page has what is below; None: there is no more."""

    items: list[LetterView]
    next: Place | None


@dataclass(frozen=True, slots=True)
class GroupPage:
    """`next`: the last group of this page, where there are more. `looked_at`: how many letters."""

    items: list[GroupView]
    next: GroupView | None
    looked_at: int

    @property
    def is_truncated(self) -> bool:
        """Whether there may be older letters, which aren't counted."""
        return self.looked_at >= LOOKS_MAX


@dataclass(frozen=True, slots=True)
class Candidates:
    """Open letters that a filter wants: those of jobs by themselves, and of jobs of graphs. `next`:
    what lies beyond hasn't been looked at; None: there is no more."""

    plain: list[JobId]
    in_graphs: list[JobId]
    next: Place | None

    def without(self, ids: Collection[JobId]) -> "Candidates":
        plain = [id_ for id_ in self.plain if id_ not in ids]
        return Candidates(plain, [id_ for id_ in self.in_graphs if id_ not in ids], self.next)


class Letters:
    """Raises StoreUnavailable within a second when Postgres doesn't answer."""

    def __init__(self, postgres: Postgres, health: Health) -> None:
        self._pg = postgres
        self._health = health

    async def page(self, of: LetterFilter, limit: int) -> LetterPage:
        """A page of `limit` letters at most, or of fewer and `next` where it had to stop."""
        query, columns = _search(of, limit + 1)
        with self._health.watch():
            async with self._pg.snapshot() as read:
                found = await read(query, *columns)
                places, following = _cut(found, limit)
                views = [_view(row) for row in await read("letters", *_pairs(places))]
        return LetterPage(views, following)

    async def latest(self, id_: JobId) -> LetterView | None:
        """The last death of a job."""
        with self._health.watch():
            async with self._pg.snapshot() as read:
                found = await read("latest_letter", id_)
                views = await read("letters", [id_], [found[0][0]]) if found else []
        return _view(views[0]) if views else None

    async def groups(
        self, of: LetterFilter, below: tuple[datetime, str] | None, limit: int
    ) -> GroupPage:
        """Open letters by fingerprint, the newest death first, below that of another group. Counts
        are of the newest 20,000 letters."""
        start = below or (_LAST, "")
        filters = (of.queues, of.kinds, of.error_types, of.job, of.workflow)
        with self._health.watch():
            async with self._pg.snapshot() as read:
                found = await read("letter_groups", LOOKS_MAX, *start, limit + 1, *filters)
                groups = [row for row in found if row[0] is not None]
                pairs = [row[4] for row in groups], [row[5] for row in groups]
                newest = await read("letters", *pairs)
        items = [_group(*both) for both in zip(groups, newest, strict=True)]
        following = items[limit - 1] if len(items) > limit else None
        return GroupPage(items[:limit], following, found[-1][1])

    async def to_replay(self, of: LetterFilter, count: int) -> Candidates:
        """The oldest open letters beyond `of.start`, at most `count`."""
        with self._health.watch():
            found = await self._pg.read("letters_to_replay", *_columns(of, count))
        wanted = [row for row in found if row[3]]
        reached = [_place(row) for row in found if not row[3]]
        following = _place(wanted[-1]) if len(wanted) == count else None
        return Candidates(
            [JobId(row[0]) for row in wanted if row[4]],
            [JobId(row[0]) for row in wanted if not row[4]],
            reached[0] if reached else following,
        )

    async def replay_plain(
        self,
        ids: Sequence[JobId],
        delays_s: Sequence[float],
        by: str,
        entry: Entry | None = None,
    ) -> list[Due]:
        """Gives jobs of no graph that are dead a new life, each so many seconds from now; those
        that it moved: others are alive or pruned, or another job holds their unique key."""
        async with small_change(self._pg, after="after_replay_letters") as transaction:
            found = await transaction.rows("replay_plain", ids, delays_s, by)
            if found and entry is not None:
                await note(transaction, entry.with_(replayed=len(found)))
        return [rows.due(row) for row in found]

    async def discard(self, id_: JobId, by: str, entry: Entry | None = None) -> bool:
        """Resolves a job's open letter, nothing else; whether there was one."""
        how = Resolution.DISCARDED
        async with small_change(self._pg, after="after_discard") as transaction:
            found = await transaction.rows("resolve_letters", [id_], how, by)
            if found:
                await note(transaction, entry)
        return bool(found)


def _search(of: LetterFilter, count: int) -> tuple[str, list[object]]:
    """The statement that finds these letters, with its parameters."""
    if of.job is not None or of.workflow is not None:
        start = (of.start.died_at, of.start.job, of.start.attempt)
        filters = (of.queues, of.kinds, of.error_types, of.fingerprints)
        is_resolved = None if of.which is Which.ALL else of.which is Which.RESOLVED
        return "letters_of", [of.job, of.workflow, *start, count, *filters, is_resolved]
    query = "open_letters" if of.which is Which.OPEN else "all_letters"
    return query, [*_columns(of, count), of.which is Which.RESOLVED]


def _columns(of: LetterFilter, count: int) -> list[object]:
    start = of.start
    return [
        *(start.died_at, start.job, start.attempt, LOOKS_MAX, count),
        *(of.queues, of.kinds, of.error_types, of.fingerprints),
    ]


def _place(row: Record) -> Place:
    return Place(row[2], JobId(row[0]), row[1])


def _pairs(places: Sequence[Place]) -> tuple[list[JobId], list[int]]:
    return [one.job for one in places], [one.attempt for one in places]


def _cut(found: Sequence[Record], limit: int) -> tuple[list[Place], Place | None]:
    places = [_place(row) for row in found if row[3]]
    reached = [_place(row) for row in found if not row[3]]
    if len(places) > limit:
        return places[:limit], places[limit - 1]
    return places, reached[0] if reached else None


def _view(row: Record) -> LetterView:
    if row["pending"]:
        message = Message.PENDING
    elif row["outcome"] is None:
        message = Message.NONE
    else:
        message = Message.DELIVERED if row["outcome"] == "delivered" else Message.FAILED
    return LetterView(
        job=JobId(row["job_id"]),
        attempt=row["attempt"],
        queue=row["queue"],
        kind=row["kind"],
        error_type=row["error_type"],
        fingerprint=row["fingerprint"],
        reason=row["reason"],
        died_at=row["died_at"],
        resolved_at=row["resolved_at"],
        resolution=row["resolution"],
        resolved_by=row["resolved_by"],
        error=row["error"],
        message=message,
    )


def _group(row: Record, newest: Record) -> GroupView:
    view = _view(newest)
    return GroupView(
        fingerprint=row[0],
        kind=view.kind,
        error_type=view.error_type,
        count=row[1],
        first=row[2],
        last=row[3],
        job=view.job,
        attempt=view.attempt,
        queue=view.queue,
        error=view.error,
    )


def beyond(of: LetterFilter, place: Place) -> LetterFilter:
    """The same letters, from there on."""
    return replace(of, start=place)
