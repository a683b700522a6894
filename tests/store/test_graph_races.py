"""Two transactions on one graph at once: whoever comes second waits, sees what the first did, and
nothing that was waited for is forgotten, or told twice (pitfalls.md, A8, A9)."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from penstock.domain.errors import WrongWorkflowState
from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.domain.submission import Submission
from penstock.domain.workflow import LOOSE, OnFailure
from penstock.store.graphs import Graphs
from penstock.store.jobs import settlement as columns
from tests.support import graphing, making
from tests.support.database import Database, settlement
from tests.support.graphing import child_of, held, settled, started, stored, until_locked_out

_NODES, _ROOTS, _SETTLERS = 1200, 40, 4
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


async def _plain(db: Database) -> JobId:
    (id_,) = await db.submit()
    return id_


async def _with_a_child(db: Database) -> JobId:
    id_ = await _plain(db)
    await stored(db, Submission([child_of(id_)]))
    return id_


async def _in_a_workflow(db: Database) -> JobId:
    return (await graphing.workflow(db, {"a": [], "b": ["a"]})).ids["a"]


Parent = Callable[[Database], Awaitable[JobId]]
PARENTS = [_plain, _with_a_child, _in_a_workflow]


async def _end(db: Database, job: Started) -> None:
    """As the settler does it: whoever knows of no graph is told, and goes the other way."""
    if job.graph_id is None and not (await graphing.settled_plainly(db, job)).linked:
        return
    await settled(db, await _as_it_stands(db, job))


async def _as_it_stands(db: Database, job: Started) -> Started:
    ((found, _),) = await db.jobs.running_of([job.worker], 1, with_payload=False)  # type: ignore[list-item]
    return found


async def _is_due_once(db: Database, id_: JobId) -> None:
    assert await db.places([id_]) == ["ready"]
    assert await db.row("job_blocked", id_) is None
    edges = await db.session.fetchval("SELECT count(*) FROM job_edges WHERE child_id = $1", id_)
    assert edges == 1


@pytest.mark.parametrize("parent", PARENTS)
async def test_a_parent_that_ends_while_its_child_is_submitted_waits_and_tells_it(
    db: Database, monkeypatch: pytest.MonkeyPatch, parent: Parent
) -> None:
    (job,) = await started(db, await parent(db))
    child = child_of(job.id)
    async with held(monkeypatch, "before_commit_graph") as written:
        submitting = asyncio.create_task(stored(db, Submission([child])))
        await written.wait()
        ending = asyncio.create_task(_end(db, job))
        assert await until_locked_out(db, ending) in ("transactionid", "advisory", "tuple")
    await asyncio.gather(submitting, ending)
    await _is_due_once(db, child.id)


@pytest.mark.parametrize("parent", [_with_a_child, _in_a_workflow])
async def test_a_child_that_is_submitted_while_its_parent_ends_waits_and_finds_it_over(
    db: Database, monkeypatch: pytest.MonkeyPatch, parent: Parent
) -> None:
    (job,) = await started(db, await parent(db))
    child = child_of(job.id)
    async with held(monkeypatch, "before_settle_graph") as written:
        ending = asyncio.create_task(_end(db, job))
        await written.wait()
        submitting = asyncio.create_task(stored(db, Submission([child])))
        assert await until_locked_out(db, submitting) in ("transactionid", "advisory", "tuple")
    await asyncio.gather(submitting, ending)
    await _is_due_once(db, child.id)


async def test_a_child_that_is_submitted_while_a_plain_job_ends_finds_it_over(db: Database) -> None:
    """A plain job ends by one statement; here its transaction stays open."""
    (job,) = await started(db, await _plain(db))
    child = child_of(job.id)
    async with db.postgres.transaction() as open_:
        batch = columns([settlement(job, making.SUCCESS)], is_locked=False)
        await open_.rows("settle_attempts", *batch)
        submitting = asyncio.create_task(stored(db, Submission([child])))
        assert await until_locked_out(db, submitting) == "transactionid"
    await submitting
    await _is_due_once(db, child.id)


@pytest.mark.parametrize("run_if", ["all_succeeded", "any_succeeded", "all_finished"])
async def test_the_last_two_parents_of_a_child_end_at_once_and_unlock_it_once(
    db: Database, monkeypatch: pytest.MonkeyPatch, run_if: str
) -> None:
    made = await graphing.workflow(db, {"a": [], "b": [], "c": ["a", "b"]}, c=run_if)
    first, second = await started(db, *made.of("a", "b"))
    async with held(monkeypatch, "before_settle_graph") as written:
        one = asyncio.create_task(settled(db, first))
        await written.wait()
        other = asyncio.create_task(settled(db, second))
        assert await until_locked_out(db, other) == "transactionid"  # the workflow's row
    moved = [await one, await other]
    unlocked = [[due.id for due in which.unlocked] for which in moved]
    by = 0 if run_if == "any_succeeded" else 1
    assert unlocked[by] == made.of("c")
    assert unlocked[1 - by] == []
    assert await db.places(made.of("c")) == ["ready"]


async def test_a_job_that_succeeds_while_its_workflow_is_cancelled_unlocks_nothing(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = Graphs(db.postgres)
    made = await graphing.workflow(db, {"a": [], "b": ["a"], "c": []})
    (job,) = await started(db, *made.of("a"))
    original = graphs.cancel_workflow
    async with db.postgres.transaction() as other:
        await other.rows("lock_workflows", [made.id])  # holds off the end until the cancel waits
        cancelling = asyncio.create_task(original(made.id))
        await until_locked_out(db, cancelling)
        ending = asyncio.create_task(settled(db, job))
        while await db.session.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
            assert not ending.done()
    await asyncio.gather(cancelling, ending)
    assert await db.places(made.of("a", "b", "c")) == ["succeeded", "cancelled", "cancelled"]
    row = await db.session.fetchrow("SELECT * FROM workflows WHERE workflow_id = $1", made.id)
    assert row is not None
    assert (row["state"], row["succeeded"], row["cancelled"]) == ("cancelled", 1, 2)


async def test_a_workflow_that_is_cancelled_while_a_job_of_it_ends_takes_back_what_that_unlocked(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await graphing.workflow(db, {"a": [], "b": ["a"], "c": ["b"]})
    (job,) = await started(db, *made.of("a"))
    async with held(monkeypatch, "before_settle_graph") as written:
        ending = asyncio.create_task(settled(db, job))
        await written.wait()
        cancelling = asyncio.create_task(Graphs(db.postgres).cancel_workflow(made.id))
        assert await until_locked_out(db, cancelling) == "transactionid"
    assert [due.id for due in (await ending).unlocked] == made.of("b")
    moved = await cancelling
    assert sorted(over.id for over in moved.ended) == sorted(made.of("b", "c"))
    assert await db.places(made.of("a", "b", "c")) == ["succeeded", "cancelled", "cancelled"]


@pytest.mark.parametrize("is_loose", [False, True])
async def test_forty_dying_roots_of_1200_jobs_and_four_settlers_never_deadlock(
    db: Database, is_loose: bool
) -> None:
    chance = random.Random(8)
    names = [f"n{i}" for i in range(_NODES)]
    parents = {
        name: chance.sample(names[:i], min(i, chance.randint(1, 3))) if i >= _ROOTS else []
        for i, name in enumerate(names)
    }
    one, made = graphing.submission(parents, OnFailure.CONTINUE)
    if is_loose:
        await _store_loosely(db, one)
    else:
        await stored(db, one)
    before = await db.session.fetchval(_DEADLOCKS)
    jobs = await started(db, *made.of(*names[:_ROOTS]))
    assert {job.graph_id for job in jobs} == {LOOSE if is_loose else made.id}
    chance.shuffle(jobs)

    async def settle(some: list[Started]) -> None:
        for job in some:
            await settled(db, job, ending=making.FINAL_FAILURE)
            while await Graphs(db.postgres).unfinished():
                await asyncio.gather(
                    *(
                        Graphs(db.postgres).advance(g)
                        for g in await Graphs(db.postgres).unfinished()
                    )
                )

    await asyncio.gather(*(settle(jobs[i::_SETTLERS]) for i in range(_SETTLERS)))
    places = await db.session.fetch("SELECT state, count(*) FROM job_ended GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in places] == [("dead", _ROOTS), ("skipped", _NODES - _ROOTS)]
    assert await db.count("job_blocked") == await db.count("job_spreads") == 0
    await db.session.execute("SELECT pg_stat_clear_snapshot()")
    assert await db.session.fetchval(_DEADLOCKS) == before


async def _store_loosely(db: Database, one: Submission) -> None:
    """The same jobs without their workflow: roots first, for only what is there has children."""
    loose = [replace(job, workflow_id=None, name=None) for job in one.jobs]
    await db.submissions.store([job for job in loose if not job.parents])
    await stored(db, Submission([job for job in loose if job.parents]))


async def _joins(db: Database, made: graphing.Made) -> JobId:
    """A job that joins this workflow."""
    job = making.new_job(workflow_id=made.id, name="new")
    await stored(db, Submission([job], into=made.id))
    return job.id


async def _workflow_is(db: Database, made: graphing.Made) -> tuple[str, int]:
    query = "SELECT state, total FROM workflows WHERE workflow_id = $1"
    row = await db.session.fetchrow(query, made.id)
    assert row is not None
    return row["state"], row["total"]


async def test_a_job_that_joins_while_the_last_one_ends_comes_too_late(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await graphing.workflow(db, {"a": []})
    (job,) = await started(db, *made.of("a"))
    async with held(monkeypatch, "before_settle_graph") as written:
        ending = asyncio.create_task(settled(db, job))
        await written.wait()
        joining = asyncio.create_task(_joins(db, made))
        assert await until_locked_out(db, joining) == "transactionid"
    with pytest.raises(WrongWorkflowState):
        await joining
    await ending
    assert await _workflow_is(db, made) == ("succeeded", 1)


async def test_the_last_job_that_ends_while_another_joins_isnt_the_last(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await graphing.workflow(db, {"a": []})
    (job,) = await started(db, *made.of("a"))
    async with held(monkeypatch, "before_commit_graph") as written:
        joining = asyncio.create_task(_joins(db, made))
        await written.wait()
        ending = asyncio.create_task(settled(db, job))
        assert await until_locked_out(db, ending) == "transactionid"
    new = await joining
    assert (await ending).workflows == []
    assert await _workflow_is(db, made) == ("running", 2)
    await settled(db, *await started(db, new))
    assert await _workflow_is(db, made) == ("succeeded", 2)


async def test_a_workflow_that_ends_while_it_is_retried_begins_anew_with_what_died(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await graphing.workflow(db, {"a": [], "b": ["a"]})
    (job,) = await started(db, *made.of("a"))
    async with held(monkeypatch, "before_settle_graph") as written:
        ending = asyncio.create_task(settled(db, job, ending=making.FINAL_FAILURE))
        await written.wait()
        retrying = asyncio.create_task(Graphs(db.postgres).retry_workflow(made.id, None))
        assert await until_locked_out(db, retrying) == "transactionid"
    plan, _ = await retrying
    assert [state for _, state in (await ending).workflows] == ["failed"]
    assert plan.again == ["a", "b"]
    assert await db.places(made.of("a", "b")) == ["ready", "blocked"]
    assert await _workflow_is(db, made) == ("running", 2)
