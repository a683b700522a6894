"""Pruning of graphs: workflows go whole or not at all, loose jobs when nothing reads them."""

import asyncio

import pytest

from penstock.domain.errors import Contended, ParentNotFound, WorkflowNotFound
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.submission import Submission
from penstock.domain.workflow import LOOSE, NewWorkflow
from penstock.store import queries
from penstock.store.nested import Nested
from penstock.store.postgres import Record, Transaction
from penstock.store.retention import Retention
from penstock.store.rows import EPOCH
from tests.support import making
from tests.support.database import Database, until_somebody_waits_for_a_lock
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.weaving import Woven, add, depend, settle, weave

HOUR_S = 3600.0
AGE = (
    "UPDATE job_ended SET finished_at = finished_at - interval '2 hours'",
    "UPDATE workflows SET finished_at = finished_at - interval '2 hours'",
)
OF_JOBS = ("jobs", "job_ended", "attempts", "job_logs", "job_progress", "job_edges")


@pytest.fixture
def retention(db: Database) -> Retention:
    return Retention(db.postgres)


async def age(db: Database) -> None:
    """All that is over ended two hours before that."""
    for statement in AGE:
        await db.session.execute(statement)


async def everything_of_jobs(db: Database) -> list[int]:
    return [await db.count(table) for table in OF_JOBS]


async def prune_all(retention: Retention, rows: int = 1000, older_s: float = HOUR_S) -> list[int]:
    """Steps until nothing is left to do; how many rows each of those on jobs of workflows took."""
    for state in (State.SUCCEEDED, State.DEAD, State.CANCELLED, State.SKIPPED):
        while (await retention.prune_ended(state, older_s, EPOCH, rows)).count:
            continue
        while (await retention.prune_loose(state, older_s, EPOCH, rows)).count:
            continue
    while await retention.prune_workflows(older_s, rows):
        continue
    steps = [(await retention.prune_workflow_jobs(rows)).rows]
    while steps[-1]:
        steps.append((await retention.prune_workflow_jobs(rows)).rows)
    return steps


