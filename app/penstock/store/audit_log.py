"""The audit log in Postgres: entries are added and read, never changed.

In: entries, mostly within the transaction that does what they tell of (`note`). Out: pages of
them, newest first. Always holds: an entry exists if, and only if, what it tells of was committed;
one that is sent again is passed over. A page looks at 20,000 entries at most.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock.domain.audit_log import SUBMISSIONS, Entry, EntryView
from penstock.store import rows
from penstock.store.health import Health
from penstock.store.lists import HIGHEST, LOOKS_MAX
from penstock.store.postgres import Postgres, Record, Transaction

Place = tuple[datetime, bytes]  # where an entry stands among all

NEWEST: Place = (datetime(9999, 12, 31, tzinfo=UTC), HIGHEST)


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries; None is any. `since` is in, `below` is out."""

    actors: Sequence[str] | None = None
    actions: Sequence[str] | None = None
    objects: Sequence[str] | None = None
    queues: Sequence[str] | None = None
    outcomes: Sequence[str] | None = None
    requests: Sequence[str] | None = None
    since: datetime = rows.EPOCH
    below: Place = NEWEST


@dataclass(frozen=True, slots=True)
class EntryPage:
    """`next`: the following page has what is below; None: there is no more."""

    items: list[EntryView]
    next: Place | None


async def note(transaction: Transaction, *entries: Entry | None) -> None:
    """Adds entries to what a transaction does; None is what nobody asked for from outside."""
    if wanted := [one for one in entries if one is not None]:
        await transaction.rows("add_entries", *rows.entries(wanted))


@asynccontextmanager
async def small_change(
    postgres: Postgres, after: str = "after_change"
) -> AsyncIterator[Transaction]:
    """One statement that changes something, and the entry that tells of it: both or neither.
    `after`: the chaos point behind its commit."""
    async with postgres.transaction(before="before_change", after=after) as transaction:
        yield transaction


class AuditLog:
    """Raises StoreUnavailable within a second when Postgres doesn't answer."""

    def __init__(self, postgres: Postgres, health: Health) -> None:
        self._pg = postgres
        self._health = health

    async def add(self, entries: Sequence[Entry]) -> None:
        """Adds entries of what isn't a transaction in Postgres, as reading the settings anew."""
        if entries:
            with self._health.watch():
                await self._pg.rows("add_entries", *rows.entries(entries))

    async def page(self, of: EntryFilter, limit: int) -> EntryPage:
        """A page of `limit` entries at most, or of fewer and `next` where it had to stop."""
        with self._health.watch():
            found = await self._pg.read(_query(of), *_arguments(of, limit + 1))
        reached = [(row["at"], row["audit_id"]) for row in found if row["action"] is None]
        items = [_view(row) for row in found if row["action"] is not None]
        if len(items) > limit:
            last = items[limit - 1]
            return EntryPage(items[:limit], (last.at, last.id))
        return EntryPage(items, reached[0] if reached else None)


def _query(of: EntryFilter) -> str:
    """The statement whose index has the fewest entries to look at."""
    if of.objects is not None and len(of.objects) == 1:
        return "entries_of_object"
    if of.actions is not None and SUBMISSIONS.isdisjoint(of.actions):
        return "entries_but_submissions"
    if of.actors is not None and len(of.actors) == 1:
        return "entries_of_actor"
    return "entries_by_time"


def _arguments(of: EntryFilter, count: int) -> list[object]:
    return [
        *(*of.below, of.since, LOOKS_MAX, count),
        *(of.actors, of.actions, of.objects, of.queues, of.outcomes, of.requests),
    ]


def _view(row: Record) -> EntryView:
    return EntryView(
        id=row["audit_id"],
        at=row["at"],
        actor=row["actor"],
        roles=row["roles"],
        action=row["action"],
        object_id=row["object_id"],
        queue=row["queue"],
        outcome=row["outcome"],
        address=row["address"],
        request_id=row["request_id"],
        details=row["details"],
    )
