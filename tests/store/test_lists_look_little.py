"""No list looks at more rows than it may, however many there are and however rare what it wants.

The plans are made on empty tables, as after a first start, and kept (pitfalls.md, A1); then 100,000
jobs come in and every page is explained instead of answered: what counts is rows, not time.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import asyncpg
import orjson
import pytest

from penstock.domain.job import State
from penstock.store import lists, postgres, queries
from penstock.store.lists import HIGHEST, JobFilter, _Search
from tests.support import making
from tests.support.database import TABLES
from tests.support.figures import figures
from tests.support.placed import Placed, place
from tests.support.servers import Servers

JOBS = 100_000
LOOKS_MAX, FEW, PROBED, COMMON = 2000, 400, 300, 200
# Each window is looked at twice, to find matches and to find its end; live places and ended ones
# share LOOKS_MAX; a row that is looked at may cost a look at `jobs` or at three places.
ROWS_MAX = 3 * LOOKS_MAX + 2 * FEW
TYPES = "uuid, uuid, int, int, text[], text[], text[], text[]"
OF_WORKFLOW = "list_of_workflow"  # has one parameter more

WORKFLOW = making.job_id()

FILTERS = {
    "none": JobFilter(),
    "queue": JobFilter(queues=["q1"]),
    "rare queue": JobFilter(queues=["rare"]),
    "nobody's queues": JobFilter(queues=[f"n{n}" for n in range(50)]),
    "too many queues": JobFilter(queues=[f"n{n}" for n in range(600)]),
    "kind": JobFilter(kinds=["k1"]),
    "rare kind": JobFilter(kinds=["rare"]),
    "nobody's kind": JobFilter(kinds=["none"]),
    "rare kind of a queue": JobFilter(queues=["q1"], kinds=["rare"]),
    "succeeded": JobFilter(states=frozenset({State.SUCCEEDED})),
    "dead": JobFilter(states=frozenset({State.DEAD})),
    "cancelled and dead": JobFilter(states=frozenset({State.CANCELLED, State.DEAD})),
    "skipped": JobFilter(states=frozenset({State.SKIPPED})),
    "ready of a kind": JobFilter(states=frozenset({State.READY}), kinds=["k1"]),
    "running": JobFilter(states=frozenset({State.RUNNING})),
    "common tag": JobFilter(tags=["half"]),
    "rare tag": JobFilter(tags=["rare"]),
    "nobody's tag": JobFilter(tags=["none"]),
    "common tag, dead": JobFilter(tags=["half"], states=frozenset({State.DEAD})),
    "common tag, cancelled": JobFilter(tags=["half"], states=frozenset({State.CANCELLED})),
    "common tag, rare kind": JobFilter(tags=["half"], kinds=["rare"]),
    "blocked": JobFilter(states=frozenset({State.BLOCKED})),
    "blocked of a rare kind": JobFilter(states=frozenset({State.BLOCKED}), kinds=["rare"]),
    "a workflow's": JobFilter(workflow=WORKFLOW),
    "a workflow's dead": JobFilter(workflow=WORKFLOW, states=frozenset({State.DEAD})),
    "nothing so old": JobFilter(below=making.job_id(), tags=["half"]),
}


def many_jobs() -> Iterable[Placed]:
    """The newest tenth still waits, a third of it for parents; three each are rare, and no
    cancelled one has a tag. Some hundred are of a workflow."""
    for n, id_ in enumerate(making.job_ids(JOBS)):
        state = State.SUCCEEDED
        if n > JOBS * 0.9:
            state = State.READY if n % 3 else State.BLOCKED
        elif n % 50 == 3:
            state = State.CANCELLED
        elif n % 10_000 == 7:
            state = State.DEAD
        rare = n % 33_333 == 11
        tags = ("half", "rare") if rare else ("half",)
        yield Placed(
            id_,
            "rare" if rare else f"q{n % 7}",
            "rare" if n % 33_333 == 12 else f"k{n % 5}",
            state,
            tags if n % 2 == 0 or rare else (),
            WORKFLOW if n % 700 == 0 else None,
        )


@pytest.fixture(scope="module")
def dsn(servers: Servers) -> str:
    """A database whose tables nobody vacuums or analyses."""

    async def quiet() -> str:
        dsn = await servers.fresh_database()
        con = await asyncpg.connect(dsn)
        for table in TABLES:
            await con.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        await con.close()
        return dsn

    return asyncio.run(quiet())


class Explainer:
    """Answers queries as the store would, and counts the rows that they looked at."""

    def __init__(self, con: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._con = con
        self.looked = 0
        self.names = [name for name in queries.load() if name.startswith("list_")]

    async def prepare(self) -> None:
        """Makes all plans, as they are made for any values."""
        await self._con.execute("SET plan_cache_mode = force_generic_plan")
        for name in self.names:
            types, more = (f"{TYPES}, uuid", [HIGHEST]) if name == OF_WORKFLOW else (TYPES, [])
            await self._con.execute(f"PREPARE {name}({types}) AS {queries.load()[name]}")
            on = "on" if name == "list_tagged_few" else "off"
            await self.read("set_planner", "enable_bitmapscan", on)
            await self.read(name, HIGHEST, bytes(16), 100, 10, None, None, None, None, *more)

    async def read(self, name: str, *args: Any) -> list[asyncpg.Record]:
        if name == "set_planner":
            return list(await self._con.fetch(f"SET {args[0]} = {args[1]}"))
        call = f"EXECUTE {name}({', '.join(literal(arg) for arg in args)})"
        told = await self._con.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {call}")
        self.looked += rows_of(orjson.loads(told)[0]["Plan"])
        return await self._con.fetch(call)


def literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"'{value.hex()}'"
        case list():
            return "'{" + ",".join(value) + "}'"
        case _:
            return str(value)


def rows_of(node: dict[str, Any]) -> int:
    """Rows that were taken from tables below this node, those that a filter dropped included."""
    below = sum(rows_of(child) for child in node.get("Plans", []))
    if "Relation Name" not in node:
        return below
    dropped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return below + int((node["Actual Rows"] + dropped) * node["Actual Loops"])


@pytest.fixture
async def explainer(dsn: str) -> AsyncIterator[Explainer]:
    options = postgres.connect_options(postgres.Limits(), postgres._READERS)
    con = await asyncpg.connect(dsn, **options)
    await postgres.prepare(con)
    one = Explainer(con)
    await one.prepare()
    yield one
    await con.close()


async def test_no_list_looks_at_more_than_it_may(
    dsn: str, explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = {"LOOKS_MAX": LOOKS_MAX, "_FEW": FEW, "_PROBED_MAX": PROBED, "_COMMON": COMMON}
    for name, value in budgets.items():
        monkeypatch.setattr(lists, name, value)
    con = await asyncpg.connect(dsn)
    await postgres.prepare(con)
    await place(con, list(many_jobs()))
    await con.close()
    looked = {}
    for name, of in FILTERS.items():
        explainer.looked = 0
        await _Search(explainer.read, of, 51, set()).run()
        looked[name] = explainer.looked
    figures("rows looked at for a page", **looked)
    assert max(looked.values()) <= ROWS_MAX, looked
