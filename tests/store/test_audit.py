"""The self-audit's looks: each finds what was broken by hand, and nothing where all is well."""

import asyncio

import pytest

from penstock.domain import ids
from penstock.domain.ids import JobId, WorkerId
from penstock.domain.submission import Submission
from penstock.store.audit import Audit, Found
from tests.support import graphing, making
from tests.support.database import Database, until_somebody_waits_for_a_lock
from tests.support.making import FAILURE, FINAL_FAILURE, SUCCESS

NOTHING: Found = {"no_place": [], "two_places": [], "no_job": []}


def texts(found: list[JobId]) -> list[str]:
    return [ids.text(id_) for id_ in sorted(found)]


async def walked(db: Database, rows_max: int) -> tuple[Found, int]:
    """What all pages showed, and how many they were."""
    audit, after, pages = Audit(db.postgres), bytes(16), 0
    found: Found = {rule: [] for rule in NOTHING}
    while True:
        page, pages = await audit.places(after, rows_max), pages + 1
        for rule, those in page.found.items():
            found[rule] += sorted(those)
        if page.next is None:
            return found, pages
        assert page.next > after
        after = page.next


async def some_jobs(db: Database) -> list[JobId]:
    """In every place some."""
    due = await db.submit(7)
    running = await db.running(9)
    for job, ending in zip(running, (SUCCESS, FAILURE, FINAL_FAILURE), strict=False):
        await db.settle(job, ending)
    await graphing.workflow(db, {"a": [], "b": ["a"], "c": ["b"]})
    return [*due, *(job.id for job in running)]


@pytest.mark.parametrize("rows_max", [1, 2, 3, 5, 16, 17, 1000])
async def test_every_broken_job_is_found_once_whatever_the_pages(
    db: Database, rows_max: int
) -> None:
    all_of_them = await some_jobs(db)
    assert (await walked(db, rows_max))[0] == NOTHING
    nowhere, twice = all_of_them[0], all_of_them[10]
    await db.session.execute("DELETE FROM job_due WHERE job_id = $1", nowhere)
    await db.session.execute(
        "INSERT INTO job_due SELECT job_id, queue, kind, priority, ready_at, attempt, failures,"
        " losses FROM job_running WHERE job_id = $1",
        all_of_them[12],
    )
    stray = all_of_them[7]  # succeeded
    await db.session.execute("DELETE FROM jobs WHERE job_id = $1", stray)
    await db.session.execute("DELETE FROM jobs WHERE job_id = $1", twice)
    found, _ = await walked(db, rows_max)
    assert found["no_place"] == texts([nowhere])
    assert found["two_places"] == texts([all_of_them[12]])
    assert found["no_job"] == texts([stray, twice])


async def test_a_page_takes_as_many_ids_as_it_says(db: Database) -> None:
    await db.submit(10)
    assert (await walked(db, 4))[1] == 3
    assert (await walked(db, 10))[1] == 2, "a full page may not be the last"
    assert (await walked(db, 11))[1] == 1


async def test_no_look_sees_half_of_a_move(db: Database) -> None:
    """Jobs run through their places while somebody looks again and again."""
    audit, over = Audit(db.postgres), asyncio.Event()

    async def move() -> None:
        worker = await db.worker()
        for _ in range(60):
            started = await db.jobs.start(await db.submit(20, unique_key=None), worker)
            for job in started:
                await db.settle(job, SUCCESS)
        over.set()

    moving, looks = asyncio.create_task(move()), 0
    while not over.is_set():
        assert (await audit.places(bytes(16), 10_000)).found == NOTHING
        looks += 1
    await moving
    assert looks > 20


async def leaked(db: Database) -> list[bytes]:
    """A key whose job has ended, made by hand."""
    (running,) = await db.running(unique_key="one")
    await db.settle(running, FINAL_FAILURE)
    await db.session.execute(
        "INSERT INTO job_unique VALUES (job_unique_id('default', 'one'), $1)", running.id
    )
    page, keys = await Audit(db.postgres).keys(bytes(16), 100)
    assert page.found == {"leaked_key": texts([running.id])}
    return keys


async def test_a_key_of_no_live_job_is_found_and_freed(db: Database) -> None:
    audit = Audit(db.postgres)
    await db.submit(unique_key="due")
    await db.running(unique_key="runs")
    keys = await leaked(db)
    assert len(keys) == 1
    assert await audit.free(keys) == 1
    assert (await audit.keys(bytes(16), 100))[1] == []
    assert await db.count("job_unique") == 2


async def test_a_key_of_a_job_that_waits_for_its_parents_is_not_freed(db: Database) -> None:
    audit, (parent,) = Audit(db.postgres), await db.submit()
    child = graphing.child_of(parent, unique_key="one")
    await graphing.stored(db, Submission([child]))
    page, keys = await audit.keys(bytes(16), 100)
    assert (page.found, keys) == ({"leaked_key": []}, [])
    key: bytes = await db.session.fetchval("SELECT unique_id FROM job_unique")
    assert await audit.free([key]) == 0


