"""The self-audit's looks at graphs: each finds what was broken by hand, and nothing where all is
well, whatever is under way."""

import asyncio

import pytest

from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.submission import Submission
from penstock.domain.workflow import NewWorkflow
from penstock.store.audit import Audit, Found
from penstock.store.nested import Nested
from penstock.store.retention import Retention
from penstock.store.walk import STEP
from tests.support import making
from tests.support.database import Database
from tests.support.weaving import Woven, depend, weave

NOTHING: Found = {
    rule: []
    for rule in (
        *("no_place", "two_places", "no_job", "leaked_key"),
        *("blocked_counts", "stuck_blocked", "workflow_counts", "stuck_workflow"),
    )
}


async def audited(db: Database, rows_max: int = 1000) -> Found:
    """What all walks show."""
    audit = Audit(db.postgres)
    found: Found = {rule: [] for rule in NOTHING}
    for look in (audit.places, audit.blocked, audit.workflows):
        after: bytes | None = bytes(16)
        while after is not None:
            page = await look(after, rows_max)
            assert page.next is None or page.next > after
            after = page.next
            for rule, those in page.found.items():
                found[rule] += sorted(those)
    page, _ = await audit.keys(bytes(16), 1000)
    return found | page.found


def only(**found: list[JobId]) -> Found:
    return NOTHING | {
        rule: [ids.text(id_) for id_ in sorted(those)] for rule, those in found.items()
    }


async def in_every_state(db: Database) -> list[Woven]:
    """Diamonds: begun, half way, over, failed, cancelled; and loose jobs below two of them."""
    found = [
        await weave(db, {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}) for _ in range(5)
    ]
    await found[1].end("a")
    await found[1].end("b")
    await found[2].end("a")
    await found[2].end("b", "c")
    await found[2].end("d")
    await found[3].fail("a")
    await db.graphs.cancel_workflow(found[4].id)
    await depend(db, [found[1].ids["b"], found[1].ids["c"]])
    await depend(db, [found[3].ids["a"], found[2].ids["d"]])
    return found


@pytest.mark.parametrize("rows_max", [1, 2, 3, 1000])
async def test_where_all_is_well_nothing_is_found(db: Database, rows_max: int) -> None:
    await in_every_state(db)
    assert await audited(db, rows_max) == NOTHING


async def test_a_retry_leaves_nothing_to_find(db: Database) -> None:
    woven = await in_every_state(db)
    for one in woven[3:]:
        await db.graphs.retry_workflow(one.id, None)
        assert await audited(db) == NOTHING


@pytest.mark.parametrize("rows_max", [1, 2, 3, 1000])
async def test_a_blocked_job_that_counts_wrongly_is_found(db: Database, rows_max: int) -> None:
    woven = await in_every_state(db)
    one, other, third = (woven[n].ids["d"] for n in (0, 1, 1))
    await db.session.execute("UPDATE job_blocked SET dead = 1 WHERE job_id = $1", one)
    await db.session.execute("UPDATE job_blocked SET succeeded = 0 WHERE job_id = $1", other)
    assert await audited(db, rows_max) == only(blocked_counts=[one, other])
    await db.session.execute(
        "DELETE FROM job_edges WHERE uuid_send(child_id) = uuid_send($1)", third
    )
    assert (await audited(db, rows_max))["blocked_counts"] == only(x=[one, other])["x"]


async def test_a_blocked_job_whose_condition_is_decided_is_found(db: Database) -> None:
    woven = await in_every_state(db)
    await db.session.execute(
        "UPDATE job_blocked SET parents = 1 WHERE job_id = $1", woven[1].ids["d"]
    )
    await db.session.execute(
        "DELETE FROM job_edges WHERE parent_id = $1 AND child_id = $2",
        *(woven[1].ids["c"], woven[1].ids["d"]),
    )
    assert await audited(db) == only(stuck_blocked=[woven[1].ids["d"]])


async def test_what_a_spread_has_still_to_tell_is_not_stuck(db: Database) -> None:
    wide = {"a": (), **{f"{n:05}": ("a",) for n in range(STEP + 5)}}
    woven = await weave(db, wide)
    assert (await woven.end("a")).unfinished
    assert await db.count("job_blocked") == 5
    assert await audited(db) == NOTHING
    await db.session.execute("DELETE FROM job_spreads")
    found = await audited(db)
    assert len(found["blocked_counts"]) == len(found["stuck_blocked"]) == 5, "nobody tells them"


