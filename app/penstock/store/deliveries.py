"""What became of effects: lists of what is pending and what is over, sending again, endpoints.

In: filters and where the last page ended. Out: a page, the newest ends first. Always holds: a page
looks at a bounded number of rows, of either place; an effect that ends meanwhile is in it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock.domain.audit_log import Entry
from penstock.domain.delivery import DeliveryView, EndpointView, Outcome, endpoint_id
from penstock.domain.effect import TEST_EVENT, Channel
from penstock.domain.ids import JobId
from penstock.store import rows
from penstock.store.audit_log import note, small_change
from penstock.store.health import Health
from penstock.store.postgres import Postgres, Record

LOOKS_MAX = 10_000  # rows of either place that one page looks at,
PROBED_MAX = 1000  # where each costs a look at its job
OF_ONE_MAX = 1000  # effects of one job or workflow
WOKEN_MAX = 10_000  # effects that are due at once when their endpoint is enabled again

Place = tuple[datetime, bytes]  # where an effect stands among all: when it came to be, its id
NEWEST: Place = (datetime(9999, 12, 31, tzinfo=UTC), b"\xff" * 16)


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which effects; None is any. With a job or a workflow only its own."""

    queues: Sequence[str] | None = None
    channels: Sequence[str] | None = None
    outcomes: frozenset[Outcome] | None = None
    job: JobId | None = None
    workflow: JobId | None = None
    below: Place = NEWEST


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """`next`: the following page has what is below; None: there is no more."""

    items: list[DeliveryView]
    next: Place | None


class Deliveries:
    """Raises StoreUnavailable within a second when Postgres doesn't answer."""

    def __init__(self, postgres: Postgres, health: Health) -> None:
        self._pg = postgres
        self._health = health

    async def page(self, of: DeliveryFilter, limit: int) -> DeliveryPage:
        """A page of `limit` effects at most, or of fewer and `next` where it had to stop."""
        with self._health.watch():
            if of.job is not None or of.workflow is not None:
                return await self._of_one(of, limit)
            async with self._pg.snapshot() as read:
                found: list[Record] = []
                if of.outcomes is None or Outcome.PENDING in of.outcomes:
                    found += await read("effects_page", *_columns(of, limit + 1), None)
                ended = None if of.outcomes is None else list(of.outcomes - {Outcome.PENDING})
                if ended is None or ended:
                    found += await read("deliveries_page", *_columns(of, limit + 1), ended)
        reached = max((_place(row) for row in found if row["channel"] is None), default=None)
        places = [_view(row) for row in found if row["channel"] is not None]
        return _cut(places, reached, limit)

    async def _of_one(self, of: DeliveryFilter, limit: int) -> DeliveryPage:
        found = await self._pg.read("deliveries_of", of.job, of.workflow, OF_ONE_MAX)
        views = [one for row in found if _is_wanted(one := _view(row), of)]
        return _cut(views, None, limit)

    async def delivery(self, id_: bytes) -> DeliveryView | None:
        with self._health.watch():
            found = await self._pg.read("delivery", id_)
        return _view(found[0]) if found else None

    async def send_again(self, id_: bytes, entry: Entry | None = None) -> bool:
        """Makes an effect due at once, also one that is over; whether it did: one that is being
        sent just now is left alone."""
        with self._health.watch():
            async with small_change(self._pg, after="after_send_again") as transaction:
                found = await transaction.rows("send_again", id_)
                if found:
                    await note(transaction, entry)
        return bool(found)

    async def add_test(
        self,
        id_: bytes,
        channel: Channel,
        endpoint: str,
        rule: str | None = None,
        entry: Entry | None = None,
    ) -> None:
        """Sends a message that tells of nothing, by itself or as if by a rule."""
        dedupe = f"test:{id_.hex()}"
        with self._health.watch():
            async with small_change(self._pg) as transaction:
                await transaction.rows(
                    "add_test_effect", id_, channel, endpoint, dedupe, TEST_EVENT, rule
                )
                await note(transaction, entry)

    async def endpoints(self, after: bytes | None, limit: int) -> list[EndpointView]:
        """The first endpoints after that short id that fail or were given up, by short id."""
        with self._health.watch():
            found = await self._pg.read("endpoints", after.hex() if after else "", limit)
        return [EndpointView(*row) for row in found]

    async def is_disabled(self, endpoint: str) -> bool:
        """Whether an endpoint was given up."""
        with self._health.watch():
            found = await self._pg.read("endpoint", endpoint)
        return bool(found) and found[0]["disabled_at"] is not None

    async def enable(self, endpoint: str, entry: Entry | None = None) -> tuple[str, Channel] | None:
        """Takes an endpoint back that was given up, or fails, by itself or its short id."""
        with self._health.watch():
            async with small_change(self._pg) as transaction:
                found = await transaction.rows("endpoint_enabled", endpoint, WOKEN_MAX)
                if found and entry is not None:
                    name, channel = endpoint_id(found[0][0]), found[0][1]
                    await note(transaction, entry.about(name, channel=channel))
        return (found[0][0], Channel(found[0][1])) if found else None


def _columns(of: DeliveryFilter, count: int) -> list[object]:
    looks = LOOKS_MAX if of.queues is None else PROBED_MAX
    return [*of.below, looks, count, of.channels, of.queues]


def _is_wanted(one: DeliveryView, of: DeliveryFilter) -> bool:
    return (
        (one.at, one.id) < of.below
        and (of.job is None or one.job == of.job)
        and (of.workflow is None or one.workflow == of.workflow)
        and (of.channels is None or one.channel in of.channels)
        and (of.outcomes is None or one.outcome in of.outcomes)
    )


def _cut(views: list[DeliveryView], reached: Place | None, limit: int) -> DeliveryPage:
    """Only what both places have been looked at for."""
    views = [one for one in views if reached is None or (one.at, one.id) >= reached]
    views.sort(key=lambda one: (one.at, one.id), reverse=True)
    if len(views) <= limit:
        return DeliveryPage(views, reached)
    last = views[limit - 1]
    return DeliveryPage(views[:limit], (last.at, last.id))


def _place(row: Record) -> Place:
    return row["at"], row["effect_id"]


def _view(row: Record) -> DeliveryView:
    return DeliveryView(
        **rows.effect_fields(row),
        outcome=Outcome(row["outcome"]),
        error=row["error"],
        due_at=row["due_at"],
        finished_at=row["finished_at"],
        part_of=row["part_of"],
    )
