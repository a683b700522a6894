"""The outbox in Postgres: effects are written, claimed by lease, put off, finished.

In: what is to leave the house. Out: what is due, an endpoint's share at a time. If we die between a
claim and what becomes of it, the lease ends and another claims it: it is delivered at least once,
under the same id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock.domain.alike import fingerprint
from penstock.domain.effect import (
    Channel,
    Effect,
    EndedJob,
    EndedWorkflow,
    NewEffect,
    Policy,
    Rule,
    WaitsFor,
    of_workflow,
    wishes_from,
)
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.workflow import WorkflowState
from penstock.store import rows
from penstock.store.postgres import Postgres, Record, Transaction

_GIVEN_UP = 1000  # at once


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a channel has to deliver: how much, how old the oldest is that its rule doesn't hold,
    how many wait for the end of quiet hours, and for others of their groups. NaN: nobody knows."""

    count: float
    oldest_s: float
    quiet: float
    gathering: float


@dataclass(frozen=True, slots=True)
class Failing:
    """An endpoint that fails; `disabled_at`: when it was given up."""

    since: datetime
    disabled_at: datetime | None
    error: str


class Effects:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def claim(
        self,
        channel: Channel,
        lease: bytes,
        busy: Sequence[str],
        share: tuple[int, int, float],
        after: str = "",
    ) -> list[Effect]:
        """The next due ones of endpoints that aren't `busy`, those behind `after`, in their order.
        `share`: at most so many an endpoint, so many in all, for so many seconds."""
        per_endpoint, count, lease_s = share
        found = await self._pg.rows(
            "claim_effects",
            channel,
            list(busy),
            per_endpoint,
            count,
            lease,
            lease_s,
            after,
            point="after_claim_effects",
        )
        return [_effect(row) for row in found]

    async def finish(
        self, lease: bytes, over: Sequence[tuple[bytes, str, str | None]]
    ) -> set[bytes]:
        """(id, outcome, error) each; those whose lease was still ours."""
        ids, outcomes, errors = [list(it) for it in zip(*over, strict=True)]
        found = await self._pg.rows(
            "finish_effects", ids, lease, outcomes, errors, point="after_finish_effects"
        )
        return {row[0] for row in found}

    async def put_off(
        self, lease: bytes, late: Sequence[tuple[bytes, float, str | None, WaitsFor | None]]
    ) -> None:
        """(id, seconds, error, what it waits for now, if that is known) each."""
        ids, delays, errors, reasons = [list(it) for it in zip(*late, strict=True)]
        await self._pg.rows("put_off_effects", ids, lease, delays, errors, reasons)

    async def hold(self, lease: bytes, held: Sequence[tuple[bytes, datetime]]) -> None:
        """(id, end of quiet hours) each."""
        ids, ends = [list(it) for it in zip(*held, strict=True)]
        await self._pg.rows("hold_effects", ids, lease, ends)

    async def now(self) -> datetime:
        """By Postgres' clock."""
        at: datetime = (await self._pg.rows("now"))[0][0]
        return at

    async def hasten(self, ends: Sequence[tuple[Rule, datetime]], count: int) -> int:
        """Has what these rules hold for longer than till then due earlier; how many, `count` at
        most."""
        columns = [
            [rule.name for rule, _ in ends],
            [rule.wish.channel for rule, _ in ends],
            [rule.wish.endpoint for rule, _ in ends],
            [until for _, until in ends],
            [rule.group.wait_s if rule.group else 0.0 for rule, _ in ends],
        ]
        return len(await self._pg.rows("hasten_held", *columns, count))

    async def give_up_unserved(self, channel: Channel, unserved_s: float, why: str) -> int:
        """Ends what nobody has tried for so long; how many, of which there may be more."""
        found = await self._pg.rows("give_up_unserved", channel, unserved_s, _GIVEN_UP, why)
        return len(found)

    async def waiting(self) -> dict[Channel, Waiting]:
        found = await self._pg.rows("effects_waiting")
        return {Channel(row[0]): Waiting(*row[1:]) for row in found}

    async def failed(
        self, endpoint: str, channel: Channel, why: str, *, gone: bool, patience_s: float
    ) -> bool:
        """Counts a failure of an endpoint; whether it is disabled now."""
        found = await self._pg.value("endpoint_failed", endpoint, channel, why, gone, patience_s)
        return bool(found)

    async def failing(self, endpoint: str) -> Failing | None:
        """None: it works, as far as is known."""
        found = await self._pg.rows("endpoint", endpoint)
        return Failing(*found[0]) if found else None

    async def works(self, endpoint: str) -> None:
        await self._pg.rows("endpoint_works", endpoint)


async def add_effects(transaction: Transaction, effects: Sequence[NewEffect]) -> None:
    """Writes effects in the transaction that they tell of."""
    if effects:
        await transaction.rows("add_effects", *effect_columns(effects))


async def tell_ends(transaction: Transaction, policy: Policy, over: Sequence[EndedJob]) -> None:
    """Writes what is to be told of jobs that ended otherwise than by a settlement: their wishes and
    tags are looked up. Deaths are dead letters."""
    told = [one for one in over if one.state is not State.SKIPPED]
    if not told:
        return
    all_of_them = any(one.state in policy.looks_at for one in told)
    found = await transaction.rows("wishes_of", [one.id for one in told], all_of_them)
    asked = {row[0]: (wishes_from(row[1]), tuple(row[2] or ())) for row in found}
    effects = []
    for one in told:
        wishes, tags = asked.get(one.id, ((), ()))
        effects += policy.of_job(replace(one, tags=tags, wishes=wishes))
    await add_effects(transaction, effects)
    if dead := [one for one in told if one.state is State.DEAD]:
        marks = [fingerprint(one.kind, one.reason or "", "") for one in dead]
        await transaction.rows("add_dead_letters", [one.id for one in dead], marks)


async def tell_workflows(
    transaction: Transaction, over: Sequence[tuple[JobId, WorkflowState]]
) -> None:
    """Writes what is to be told of workflows that have just ended."""
    states = dict(over)
    found = await transaction.rows("workflow_wishes", list(states))
    effects = []
    for row in found:
        id_ = JobId(row[0])
        effects += of_workflow(EndedWorkflow(id_, states[id_], row[2], wishes_from(row[1])))
    await add_effects(transaction, effects)


def effect_columns(effects: Sequence[NewEffect]) -> list[list[object]]:
    """The columns of add_effects."""
    return [
        [one.channel for one in effects],
        [one.endpoint for one in effects],
        [one.dedupe for one in effects],
        [one.event for one in effects],
        [one.job for one in effects],
        [one.workflow for one in effects],
        [one.attempt for one in effects],
        [one.state for one in effects],
        [one.reason for one in effects],
        [one.rule for one in effects],
    ]


def _effect(row: Record) -> Effect:
    return Effect(
        **rows.effect_fields(row),
        group=row["group_id"],
        message=row["message_id"],
        labels=row["labels"],
        lapsed=row["lapsed"],
        now=row["now"],
        lease=row["lease"],
    )
