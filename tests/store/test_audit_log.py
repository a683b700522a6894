"""The audit log: entries with what they tell of, once; nothing changes them; they go by age."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from penstock import chaos, places
from penstock.domain.audit_log import SUBMISSIONS, Action, Entry
from penstock.domain.errors import StoreUnavailable
from penstock.domain.submission import RequestKey, Submission
from penstock.store import audit_log, postgres, queries
from penstock.store.audit_log import AuditLog, EntryFilter, note, small_change
from penstock.store.jobs import ROWS_MAX
from penstock.store.retention import Retention
from tests.support import making
from tests.support.database import DAY_S, Database

REFUSED = asyncpg.InsufficientPrivilegeError
AT = datetime(2026, 11, 18, 11, 0, tzinfo=UTC)


def entry(action: Action = Action.QUEUE_PAUSE, actor: str = "ada", **fields: Any) -> Entry:
    return Entry(making.job_id(), action, actor, "operator", "192.0.2.7", **fields)


@pytest.fixture
async def log(db: Database) -> AsyncIterator[AuditLog]:
    yield AuditLog(db.postgres, db.health)
    chaos.arm(None, "test")
    await db.session.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
    await db.session.execute("TRUNCATE audit_log")
    await db.session.execute("ALTER TABLE audit_log ENABLE TRIGGER ALL")


async def test_an_entry_comes_back_as_it_was_told(log: AuditLog) -> None:
    told = entry(Action.CONFIG_RELOAD, "signal", request_id="r", object_id="o", queue="mail")
    await log.add([told.changed("level", "info", "debug"), entry()])
    (second, first) = (await log.page(EntryFilter(), 10)).items
    assert (first.id, first.actor, first.roles) == (told.id, "signal", "operator")
    assert (first.action, first.object_id, first.queue) == ("config.reload", "o", "mail")
    assert (first.address, first.request_id, first.outcome) == ("192.0.2.7", "r", "done")
    assert first.details == '{"before":{"level":"info"},"after":{"level":"debug"}}'
    assert (second.object_id, second.details) == (None, None)
    assert abs(first.at - await db_now(log)) < timedelta(minutes=1)


async def db_now(log: AuditLog) -> datetime:
    found = await log._pg.rows("now")
    at: datetime = found[0][0]
    return at


async def test_what_is_stored_twice_is_there_once(log: AuditLog) -> None:
    one = entry()
    for _ in range(2):
        await log.add([one])
    assert len((await log.page(EntryFilter(), 10)).items) == 1


async def test_a_change_that_is_rolled_back_leaves_none(db: Database, log: AuditLog) -> None:
    async def change() -> None:
        async with small_change(db.postgres) as transaction:
            await note(transaction, entry(), None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change()
    assert (await log.page(EntryFilter(), 10)).items == []


@pytest.mark.parametrize("count", [1, ROWS_MAX + 1])
@pytest.mark.parametrize("with_key", [False, True])
async def test_a_submission_whose_answer_was_lost_is_told_of_once(
    db: Database, log: AuditLog, count: int, with_key: bool
) -> None:
    jobs, told = making.new_jobs(count), entry(Action.JOB_SUBMIT_MANY)
    key = RequestKey(secrets.token_bytes(16), bytes(32)) if with_key else None
    submission = Submission(jobs, key, entry=told)

    async def store(*, again: bool) -> None:
        if with_key:
            await db.submissions.store_keyed([submission], again=again)
        else:
            await db.submissions.store(jobs, [told])

    point = "after_commit_keyed" if with_key else "after_commit"
    point = "after_commit_large" if count > 1 and not with_key else point
    chaos.arm(f"{point}:#1:raise", "test")
    with pytest.raises(StoreUnavailable):
        await store(again=False)
    await store(again=True)
    (found,) = (await log.page(EntryFilter(), 10)).items
    assert found.id == told.id
    assert await db.count("jobs") == count


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_log SET actor = 'eve'", "DELETE FROM audit_log", "TRUNCATE audit_log"],
)
async def test_even_its_owner_can_only_add_to_it(
    db: Database, log: AuditLog, statement: str
) -> None:
    await log.add([entry()])
    with pytest.raises(REFUSED, match="can only be added to"):
        await db.session.execute(statement)
    assert len((await log.page(EntryFilter(), 10)).items) == 1


async def test_entries_go_by_age_the_oldest_first_and_never_young(
    db: Database, log: AuditLog
) -> None:
    retention = Retention(db.postgres)
    old = [entry() for _ in range(3)]
    await log.add([entry()])
    for days, one in zip((30, 20, 8), old, strict=True):
        await put(db, one, f"clock_timestamp() - interval '{days} days'")
    assert await retention.prune_entries(400 * DAY_S, 10) == 0
    assert await retention.prune_entries(0.0, 1) == 1
    assert [view.id for view in (await log.page(EntryFilter(), 10)).items][1:] == [
        old[2].id,
        old[1].id,
    ]
    assert await retention.prune_entries(0.0, 10) == 2
    assert len((await log.page(EntryFilter(), 10)).items) == 1


async def put(db: Database, one: Entry, at: str) -> None:
    await db.session.execute(
        "INSERT INTO audit_log (audit_id, at, actor, roles, action, outcome)"
        f" VALUES ($1, {at}, $2, '', $3, 'done')",
        one.id,
        one.actor,
        one.action,
    )


def test_the_index_of_what_is_rare_leaves_out_all_submissions() -> None:
    told = "'{" + ",".join(one for one in Action if one in SUBMISSIONS) + "}'"
    assert told in (places.migrations_dir() / "0016_audit_log.sql").read_text()
    assert told in queries.load()["entries_but_submissions"]


MANY = 60_000  # three searches


@pytest.mark.parametrize(
    ("of", "index", "rows_max"),
    [
        (EntryFilter(), "audit_log_at", 11),
        (EntryFilter(requests=["nobody"]), "audit_log_at", 20_000),
        (EntryFilter(actions=["queue.pause"]), "audit_log_rare", 10),
        (EntryFilter(actors=["ada"]), "audit_log_actor", 11),
        (EntryFilter(actors=["nobody"]), "audit_log_actor", 0),
        (EntryFilter(objects=["mail"]), "audit_log_object", 10),
        (EntryFilter(objects=["mail"], actors=["nobody"]), "audit_log_object", 10),
    ],
)
async def test_a_page_looks_at_few_entries_by_the_index_that_is_for_it(
    db: Database, log: AuditLog, of: EntryFilter, index: str, rows_max: int
) -> None:
    await db.session.execute(
        """
        INSERT INTO audit_log (audit_id, at, actor, roles, action, object_id, outcome)
        SELECT gen_random_uuid(), $1::timestamptz + n * interval '1 ms',
               CASE n % 30 WHEN 0 THEN 'ada' ELSE 'service' END, '',
               CASE n % 6000 WHEN 0 THEN 'queue.pause' ELSE 'job.submit' END,
               CASE n % 6000 WHEN 0 THEN 'mail' ELSE n::text END, 'done'
        FROM generate_series(1, $2::int) n
        """,
        AT,
        MANY,
    )
    await db.session.execute("ANALYZE audit_log")
    page, looked = await log.page(of, 10), await _looked(db, of)
    assert set(looked) == {index}
    assert looked[index] <= 2 * rows_max + 2, "once for what matches, once for where it ends"
    if of.requests:
        assert page.items == []
        assert page.next is not None


async def _looked(db: Database, of: EntryFilter) -> dict[str, int]:
    """Rows that came of each index for a page of ten, with the readers' settings."""
    query = queries.load()[audit_log._query(of)]
    async with db.session.transaction():
        for name, value in postgres._READERS.items():
            await db.session.execute(f"SET LOCAL {name} = {value}")
        explained = await db.session.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *audit_log._arguments(of, 11)
        )
    looked: dict[str, int] = {}
    nodes = [orjson.loads(explained)[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == "audit_log":
            index = node.get("Index Name", "none")
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            looked[index] = looked.get(index, 0) + int(rows * node["Actual Loops"])
    return looked
