"""Second lives in graphs, and what is easily told wrongly of them."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.submission import Submission
from penstock.domain.workflow import LOOSE, OnFailure
from penstock.store.audit import Audit
from penstock.store.graphs import Graphs
from penstock.store.nested import Nested
from penstock.store.retention import Retention
from penstock.store.rows import EPOCH
from tests.support import graphing, making
from tests.support.database import Database, until_somebody_waits_for_a_lock
from tests.support.graphing import child_of, held, settled, started, stored


async def _keys(db: Database) -> list[bytes]:
    return [row[0] for row in await db.session.fetch("SELECT unique_id FROM job_unique")]


async def _stands(db: Database, id_: JobId) -> str | None:
    return (await db.places([id_]))[0]


async def test_a_retry_of_one_branch_isnt_stopped_by_what_died_before_it(db: Database) -> None:
    parents = {"a": [], "b": [], "c": [], "d": ["c"]}
    made = await graphing.workflow(db, parents, OnFailure.STOP)
    await settled(db, *await started(db, *made.of("a")), ending=making.FINAL_FAILURE)
    assert await db.places(made.of("b", "c", "d")) == ["cancelled"] * 3
    await Graphs(db.postgres).retry_workflow(made.id, ["c"])
    await settled(db, *await started(db, *made.of("c")))
    assert await db.places(made.of("a", "b", "c", "d")) == [
        *("dead", "cancelled", "succeeded", "ready"),
    ]


async def test_a_job_whose_nested_workflow_fails_after_it_was_asked_to_stop_is_cancelled(
    db: Database,
) -> None:
    (id_,) = await db.submit(kind="workflow")
    (holder,) = await started(db, id_)
    inner, made = graphing.submission({"x": []})
    assert inner.workflow is not None
    held_by = replace(inner, workflow=replace(inner.workflow, holder=id_))
    await Nested(db.postgres).store(holder, held_by)
    running = await started(db, *made.of("x"))
    assert await db.jobs.cancel_running(id_)
    await settled(db, *running, ending=making.FINAL_FAILURE)
    assert await _stands(db, id_) == "cancelled"


async def test_a_retry_of_a_job_and_one_of_its_parents_workflow_at_once_count_no_end_twice(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = Graphs(db.postgres)
    made = await graphing.workflow(db, {"p": []})
    (p,), (q,) = made.of("p"), await db.submit()
    child = child_of(p, q, run_if="all_finished")
    await stored(db, Submission([child]))
    for id_ in (p, q, child.id):
        await settled(db, *await started(db, id_), ending=making.FINAL_FAILURE)
    await graphs.retry_job(q)
    async with held(monkeypatch, "after_retry") as written:
        one = asyncio.create_task(graphs.retry_job(child.id))
        await written.wait()
        other = asyncio.create_task(graphs.retry_workflow(made.id, None))
        with suppress(TimeoutError):
            await until_somebody_waits_for_a_lock(db)
    await asyncio.gather(one, other)
    assert await db.places([p, q, child.id]) == ["ready", "ready", "blocked"]
    await settled(db, *await started(db, p), ending=making.FINAL_FAILURE)
    row = await db.row("job_blocked", child.id)
    assert row is not None, "it ran before its second parent was over"
    assert (row["dead"], row["parents"]) == (1, 2)


async def test_parents_that_come_with_their_child_tell_it(db: Database) -> None:
    (parent,) = making.new_jobs(1)
    child = child_of(parent.id)
    await stored(db, Submission([parent, child]))
    (job,) = await started(db, parent.id)
    assert job.graph_id is not None
    await settled(db, job)
    assert await _stands(db, child.id) == "ready"


async def test_a_job_that_is_a_workflow_is_no_orphan(db: Database) -> None:
    (id_,) = await db.submit(kind="workflow")
    (holder,) = await started(db, id_)
    inner, _ = graphing.submission({"x": []})
    assert inner.workflow is not None
    await Nested(db.postgres).store(
        holder, replace(inner, workflow=replace(inner.workflow, holder=id_))
    )
    assert await db.workers.orphaning() == []
    assert await Audit(db.postgres).orphans() == []


async def test_a_blocked_job_stands_in_a_place_and_keeps_its_unique_key(db: Database) -> None:
    parent, child = await db.submit(), child_of(making.job_id())
    waiting = replace(child, parents=(parent[0],), unique_key="k")
    await stored(db, Submission([waiting]))
    audit = Audit(db.postgres)
    assert await db.places([waiting.id]) == ["blocked"]
    assert not any((await audit.places(bytes(16), 100)).found.values())
    assert (await audit.keys(bytes(16), 100))[1] == []
    assert await audit.free(await _keys(db)) == 0
    assert await db.count("job_unique") == 1


async def test_a_job_whose_children_were_all_pruned_can_still_be_cancelled(db: Database) -> None:
    graphs, (parent,) = Graphs(db.postgres), await db.submit()
    child = child_of(parent)
    await stored(db, Submission([child]))
    await graphs.cancel_job(child.id, LOOSE)
    pruned = await Retention(db.postgres).prune_loose(State.CANCELLED, 0.0, EPOCH, 10)
    assert (pruned.count, await db.count("job_edges")) == (1, 0)
    assert await db.jobs.cancel_due(parent) is None, "it stands in the loose graph for good"
    graph = await graphs.graph_of(parent)
    assert graph is not None
    assert await graphs.cancel_job(parent, graph) is not None


async def test_a_second_life_of_a_cancelled_workflow_of_which_all_succeeded_succeeds(
    db: Database,
) -> None:
    (id_,) = await db.submit(kind="workflow")
    (holder,) = await started(db, id_)
    inner, made = graphing.submission({"x": []})
    assert inner.workflow is not None
    asked = replace(inner, workflow=replace(inner.workflow, holder=id_))
    await Nested(db.postgres).store(holder, asked)
    running = await started(db, *made.of("x"))
    await db.jobs.cancel_running(id_)
    await db.graphs.cancel_workflow(made.id)
    await settled(db, *running)  # it succeeded first
    assert await db.places([id_, *made.of("x")]) == ["cancelled", "succeeded"]
    await db.graphs.retry_job(id_)
    (again,) = await started(db, id_)
    await Nested(db.postgres).store(again, asked)
    assert await _stands(db, id_) == "succeeded"
