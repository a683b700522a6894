"""Dead letters and deliveries for the chaos points: what makes happen what nobody's stream does."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from tests.chaos.points_table import Slot
from tests.support.checker import Connection
from tests.support.load import Job
from tests.support.waiting import eventually

_DEAD = 5
_WITHIN_S = 20.0
# Letters that are open though their job isn't dead of that attempt; that were replayed, and their
# job didn't run again; that were discarded, and it did.
_BROKEN = """
SELECT l.job_id::text, l.attempt, l.resolution, e.state, e.attempt AS last
FROM dead_letters l JOIN job_ended e USING (job_id)
WHERE CASE WHEN l.resolved_at IS NULL THEN e.state <> 'dead' OR e.attempt <> l.attempt
           WHEN l.resolution = 'discarded' THEN e.attempt <> l.attempt
           ELSE e.attempt <= l.attempt AND e.state NOT IN ('cancelled', 'skipped') END
"""
_UNTOLD = """
SELECT j.job_id::text FROM jobs j JOIN job_ended e USING (job_id)
WHERE j.notify IS NOT NULL AND e.state = 'succeeded'
  AND (SELECT count(*) FROM deliveries d WHERE d.job_id = j.job_id AND d.outcome = 'delivered') <> 1
"""

Offer = Callable[[Slot, list[Job]], Awaitable[list[str]]]
Call = Callable[..., Awaitable[object]]  # slot, path, body, method
Connected = Callable[[], AbstractAsyncContextManager[Connection]]


def provocations(
    offer: Offer, call: Call, connected: Connected, hook: str
) -> dict[str, Callable[[Slot], Awaitable[object]]]:
    async def found(query: str, ids: list[str]) -> list[str]:
        """The first column, once there is a row for each."""

        async def look() -> list[str]:
            async with connected() as con:
                rows = await con.fetch(query, ids)
            return [str(row[0]) for row in rows] if len(rows) == len(ids) else []

        return await eventually(look, query, _WITHIN_S) if ids else []

    async def died(slot: Slot) -> list[str]:
        """Jobs that die in their first life, and in no second one."""
        payload = {"seconds": 0, "failures": 1, "point": slot.point}
        one = {"kind": "scripted", "queue": "dying", "max_attempts": 1, "priority": 9}
        one["payload"] = {**payload, "mended": None}
        ids = await offer(slot, [one] * _DEAD)
        return await found("SELECT job_id FROM dead_letters WHERE job_id::text = ANY($1)", ids)

    async def replay(slot: Slot) -> None:
        await died(slot)
        await call(slot, "/v1/dead-letters/replay", {"filter": {"queue": ["dying"]}})

    async def discard(slot: Slot) -> None:
        for id_ in await died(slot):
            await call(slot, f"/v1/dead-letters/{id_}", method="DELETE")

    async def send_again(slot: Slot) -> None:
        payload = {"point": slot.point}
        notify = [{"on": ["succeeded"], "webhook": hook}]
        one: dict[str, Any] = {"kind": "logged", "queue": "a", "priority": 9, "payload": payload}
        ids = await offer(slot, [{**one, "notify": notify}])
        query = "SELECT effect_id FROM deliveries WHERE job_id::text = ANY($1)"
        for id_ in await found(query, ids):
            await call(slot, f"/v1/deliveries/{id_}/resend")

    return {
        "after_replay_letters": replay,
        "after_discard": discard,
        "after_send_again": send_again,
    }


async def check(con: Connection) -> None:
    """Every letter fits its job, and whoever asked was told once, when all is over."""

    async def told() -> bool:
        return not await con.fetchval("SELECT count(*) FROM effects")

    await eventually(told, "all is delivered", 90)
    for query in (_BROKEN, _UNTOLD):
        broken = [tuple(row) for row in await con.fetch(query)]
        assert not broken, broken
