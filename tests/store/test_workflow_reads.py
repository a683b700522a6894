"""What readers see of workflows: counts by state, pages, jobs in their order."""

import random
from collections import Counter
from datetime import datetime

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.view import WorkflowView
from penstock.domain.workflow import WorkflowState
from penstock.store import lists, workflow_reads
from penstock.store.lists import JobFilter
from penstock.store.workflow_reads import WorkflowFilter
from tests.support import making
from tests.support.database import Database
from tests.support.weaving import weave

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


async def seen(db: Database, id_: JobId) -> WorkflowView:
    view = await db.workflow_reads.workflow(id_)
    assert view is not None
    return view


async def test_jobs_are_counted_wherever_they_stand(db: Database) -> None:
    woven = await weave(db, {**DIAMOND, "bad": [], "after": ["bad"]})
    assert (await seen(db, woven.id)).counts == {
        **dict.fromkeys(State, 0),
        State.READY: 2,
        State.BLOCKED: 4,
    }
    await woven.fail("bad")
    await woven.end("a")
    await woven.start("b")
    view = await seen(db, woven.id)
    members = await db.workflow_reads.jobs(woven.id)
    assert {k: v for k, v in view.counts.items() if v} == Counter(one.state for one in members)
    assert view.counts[State.RUNNING] == view.counts[State.SKIPPED] == 1
    assert (view.state, view.queues, view.halt, view.held_by) == (
        WorkflowState.RUNNING,
        ["default"],
        None,
        None,
    )
    assert await db.workflow_reads.workflow(making.job_id()) is None


async def test_jobs_are_told_in_the_order_of_their_submission(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_reads, "_PART", 3)
    names = [f"n{i}" for i in range(10)]
    random.Random(1).shuffle(names)
    woven = await weave(db, {name: names[:1] if name != names[0] else [] for name in names})
    await woven.end(names[0])
    (running,) = await woven.start(names[1])
    members = await db.workflow_reads.jobs(woven.id)
    assert [one.name for one in members] == names
    first, second, third = members[:3]
    assert (first.state, first.attempt, first.run_if, first.depends_on) == (
        State.SUCCEEDED,
        1,
        None,
        (),
    )
    assert first.started_at is not None
    assert first.finished_at is not None
    assert (second.state, second.started_at) == (State.RUNNING, running.started_at)
    assert (third.state, third.attempt, third.started_at) == (State.READY, 0, None)
    assert (third.run_if, third.depends_on) == ("all_succeeded", [names[0]])
    assert await db.workflow_reads.jobs(making.job_id()) == []


async def test_the_jobs_that_died_first_are_named(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_reads, "DEAD_MAX", 2)
    woven = await weave(db, {"a": [], "b": [], "c": [], "fine": []})
    await woven.end("fine")
    assert await db.workflow_reads.dead_jobs(woven.id) == []
    for name in ("c", "a", "b"):
        await woven.fail(name)
    first, second = await db.workflow_reads.dead_jobs(woven.id)
    assert (first.id, first.name, first.kind) == (woven.ids["c"], "c", "echo")
    assert (first.error_type, second.name) == ("oops", "a")
    await db.session.execute(
        "UPDATE job_ended SET error = json_build_object('type', 't', 'message', repeat('x', 999))"
        " WHERE job_id = $1",
        woven.ids["c"],
    )
    first, _ = await db.workflow_reads.dead_jobs(woven.id)
    assert first.message == "x" * 500


async def test_who_was_dead_at_an_end_is_named_though_it_runs_again(db: Database) -> None:
    async def now() -> datetime:
        at = await db.session.fetchval("SELECT clock_timestamp()")
        assert isinstance(at, datetime)
        return at

    woven = await weave(db, {"a": [], "b": []})
    before = await now()
    await woven.fail("a", "b")
    await db.letters.discard(woven.ids["b"], "ada")
    failed = await now()
    assert await db.graphs.retry_job(woven.ids["b"])
    again = await now()
    await woven.end("b")
    ends = [(woven.id, at) for at in (before, failed, again, await now())]
    found = await db.workflow_reads.dead_jobs_then(ends)
    named = [[one.name for one in found.get(end, [])] for end in ends]
    assert named == [[], ["a", "b"], ["a", "b"], ["a"]]