async def over(db: Database, *, fails: bool = False) -> Woven:
    """A diamond that is over, each of whose jobs that ran has a log line and progress."""
    woven = await weave(db, {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")})
    ids = list(woven.ids.values())
    await db.jobs.add_logs([(id_, 1, 1, 1.0, "info", "a line") for id_ in ids])
    await db.jobs.add_progress([(id_, 1, 50.0, None, 1.0) for id_ in ids])
    if fails:
        await woven.fail("a")
    else:
        await woven.end("a")
        await woven.end("b", "c")
        await woven.end("d")
    return woven


@pytest.mark.parametrize("rows", [1, 3, 1000])
async def test_a_workflow_goes_with_all_that_belongs_to_it(
    db: Database, retention: Retention, rows: int
) -> None:
    for fails in (False, True):
        await over(db, fails=fails)
    stays = await weave(db, {"a": (), "b": ("a",)})
    await stays.end("a")
    before = await everything_of_jobs(db)
    await age(db)
    steps = await prune_all(retention, rows)
    assert max(steps) <= rows, "each step is bounded"
    assert await db.count("workflows") == 1
    assert await db.count("pruned_workflows") == 0
    assert await stays.states() == {"a": "succeeded", "b": "ready"}
    assert before == [10, 9, 6, 8, 8, 9]
    assert await everything_of_jobs(db) == [2, 1, 1, 0, 0, 1]
    counted = await db.session.fetch("SELECT state, sum(delta) FROM queue_counts GROUP BY 1")
    assert {row[0]: row[1] for row in counted} == {"succeeded": 1, "dead": 0, "skipped": 0}


async def test_its_jobs_stay_until_the_workflow_goes_however_old_they_are(
    db: Database, retention: Retention
) -> None:
    await over(db)
    runs = await weave(db, {"a": (), "b": ("a",)})
    await runs.end("a")
    await age(db)
    before = await everything_of_jobs(db)
    await db.session.execute("UPDATE workflows SET finished_at = finished_at + interval '90 min'")
    assert await prune_all(retention) == [0]
    assert await everything_of_jobs(db) == before
    assert await retention.prune_workflows(1700.0, 10) == 1


async def test_a_step_tells_how_many_ended_as_what(db: Database, retention: Retention) -> None:
    await over(db, fails=True)
    await age(db)
    assert await retention.prune_workflows(HOUR_S, 10) == 1
    pruned = await retention.prune_workflow_jobs(10)
    assert pruned.counts == {State.DEAD: 1, State.SKIPPED: 3}
    assert (await retention.prune_workflow_jobs(10)).counts == {}


async def test_a_retry_that_came_first_keeps_the_whole_workflow(
    db: Database, retention: Retention
) -> None:
    woven = await over(db, fails=True)
    await age(db)
    lock = queries.load()["lock_workflows"]
    async with db.session.transaction():
        await db.session.fetch(lock, [woven.id])
        assert await retention.prune_workflows(HOUR_S, 10) == 0, "it waits for nobody"
    await db.graphs.retry_workflow(woven.id, None)
    assert await prune_all(retention) == [0]
    assert await woven.states() == {"a": "ready", "b": "blocked", "c": "blocked", "d": "blocked"}
    for names in (("a",), ("b", "c"), ("d",)):
        await woven.end(*names)
    await age(db)
    await prune_all(retention)
    assert await everything_of_jobs(db) == [0] * 6


async def test_a_retry_that_comes_second_finds_no_such_workflow(
    db: Database, retention: Retention
) -> None:
    woven = await over(db, fails=True)
    await age(db)
    async with db.session.transaction():
        found = await db.session.fetch(queries.load()["prune_workflows"], [woven.id])
        assert found[0][0] == 1
        retrying = asyncio.create_task(db.graphs.retry_workflow(woven.id, None))
        await until_somebody_waits_for_a_lock(db)
    with pytest.raises(WorkflowNotFound):
        await retrying
    assert await db.count("jobs") == 4, "none of its jobs is gone yet"
    with pytest.raises(WorkflowNotFound):
        await db.graphs.retry_job(woven.ids["a"])
    with pytest.raises(WorkflowNotFound):
        await add(db, woven, {"e": ("a",)})
    with pytest.raises(ParentNotFound):
        await depend(db, [woven.ids["a"]])
    await prune_all(retention)
    assert await everything_of_jobs(db) == [0] * 6


async def nested(db: Database, outer: Woven, name: str, of: dict[str, tuple[str, ...]]) -> Woven:
    """The workflow that becomes the attempt of one of its jobs."""
    (holder,) = await outer.start(name)
    ids = {one: making.job_id() for one in of}
    inner = NewWorkflow(making.job_id(), "inner", holder=holder.id)
    jobs = [
        making.new_job(id=ids[one], workflow_id=inner.id, name=one, depends_on=parents,
                       parents=tuple(ids[parent] for parent in parents))
        for one, parents in of.items()
    ]  # fmt: skip
    await Nested(db.postgres).store(holder, Submission(jobs, workflow=inner))
    return Woven(db, inner.id, ids)


@pytest.mark.parametrize("rows", [1, 1000])
async def test_what_is_nested_goes_with_what_it_is_nested_in(
    db: Database, retention: Retention, rows: int
) -> None:
    outer = await weave(db, {"a": (), "b": ("a",)})
    inner = await nested(db, outer, "a", {"x": (), "y": ("x",)})
    innermost = await nested(db, inner, "x", {"z": ()})
    await innermost.end("z")
    await inner.end("y")
    assert await outer.states() == {"a": "succeeded", "b": "ready"}
    await age(db)
    assert await prune_all(retention) == [0], "the outermost still runs"
    await outer.end("b")
    await age(db)
    await prune_all(retention, rows)
    assert await db.count("workflows") == 0
    assert await everything_of_jobs(db) == [0] * 6


async def test_what_is_nested_in_a_plain_job_goes_by_its_own_age(
    db: Database, retention: Retention
) -> None:
    (holder,) = await db.running(kind="workflow")
    inner = NewWorkflow(making.job_id(), "inner", holder=holder.id)
    job = making.new_job(workflow_id=inner.id, name="a")
    await Nested(db.postgres).store(holder, Submission([job], workflow=inner))
    await age(db)
    assert await prune_all(retention) == [0]
    await Woven(db, inner.id, {"a": job.id}).end("a")
    await age(db)
    await prune_all(retention)
    assert await everything_of_jobs(db) == [0] * 6


async def test_a_crash_between_steps_is_taken_up_by_the_next_one(
    db: Database, retention: Retention
) -> None:
    for _ in range(3):
        await over(db)
    await age(db)
    assert await retention.prune_workflows(HOUR_S, 2) == 2
    await retention.prune_workflow_jobs(3)
    transaction = db.session.transaction()
    await transaction.start()
    await db.session.fetch(queries.load()["prune_workflow_jobs"], 3)
    assert await retention.prune_workflow_jobs(3) == await retention.prune_workflow_jobs(1000)
    await transaction.rollback()
    await prune_all(Retention(db.postgres))
    assert await everything_of_jobs(db) == [0] * 6
    assert await db.count("pruned_workflows") == 0


async def test_several_replicas_prune_at_once(db: Database, retention: Retention) -> None:
    for _ in range(12):
        await over(db)
    await age(db)
    counts: list[int] = []
    while await db.count("jobs"):
        await asyncio.gather(*(retention.prune_workflows(HOUR_S, 3) for _ in range(3)))
        pruned = await asyncio.gather(*(retention.prune_workflow_jobs(7) for _ in range(3)))
        counts += [sum(one.counts.values()) for one in pruned]
    assert sum(counts) == 48
    assert await everything_of_jobs(db) == [0] * 6


async def ended_loose(db: Database) -> tuple[JobId, JobId]:
    """A parent that is over, and its child, which isn't."""
    (parent,) = await db.submit()
    child = await depend(db, [parent])
    await ended(db, parent)
    return parent, child


async def ended(db: Database, *ids: JobId) -> None:
    """Loose jobs succeed."""
    runs = await db.jobs.start(ids, await db.worker())
    assert len(runs) == len(ids)
    await settle(db, *((run, SUCCESS) for run in runs))


async def test_a_loose_job_stays_while_a_child_is_not_over(
    db: Database, retention: Retention
) -> None:
    parent, child = await ended_loose(db)
    other = await depend(db, [child])
    await age(db)
    await prune_all(retention)
    assert await db.places([parent, child, other]) == ["succeeded", "ready", "blocked"]
    (run,) = await db.jobs.start([child], await db.worker())
    await age(db)
    await prune_all(retention)
    assert await db.places([parent, child]) == ["succeeded", "running"], "it reads its result"
    await settle(db, (run, SUCCESS))
    await age(db)
    await prune_all(retention)
    assert await db.places([parent, child, other]) == [None, "succeeded", "ready"]
    await ended(db, other)
    await age(db)
    await prune_all(retention)
    assert await everything_of_jobs(db) == [0] * 6


async def test_a_plain_job_that_gets_a_child_after_its_end_stays_too(
    db: Database, retention: Retention
) -> None:
    one, other = await db.running(2)
    for run in (one, other):
        await db.settle(run, SUCCESS)
    await age(db)
    await depend(db, [one.id])
    await prune_all(retention)
    assert await db.places([one.id, other.id]) == ["succeeded", None]


async def test_a_child_comes_before_its_parent_is_pruned_or_finds_none(
    db: Database, retention: Retention
) -> None:
    (run,) = await db.running()
    await db.settle(run, SUCCESS)
    await age(db)
    async with db.session.transaction():
        await db.session.fetch(queries.load()["link_ended"], [run.id], LOOSE)
        found = await retention.prune_ended(State.SUCCEEDED, HOUR_S, EPOCH, 10)
        assert found.count == 0, "it waits for nobody"
    await db.session.execute("UPDATE job_ended SET graph_id = NULL")
    prune = queries.load()["prune_ended"]
    async with db.session.transaction():
        assert (await db.session.fetch(prune, "succeeded", HOUR_S, EPOCH, 10))[0][0] == 1
        depending = asyncio.create_task(depend(db, [run.id]))
        await until_somebody_waits_for_a_lock(db)
    with pytest.raises((Contended, ParentNotFound)):
        await depending
    assert await db.count("jobs") == 0


async def test_a_workflow_stays_while_a_loose_job_reads_it(
    db: Database, retention: Retention
) -> None:
    woven, other = await over(db), await over(db)
    child = await depend(db, [woven.ids["d"]])
    await age(db)
    assert await retention.prune_workflows(HOUR_S, 10) == 1
    assert (await db.places([woven.ids["a"], child])) == ["succeeded", "ready"]
    assert await db.session.fetchval("SELECT workflow_id FROM workflows") == woven.id != other.id
    await ended(db, child)
    await age(db)
    await prune_all(retention)
    assert await everything_of_jobs(db) == [0] * 6


async def test_a_workflow_stays_if_a_loose_job_comes_between_the_look_at_it_and_its_lock(
    db: Database, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    woven = await over(db)
    await age(db)
    rows, looks = Transaction.rows, list[JobId]()

    async def late(self: Transaction, query: str, *args: object) -> list[Record]:
        """The first look sees nothing of a child that is stored by then."""
        found = await rows(self, query, *args)
        if query == "old_workflows" and not looks:
            looks.append(making.job_id())
            edges = queries.load()["add_edges"]
            await db.session.fetch(edges, [woven.ids["d"]], looks, [LOOSE])
            await db.session.execute(
                "INSERT INTO job_due SELECT $1, queue, kind, 5, now(), 0, 0, 0, NULL, NULL, 0, $2"
                " FROM job_ended LIMIT 1",
                *(looks[0], LOOSE),
            )
        return found

    monkeypatch.setattr(Transaction, "rows", late)
    assert await retention.prune_workflows(HOUR_S, 10) == 0
    assert len(looks) == 1


async def test_a_retry_does_not_wait_for_parents_that_are_being_pruned(
    db: Database, retention: Retention
) -> None:
    woven, (other,) = await over(db), await db.submit()
    child = await depend(db, [woven.ids["d"], other], "any_succeeded")
    (run,) = await db.jobs.start([child], await db.worker())
    await settle(db, (run, FINAL_FAILURE))
    await age(db)
    assert await retention.prune_workflows(HOUR_S, 10) == 1
    await db.graphs.retry_job(child)
    row = await db.row("job_blocked", child)
    assert (row["parents"], row["succeeded"]) == (1, 0)
    while (await retention.prune_workflow_jobs(1000)).rows:
        continue
    await ended(db, other)
    assert await db.places([child]) == ["ready"]


async def test_loose_jobs_with_many_edges_go_some_at_a_time_but_whole(
    db: Database, retention: Retention
) -> None:
    parents = await db.submit(12)
    children = [await depend(db, parents) for _ in range(3)]
    await ended(db, *parents)
    await ended(db, *children)
    await age(db)
    pruned = await retention.prune_loose(State.SUCCEEDED, HOUR_S, EPOCH, 2)
    assert pruned.count == 2, "of 3 edges each"
    counts = []
    while (pruned := await retention.prune_loose(State.SUCCEEDED, HOUR_S, EPOCH, 5)).count:
        counts.append(pruned.count)
    assert sum(counts) == 13
    assert await everything_of_jobs(db) == [0] * 6
