"""Transitions of graphs, straight on the store: unlock, skip, stop, cancel, retry, join, end."""

import asyncio
from dataclasses import replace

import pytest

from penstock.domain.errors import (
    Contended,
    NameTaken,
    ParentNotFound,
    WrongState,
    WrongWorkflowState,
)
from penstock.domain.submission import Submission
from penstock.domain.workflow import LOOSE, NewWorkflow, OnFailure
from tests.support import making, weaving
from tests.support.database import Database, settlement, until_somebody_waits_for_a_lock
from tests.support.weaving import weave

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


async def test_a_diamond_runs_through(db: Database) -> None:
    woven = await weave(db, DIAMOND)
    assert await woven.states() == {"a": "ready", "b": "blocked", "c": "blocked", "d": "blocked"}
    moved = await woven.end("a")
    assert {one.id for one in moved.unlocked} == {woven.ids["b"], woven.ids["c"]}
    await woven.end("b")
    assert (await woven.states())["d"] == "blocked"
    await woven.end("c")
    moved = await woven.end("d")
    assert moved.workflows == [(woven.id, "succeeded")]
    row = await woven.row()
    assert (row["state"], row["succeeded"], row["total"]) == ("succeeded", 4, 4)
    assert row["finished_at"] is not None


async def test_what_can_not_run_any_more_is_skipped_and_so_is_what_needs_it(db: Database) -> None:
    woven = await weave(
        db,
        {**DIAMOND, "e": ["d"], "told": ["a"], "after": ["e"]},
        told="any_failed",
        after="all_skipped",
    )
    await woven.fail("a")
    assert await woven.states() == {
        "a": "dead",
        "b": "skipped",
        "c": "skipped",
        "d": "skipped",
        "e": "skipped",
        "told": "ready",
        "after": "ready",
    }
    moved = await woven.end("told", "after")
    assert moved.workflows == [(woven.id, "failed")]


async def test_both_parents_in_one_batch_count_once_each(db: Database) -> None:
    woven = await weave(db, DIAMOND)
    await woven.end("a")
    moved = await woven.end("b", "c")
    assert [one.id for one in moved.unlocked] == [woven.ids["d"]]


async def test_any_runs_at_the_first_and_is_left_alone_by_the_rest(db: Database) -> None:
    woven = await weave(db, {"a": [], "b": [], "c": ["a", "b"]}, c="any_succeeded")
    await woven.end("a")
    assert (await woven.states())["c"] == "ready"
    await woven.fail("b")
    assert (await woven.states())["c"] == "ready"
    moved = await woven.end("c")
    assert moved.workflows == [(woven.id, "failed")]


async def test_a_retry_by_back_off_tells_nobody(db: Database) -> None:
    woven = await weave(db, DIAMOND)
    moved = await woven.end("a", ending=making.FAILURE)
    assert not moved.ended
    assert (await woven.states())["b"] == "blocked"
    assert (await db.row("job_due", woven.ids["a"]))["graph_id"] == woven.id


async def test_stop_cancels_what_has_not_started_but_spares_who_cleans_up(db: Database) -> None:
    graph = {
        "a": [],
        "b": [],
        "tried": [],
        "c": ["b"],
        "clean": ["a", "b"],
        "due": [],
        "mail": ["a"],
    }
    woven = await weave(db, graph, stop=True, clean="all_finished", mail="any_failed")
    await woven.end("tried", ending=making.FAILURE)
    (b,) = await woven.start("b")
    await woven.fail("a")
    assert await woven.states() == {
        "a": "dead",
        "b": "running",
        "tried": "ready",
        "c": "cancelled",
        "clean": "blocked",
        "due": "cancelled",
        "mail": "ready",
    }
    assert (await db.row("job_ended", woven.ids["c"]))["reason"] == "workflow-stopped"
    await weaving.settle(db, (b, making.SUCCESS))
    assert (await woven.states())["clean"] == "ready"
    with pytest.raises(WrongWorkflowState):
        await weaving.add(db, woven, {"late": []})