async def test_what_a_halt_is_still_to_let_go_is_not_stuck(db: Database) -> None:
    woven = await weave(db, {"a": (), **{f"{n:05}": () for n in range(STEP + 5)}, "z": ("a",)})
    await woven.end("a")
    assert (await db.graphs.cancel_workflow(woven.id)).unfinished
    assert await audited(db) == NOTHING


async def test_workflows_that_count_wrongly_or_should_be_over_are_found(db: Database) -> None:
    woven = await in_every_state(db)
    set_to = "UPDATE workflows SET {} WHERE workflow_id = $1"
    await db.session.execute(set_to.format("succeeded = 1"), woven[0].id)
    await db.session.execute(set_to.format("state = 'running', finished_at = NULL"), woven[2].id)
    await db.session.execute(set_to.format("total = 5"), woven[3].id)
    assert await audited(db) == only(
        workflow_counts=[woven[0].id, woven[3].id], stuck_workflow=[woven[2].id]
    )
    assert await audited(db, 1) == await audited(db)


async def test_a_job_of_a_graph_in_no_place_or_in_two_is_found(db: Database) -> None:
    woven = await weave(db, {"a": (), "b": ("a",), "c": ("a",)})
    await db.session.execute("DELETE FROM job_blocked WHERE job_id = $1", woven.ids["b"])
    await db.session.execute(
        "INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)"
        " SELECT job_id, queue, kind, priority, run_at, 0, 0, 0 FROM job_blocked"
    )
    found = await audited(db)
    assert found["no_place"] == [ids.text(woven.ids["b"])]
    assert found["two_places"] == [ids.text(woven.ids["c"])]


async def test_the_key_of_a_blocked_job_is_held(db: Database) -> None:
    id_, audit = making.job_id(), Audit(db.postgres)
    parent = making.new_job(workflow_id=id_, name="a")
    child = making.new_job(
        workflow_id=id_, name="b", depends_on=("a",), parents=(parent.id,), unique_key="k"
    )
    await db.submissions.store_graph(Submission([parent, child], workflow=NewWorkflow(id_, "w")))
    assert await audited(db) == NOTHING
    keys = [row[0] for row in await db.session.fetch("SELECT unique_id FROM job_unique")]
    assert await audit.free(keys) == 0
    await db.graphs.cancel_workflow(id_)
    assert await audited(db) == NOTHING


async def test_an_attempt_that_is_a_workflow_is_an_orphan_only_without_it(db: Database) -> None:
    audit = Audit(db.postgres)
    (holder,) = await db.running(kind="workflow")
    inner = NewWorkflow(making.job_id(), "inner", holder=holder.id)
    job = making.new_job(workflow_id=inner.id, name="a")
    await Nested(db.postgres).store(holder, Submission([job], workflow=inner))
    assert await audit.orphans() == []
    assert await db.workers.orphaning() == []
    await db.session.execute("UPDATE workflows SET state = 'failed', finished_at = now()")
    assert await audit.orphans() == [ids.text(holder.id)]
    await db.session.execute("DELETE FROM workflows")
    assert await audit.orphans() == [ids.text(holder.id)]


async def test_no_look_sees_half_of_a_transition(db: Database) -> None:
    """Workflows are submitted, run, fail, are run again and pruned while somebody looks."""
    over = asyncio.Event()

    async def move() -> None:
        for n in range(12):
            woven = await weave(db, {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")})
            if n % 2:
                await woven.fail("a")
                await db.graphs.retry_workflow(woven.id, None)
            await woven.end("a")
            await woven.end("b", "c")
            await woven.end("d")
            await Retention(db.postgres).prune_workflows(0.0, 10)
            await Retention(db.postgres).prune_workflow_jobs(3)
        over.set()

    moving, looks = asyncio.create_task(move()), 0
    while not over.is_set():
        assert await audited(db) == NOTHING
        looks += 1
    await moving
    assert looks > 5