async def test_keys_are_walked_in_pages(db: Database) -> None:
    for number in range(5):
        await db.submit(unique_key=str(number))
    await leaked(db)
    after: bytes | None = bytes(16)
    found, pages = list[bytes](), 0
    while after is not None:
        page, keys = await Audit(db.postgres).keys(after, 2)
        found, after, pages = found + keys, page.next, pages + 1
    assert (len(found), pages) == (1, 4)


async def test_a_key_that_a_retry_takes_again_is_not_freed(db: Database) -> None:
    """The retry comes between the look and the deletion, and commits while that waits."""
    audit, keys = Audit(db.postgres), await leaked(db)
    (id_,) = [row[0] for row in await db.session.fetch("SELECT job_id FROM job_unique")]
    transaction = db.session.transaction()
    await transaction.start()
    await db.session.execute(  # the retry, which has the key by then, waits for this row
        "INSERT INTO job_due SELECT job_id, queue, kind, priority, run_at, 1, 0, 0 FROM jobs"
    )
    retrying = asyncio.create_task(db.retry(JobId(id_)))
    await until_somebody_waits_for_a_lock(db)
    assert await audit.free(keys) == 0, "the retry has it locked"
    await transaction.rollback()
    assert await retrying is not None
    assert await audit.free(keys) == 0, "a live job holds it"
    assert await db.count("job_unique") == 1


async def test_counts_that_are_not_those_of_the_places_are_found(db: Database) -> None:
    audit = Audit(db.postgres)
    await db.queues.add(["default", "other"])
    for job in await db.running(3):
        await db.settle(job, SUCCESS)
    assert await audit.counts("", 10, 100) == ([], "")
    await db.session.execute("INSERT INTO queue_counts VALUES ('other', 'dead', NULL, 2)")
    assert await audit.counts("", 10, 100) == (["other dead: 2, 0"], "")
    await db.session.execute("DELETE FROM queue_counts")
    assert await audit.counts("", 10, 100) == (["default succeeded: 0, 3"], "")


async def test_counts_are_looked_at_in_pages_and_only_where_that_is_cheap(db: Database) -> None:
    audit = Audit(db.postgres)
    await db.queues.add(["a", "b", "c"])
    await db.session.execute(
        "INSERT INTO queue_counts VALUES ('a', 'dead', NULL, 5), ('b', 'dead', NULL, 4),"
        " ('c', 'dead', NULL, 1)"
    )
    assert await audit.counts("", 2, 4) == (["b dead: 4, 0"], "b")
    assert await audit.counts("b", 2, 4) == (["c dead: 1, 0"], "")


async def test_attempts_of_the_dead_and_the_unknown_are_found(db: Database) -> None:
    audit = Audit(db.postgres)
    await db.running(2)
    assert await audit.orphans() == []
    (one,) = await db.running()
    await db.workers.leave(WorkerId(one.worker))
    (two,) = await db.running()
    await db.session.execute(
        "UPDATE workers SET condemned_at = now() WHERE worker_id = $1", two.worker
    )
    assert sorted(await audit.orphans()) == texts([one.id, two.id])


async def test_a_due_job_is_passed_over_when_one_after_it_runs(db: Database) -> None:
    audit, worker = Audit(db.postgres), await db.worker()
    first, second = await db.submit(2)
    await db.session.execute(
        "UPDATE job_due SET ready_at = now() - make_interval(secs => CASE WHEN job_id = $1 THEN 90"
        " ELSE 80 END)",
        first,
    )
    (head,) = await audit.waiting(60.0)
    assert (head.job, head.passed_over) == (ids.text(first), True), "its worker runs nothing"
    await db.jobs.start(await db.submit(kind="sum"), worker)
    (head,) = await audit.waiting(60.0)
    assert not head.passed_over, "its worker is busy, and nobody was before it"
    await db.jobs.start([second], worker)
    (head,) = await audit.waiting(60.0)
    assert (head.job, head.passed_over) == (ids.text(first), True)


async def test_who_is_not_served_or_paused_or_not_due_long_is_not_waiting(db: Database) -> None:
    audit = Audit(db.postgres)
    await db.submit()
    await db.session.execute("UPDATE job_due SET ready_at = now() - interval '90 s'")
    assert await audit.waiting(60.0) == [], "nobody lives"
    await db.worker()
    assert len(await audit.waiting(60.0)) == 1
    assert await audit.waiting(100.0) == []
    await db.queues.add(["default"])
    await db.queues.set_paused("default", paused=True)
    assert await audit.waiting(60.0) == []
    await db.queues.set_paused("default", paused=False)
    await db.session.execute("UPDATE workers SET queues = '{other*}'")
    assert await audit.waiting(60.0) == []
    await db.session.execute("UPDATE workers SET queues = '{def*}', kinds = '{sum}'")
    assert await audit.waiting(60.0) == []


async def test_an_empty_database_has_nothing_to_find(db: Database) -> None:
    audit = Audit(db.postgres)
    assert (await walked(db, 10)) == (NOTHING, 1)
    page, keys = await audit.keys(bytes(16), 10)
    assert (page.next, keys) == (None, [])
    assert await audit.free([bytes(making.job_id())]) == 0