async def test_cancel_ends_what_waits_and_asks_what_runs(db: Database) -> None:
    woven = await weave(db, {**DIAMOND, "free": [], "clean": ["a"]}, clean="all_finished")
    (a,) = await woven.start("a")
    moved = await db.graphs.cancel_workflow(woven.id)
    assert moved.asked == [a.id]
    assert not moved.workflows
    assert set((await woven.states()).values()) == {"running", "cancelled"}
    settled, moved = await db.graphs.settle([settlement(a, making.FAILURE, cancel_known=True)])
    assert settled.settled
    assert moved.workflows == [(woven.id, "cancelled")]
    with pytest.raises(WrongWorkflowState):
        await db.graphs.cancel_workflow(woven.id)


async def test_cancel_of_one_job_counts_as_finished(db: Database) -> None:
    woven = await weave(db, DIAMOND)
    await woven.end("a")
    moved = await db.graphs.cancel_job(woven.ids["b"], woven.id)
    assert moved is not None
    assert await woven.states() == {
        "a": "succeeded",
        "b": "cancelled",
        "c": "ready",
        "d": "skipped",
    }


async def test_a_wide_fan_out_goes_in_steps_that_others_can_go_on_with(db: Database) -> None:
    count = 2500
    woven = await weave(
        db,
        {
            "root": [],
            **{f"n{i}": ["root"] for i in range(count)},
            "join": [f"n{i}" for i in range(count)],
        },
    )
    moved = await woven.end("root")
    assert len(moved.unlocked) == 1000
    assert await db.graphs.unfinished() == [woven.id]
    steps = 0
    while moved.unfinished:
        moved = await db.graphs.advance(woven.id)
        steps += 1
    assert steps == 2
    assert await db.count("job_due") == count
    assert await db.count("job_spreads") == 0
    assert await db.graphs.unfinished() == []


async def test_skips_of_a_wide_graph_go_in_steps_too(db: Database) -> None:
    count = 1500
    names = [f"n{i}" for i in range(count)]
    woven = await weave(db, {"root": [], **{name: ["root"] for name in names}, "join": names})
    moved = await woven.fail("root")
    while moved.unfinished:
        moved = await db.graphs.advance(woven.id)
    assert await db.count("job_blocked") == 0
    assert (await woven.row())["state"] == "failed"
    assert (await woven.row())["skipped"] == count + 1


async def test_skips_of_a_long_chain_go_in_steps_too(db: Database) -> None:
    """Each takes some round trips, and all of that time nobody else moves in its graph."""
    count = 250
    woven = await weave(db, {str(n): [str(n - 1)] if n else [] for n in range(count)})
    moved, steps = await woven.fail("0"), 1
    while moved.unfinished:
        moved, steps = await db.graphs.advance(woven.id), steps + 1
    assert steps == 3
    assert await db.count("job_blocked") == 0
    assert [state for _, state in moved.workflows] == ["failed"]


async def test_a_wide_workflow_is_cancelled_in_steps(db: Database) -> None:
    names = [f"n{i}" for i in range(2200)]
    woven = await weave(db, {"root": [], **{name: ["root"] for name in names}})
    moved = await db.graphs.cancel_workflow(woven.id)
    over, steps = list(moved.workflows), 0
    while moved.unfinished:
        moved = await db.graphs.advance(woven.id)
        over += moved.workflows
        steps += 1
    assert steps > 1
    assert over == [(woven.id, "cancelled")]
    assert await db.count("job_due") + await db.count("job_blocked") == 0


async def test_jobs_join_a_running_workflow(db: Database) -> None:
    woven = await weave(db, DIAMOND)
    await woven.end("a")
    moved = await weaving.add(db, woven, {"e": ["a"], "f": ["d", "e"], "g": []})
    assert [one.id for one in moved.unlocked] == [woven.ids["e"]]
    assert await woven.states() == {
        "a": "succeeded",
        "b": "ready",
        "c": "ready",
        "d": "blocked",
        "e": "ready",
        "f": "blocked",
        "g": "ready",
    }
    with pytest.raises(NameTaken) as caught:
        await weaving.add(db, woven, {"new": [], "b": []})
    assert caught.value.names == {1: "b"}
    woven.ids["b"] = woven.ids.pop("b")
    assert (await woven.row())["total"] == 7