async def test_members_are_found_by_name(db: Database) -> None:
    woven = await weave(db, {"a": [], "b": ["a"], "c": ["a"]}, c="all_finished")
    found = await db.workflow_reads.members(woven.id, ["a", "b", "c", "nobody"])
    assert {name: (one.id, one.is_skippable) for name, one in found.items()} == {
        "a": (woven.ids["a"], False),
        "b": (woven.ids["b"], True),
        "c": (woven.ids["c"], False),
    }


async def test_those_who_wait_for_a_workflow_are_told_of_its_end(db: Database) -> None:
    woven = await weave(db, {"a": []})
    ids = [woven.id, woven.ids["a"]]
    assert await db.reads.ended_among(ids) == []
    await woven.end("a")
    assert sorted(await db.reads.ended_among(ids)) == sorted(ids)


async def place(db: Database, count: int) -> list[tuple[JobId, WorkflowState, str, list[str]]]:
    """Workflows without jobs, oldest first."""
    source = random.Random(3)
    made = [
        (
            id_,
            source.choice(list(WorkflowState)),
            source.choice(["x", "y"]),
            source.sample(["q1", "q2", "q3"], source.randint(1, 2)),
        )
        for id_ in making.job_ids(count)
    ]
    await db.session.executemany(
        "INSERT INTO workflows (workflow_id, state, name, queues, on_failure, created_by,"
        " ancestors, total) VALUES ($1, $2, $3, $4, 'continue', 'ada', '{}', 0)",
        made,
    )
    return made


@pytest.mark.parametrize("looks_max", [7, 20_000])
async def test_all_pages_together_are_the_filtered_set_in_order(
    db: Database, monkeypatch: pytest.MonkeyPatch, looks_max: int
) -> None:
    monkeypatch.setattr(workflow_reads, "LOOKS_MAX", looks_max)
    made = await place(db, 60)
    filters = [
        WorkflowFilter(),
        WorkflowFilter(queues=["q1", "q2"]),
        WorkflowFilter(queues=[]),
        WorkflowFilter(states=frozenset({WorkflowState.FAILED})),
        WorkflowFilter(
            names=["x"], states=frozenset({WorkflowState.FAILED, WorkflowState.RUNNING})
        ),
        WorkflowFilter(["q1", "q2"], frozenset(WorkflowState), ["y", "z"]),
    ]
    for of in filters:
        wanted = [
            id_
            for id_, state, name, queues in reversed(made)
            if (of.states is None or state in of.states)
            and (of.names is None or name in of.names)
            and (of.queues is None or set(queues) <= set(of.queues))
        ]
        for limit in (1, 4, 200):
            found: list[JobId] = []
            below: JobId | None = of.below
            while below is not None:
                page = await db.workflow_reads.page(
                    WorkflowFilter(of.queues, of.states, of.names, below), limit
                )
                assert len(page.items) <= limit
                assert page.next is None or page.next < below, "a page must get on"
                found += [view.id for view in page.items]
                below = page.next
            assert found == wanted, (of, limit)


async def test_a_page_counts_no_more_jobs_than_it_may(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_reads, "COUNTED_MAX", 5)
    woven = [await weave(db, {"a": [], "b": [], "c": []}) for _ in range(3)]
    page = await db.workflow_reads.page(WorkflowFilter(), 10)
    assert [view.id for view in page.items] == [woven[2].id]
    assert page.next == woven[2].id
    await woven[1].end("a", "b", "c")
    page = await db.workflow_reads.page(WorkflowFilter(below=woven[2].id), 10)
    assert [view.id for view in page.items] == [woven[1].id, woven[0].id]
    assert page.next is None


async def test_queues_of_jobs_that_there_are(db: Database) -> None:
    (id_,) = await db.submit(1, queue="mail")
    assert await db.reads.queues_of([id_, making.job_id()]) == {id_: "mail"}


async def test_lists_tell_parents_and_end_when_these_become_too_large(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    woven = await weave(db, {"a": [], **{f"n{i}": ["a"] for i in range(6)}})
    of = JobFilter(workflow=woven.id)
    page = await db.lists.jobs(of, 10)
    assert [view.depends_on for view in page.items] == [("a",)] * 6 + [()]
    assert {view.workflow_id for view in page.items} == {woven.id}
    monkeypatch.setattr(lists, "PAGE_BYTES", 10)
    page = await db.lists.jobs(of, 10)
    assert 0 < len(page.items) < 6
    assert page.next == page.items[-1].id
