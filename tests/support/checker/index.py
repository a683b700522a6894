"""I8: what lies on the shelves of a real Redis is what is due and running in Postgres.

Jobs move while one looks, so an offence counts only while it is found in look after look: what
stands wrong for a moment is gone in the next one, what stands wrong for good is left at the end.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import redis.asyncio as redis

from penstock.queue import keys
from tests.support.checker.evidence import Violations

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Offences = set[tuple[str, str]]  # rule, who breaks it

# One that is due within the second may be on its way from shelf to shelf.
_LIVE = """
SELECT job_id::text AS id, queue, kind,
       CASE WHEN ready_at <= clock_timestamp() THEN 'due'
            WHEN ready_at <= clock_timestamp() + interval '1 s' THEN 'soon' ELSE 'future' END
FROM job_due UNION ALL SELECT job_id::text, queue, kind, 'running' FROM job_running
UNION ALL SELECT job_id::text, queue, kind, 'blocked' FROM job_blocked
"""
_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class _Shelf:
    queue: str
    name: str  # leases, scheduled, ready:<kind>


async def converges(
    con: Connection, url: str, within_s: float = 60.0, kinds: Collection[str] | None = None
) -> None:
    """Returns when Redis agrees with Postgres; raises Violations with what stood wrong in every
    look for so long. `kinds`: those that somebody serves, None: all."""
    give_up_at = time.monotonic() + within_s
    left: Offences | None = None
    async with redis.Redis.from_url(url) as client:
        while left is None or left:
            if left is not None:
                if time.monotonic() > give_up_at:
                    raise Violations(_by_rule(left))
                await asyncio.sleep(_EVERY_S)
            found = await _offences(con, client, kinds)
            left = found if left is None else left & found


async def _offences(
    con: Connection, client: "redis.Redis", kinds: Collection[str] | None
) -> Offences:
    before = await _live(con)
    shelves = await _shelves(client)
    after = await _live(con)
    # What moved between the two looks at Postgres proves nothing.
    still = {id_: where for id_, where in before.items() if after.get(id_) == where}
    known = before.keys() | after.keys()
    return _missing(still, shelves, kinds) | _too_much(known, still, shelves)


def _missing(
    live: Mapping[str, tuple[str, str, str]],
    shelves: Mapping[str, Sequence[_Shelf]],
    kinds: Collection[str] | None,
) -> Offences:
    found = set()
    for id_, (queue, kind, state) in live.items():
        if kinds is not None and kind not in kinds:
            continue
        on = shelves.get(id_, ())
        if state == "due" and not {_Shelf(queue, f"ready:{kind}"), _Shelf(queue, "leases")} & {*on}:
            found.add(("I8 what is due is in line or leased", id_))
        if state == "blocked" and _Shelf(queue, "blocked") not in on:
            found.add(("I8 what is blocked is on the blocked shelf", id_))
        if state == "future" and _Shelf(queue, "scheduled") not in on:
            found.add(("I8 what is to come is on the scheduled shelf", id_))
    return found


def _too_much(
    known: Collection[str],
    still: Mapping[str, tuple[str, str, str]],
    shelves: Mapping[str, Sequence[_Shelf]],
) -> Offences:
    found = set()
    for id_, on in shelves.items():
        if id_ not in known:
            names = ", ".join(sorted(shelf.name for shelf in on))
            found.add(("I8 what stands on a shelf is live", f"{id_} ({names})"))
        if len(on) > 1:
            found.add(("I8 nothing stands on two shelves", id_))
        if id_ in still and still[id_][2] == "running" and any(s.name != "leases" for s in on):
            found.add(("I8 what runs is in no line", id_))
        if id_ in still and still[id_][2] == "blocked" and any(s.name != "blocked" for s in on):
            found.add(("I8 what is blocked is in no line", id_))
        if id_ in still and any(s.queue != still[id_][0] for s in on):
            found.add(("I8 a shelf has its own queue's jobs", id_))
    return found


async def _live(con: Connection) -> dict[str, tuple[str, str, str]]:
    return {row[0]: (row[1], row[2], row[3]) for row in await con.fetch(_LIVE)}


async def _shelves(client: "redis.Redis") -> dict[str, list[_Shelf]]:
    """Which shelves each id stands on."""
    found: dict[str, list[_Shelf]] = defaultdict(list)
    async for key in client.scan_iter(match=f"{_tag('*')}*", count=1000, _type="zset"):
        queue, _, name = key.decode().removeprefix(_tag("")[:-2]).partition("}:")
        async for member, _score in _members(client, key):
            found[str(UUID(bytes=bytes(member[:16])))].append(_Shelf(queue, name))
    return found


async def _members(client: "redis.Redis", key: bytes) -> Any:
    seen: set[bytes] = set()  # a ZSCAN may tell a member twice
    async for member, score in client.zscan_iter(key, count=1000):
        if member not in seen:
            seen.add(member)
            yield member, score


def _tag(queue: str) -> str:
    """How the keys of a queue begin."""
    return keys.leases(queue).removesuffix("leases")


def _by_rule(offences: Offences) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for rule, id_ in offences:
        found[rule].append(id_)
    return found