async def test_what_joins_behind_a_dead_parent_is_decided_at_once(db: Database) -> None:
    woven = await weave(db, {"a": [], "hold": []})
    await woven.fail("a")
    await weaving.add(
        db, woven, {"x": ["a"], "y": ["a"], "z": ["x"]}, y="any_failed", z="all_skipped"
    )
    states = await woven.states()
    assert (states["x"], states["y"], states["z"]) == ("skipped", "ready", "ready")


async def test_a_submission_sent_again_stores_nothing_twice(db: Database) -> None:
    id_ = making.job_id()
    jobs = weaving.new_jobs(DIAMOND, id_)
    submission = Submission(jobs, workflow=NewWorkflow(id_, "w", OnFailure.CONTINUE))
    await db.submissions.store_graph(submission)
    await db.submissions.store_graph(submission, again=True)
    assert (await db.count("jobs"), await db.count("job_edges")) == (4, 4)
    assert await db.session.fetchval("SELECT total FROM workflows") == 4


async def test_a_retry_runs_what_did_not_succeed_and_keeps_the_rest(db: Database) -> None:
    woven = await weave(db, {**DIAMOND, "mail": ["b"]}, mail="any_failed")
    await woven.end("a")
    await woven.fail("b")
    await woven.end("c", "mail")
    assert (await woven.row())["state"] == "failed"
    plan, moved = await db.graphs.retry_workflow(woven.id, None, dry_run=True)
    assert (set(plan.again), set(plan.reused)) == ({"b", "d"}, {"a", "c", "mail"})
    assert (await woven.states())["b"] == "dead"
    plan, moved = await db.graphs.retry_workflow(woven.id, None)
    assert [one.id for one in moved.due] == [woven.ids["b"]]
    assert await woven.states() == {
        "a": "succeeded",
        "b": "ready",
        "c": "succeeded",
        "d": "blocked",
        "mail": "succeeded",
    }
    row = await woven.row()
    assert (row["state"], row["finished_at"], row["succeeded"]) == ("running", None, 3)
    await woven.end("b")
    moved = await woven.end("d")
    assert moved.workflows == [(woven.id, "succeeded")]


async def test_a_retry_while_it_runs_resets_what_blocked_children_were_told(db: Database) -> None:
    woven = await weave(db, {"a": [], "b": [], "c": ["a", "b"]}, c="all_finished")
    await woven.fail("a")
    await db.graphs.retry_workflow(woven.id, ["a"])
    await woven.end("b")
    assert (await woven.states())["c"] == "blocked", "a runs again"
    await woven.end("a")
    assert (await woven.states())["c"] == "ready"


async def test_retrying_one_job_reopens_its_workflow(db: Database) -> None:
    woven = await weave(db, {"a": [], "b": ["a"], "x": []})
    await woven.fail("a", "x")
    moved = await db.graphs.retry_job(woven.ids["a"])
    assert moved is not None
    assert await woven.states() == {"a": "ready", "b": "blocked", "x": "dead"}
    await woven.end("a")
    assert (await woven.end("b")).workflows == [(woven.id, "failed")]


async def test_a_skipped_job_is_not_retried_while_its_parents_stand_against_it(
    db: Database,
) -> None:
    woven = await weave(db, {"a": [], "b": ["a"]})
    await woven.fail("a")
    with pytest.raises(WrongState):
        await db.graphs.retry_job(woven.ids["b"])
    assert await woven.states() == {"a": "dead", "b": "skipped"}


async def test_a_job_waits_for_existing_ones(db: Database) -> None:
    one, two = await db.submit(2)
    child = await weaving.depend(db, [one, two])
    worker = await db.worker()
    started = await db.jobs.start([one, two], worker)
    assert all(job.graph_id == LOOSE for job in started)
    await weaving.settle(db, (started[0], making.SUCCESS))
    assert await db.places([child]) == ["blocked"]
    moved = await weaving.settle(db, (started[1], making.SUCCESS))
    assert [due.id for due in moved.unlocked] == [child]


async def test_a_parent_that_is_over_counts_at_once(db: Database) -> None:
    (run,) = await db.running()
    await db.settle(run, making.FINAL_FAILURE)
    assert await db.places([await weaving.depend(db, [run.id])]) == ["skipped"]
    assert await db.places([await weaving.depend(db, [run.id], "any_failed")]) == ["ready"]
    with pytest.raises(ParentNotFound):
        await weaving.depend(db, [making.job_id()])


async def test_a_child_that_comes_while_its_parent_runs_is_seen_by_settle(db: Database) -> None:
    (run,) = await db.running()
    child = await weaving.depend(db, [run.id])
    made = await db.jobs.settle([settlement(run, making.SUCCESS)])
    assert made.linked == {(run.id, 1): LOOSE}
    assert await db.places([run.id, child]) == ["running", "blocked"]


async def test_settle_that_waits_for_a_childs_submission_sees_the_child(db: Database) -> None:
    """A9: the parent's end and the child's submission at the same time."""
    (run,) = await db.running()
    transaction = db.session.transaction()
    await transaction.start()
    await db.session.execute("UPDATE job_running SET graph_id = $1", LOOSE)
    settling = asyncio.create_task(db.jobs.settle([settlement(run, making.SUCCESS)]))
    await until_somebody_waits_for_a_lock(db)
    await transaction.commit()
    assert (await settling).linked == {(run.id, 1): LOOSE}


async def test_an_expired_blocked_job_is_cancelled_and_its_children_are_told(db: Database) -> None:
    woven = await weave(db, DIAMOND)
    await db.session.execute(
        "UPDATE job_blocked SET expires_at = now() - interval '1 s' WHERE job_id = $1",
        woven.ids["b"],
    )
    found = await db.graphs.expire(10)
    assert found is not None
    assert [one.id for one in found[0]] == [woven.ids["b"]]
    assert await woven.states() == {"a": "ready", "b": "cancelled", "c": "blocked", "d": "skipped"}
    assert await db.graphs.expire(10) is None


async def test_a_loose_retry_waits_for_its_parents_anew_and_is_told_once(db: Database) -> None:
    one, two = await db.submit(2)
    child = await weaving.depend(db, [one, two], "all_finished")
    worker = await db.worker()
    (first,) = await db.jobs.start([one], worker)
    await weaving.settle(db, (first, making.FINAL_FAILURE))
    await db.graphs.retry_job(one)
    assert await db.places([one, child]) == ["ready", "blocked"]
    assert (await db.row("job_blocked", child))["dead"] == 0
    both = await db.jobs.start([one, two], worker)
    await weaving.settle(db, *((job, making.SUCCESS) for job in both))
    assert await db.places([child]) == ["ready"]


async def test_a_loose_job_is_not_retried_while_its_children_are_being_told(db: Database) -> None:
    (run,) = await db.running()
    new = making.new_jobs(1100, parents=(run.id,), depends_on=("…",), run_if="all_finished")
    await db.submissions.store_graph(Submission(new))
    linked = replace(run, graph_id=LOOSE)
    moved = await weaving.settle(db, (linked, making.FINAL_FAILURE))
    assert len(moved.unlocked) == 1000
    with pytest.raises(Contended):
        await db.graphs.retry_job(run.id)
    await db.graphs.advance(LOOSE)
    assert await db.count("job_blocked") == 0
    assert await db.graphs.retry_job(run.id) is not None


async def test_a_retry_tells_its_jobs_as_they_were_submitted(db: Database) -> None:
    names = ["d", "b", "a", "c"]
    woven = await weave(db, {name: [] for name in names})
    await woven.fail(*names)
    await db.session.execute("UPDATE jobs SET payload = '1' WHERE name = 'd'")  # as a replay does
    plan, _ = await db.graphs.retry_workflow(woven.id, None, dry_run=True)
    assert plan.again == names
