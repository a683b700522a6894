"""Pruning and the outbox: what is still to be told of stays; letters and deliveries go by age."""

import pytest

from penstock.domain.job import State
from penstock.domain.letter import Which
from penstock.domain.workflow import LOOSE
from penstock.store.letters import LetterFilter
from penstock.store.retention import Retention
from penstock.store.rows import EPOCH
from tests.support import making
from tests.support.database import Database
from tests.support.letterbox import Letterbox
from tests.support.weaving import weave

HOUR_S = 3600.0
LONG_AGO = "UPDATE job_ended SET finished_at = finished_at - interval '2 hours'"


@pytest.fixture
def retention(db: Database) -> Retention:
    return Retention(db.postgres)


@pytest.fixture
def box(db: Database) -> Letterbox:
    return Letterbox(db.session)


async def test_a_job_that_is_still_to_be_told_of_stays(
    db: Database, retention: Retention, box: Letterbox
) -> None:
    told, untold = await db.running(2)
    for run in (told, untold):
        await db.settle(run, making.FINAL_FAILURE)
    await db.session.execute(LONG_AGO)
    effect = await box.pending(job_id=untold.id)
    await box.over(job_id=told.id)
    assert (await retention.prune_ended(State.DEAD, HOUR_S, EPOCH, 100)).count == 1
    assert await db.places([told.id, untold.id]) == [None, "dead"]
    await db.session.execute("DELETE FROM effects WHERE effect_id = $1", effect)
    assert (await retention.prune_ended(State.DEAD, HOUR_S, EPOCH, 100)).count == 1


async def test_so_does_a_loose_one(db: Database, retention: Retention, box: Letterbox) -> None:
    (run,) = await db.running()
    await db.settle(run, making.FINAL_FAILURE)
    await db.session.execute(LONG_AGO)
    await db.session.execute("UPDATE job_ended SET graph_id = $1", LOOSE)
    await box.pending(job_id=run.id)
    assert (await retention.prune_loose(State.DEAD, HOUR_S, EPOCH, 100)).count == 0
    await db.session.execute("DELETE FROM effects")
    assert (await retention.prune_loose(State.DEAD, HOUR_S, EPOCH, 100)).count == 1


@pytest.mark.parametrize("of", ["workflow", "job"])
async def test_so_does_a_workflow(
    db: Database, retention: Retention, box: Letterbox, of: str
) -> None:
    woven = await weave(db, {"a": (), "b": ("a",)})
    await woven.end("a")
    await woven.end("b")
    await db.session.execute("UPDATE workflows SET finished_at = finished_at - interval '2 hours'")
    if of == "workflow":
        await box.pending(workflow_id=woven.id)
    else:
        job = await db.session.fetchval("SELECT job_id FROM jobs WHERE name = 'b'")
        await box.pending(job_id=job)
    assert await retention.prune_workflows(HOUR_S, 100) == 0
    await db.session.execute("DELETE FROM effects")
    await box.pending()
    assert await retention.prune_workflows(HOUR_S, 100) == 1


async def test_the_open_letter_of_a_pruned_job_is_closed_and_kept(
    db: Database, retention: Retention
) -> None:
    (run,) = await db.running()
    await db.settle(run, making.FINAL_FAILURE)
    await db.session.execute(LONG_AGO)
    assert (await retention.prune_ended(State.DEAD, HOUR_S, EPOCH, 100)).count == 1
    assert (await db.letters.page(LetterFilter(), 9)).items == []
    (left,) = (await db.letters.page(LetterFilter(which=Which.ALL), 9)).items
    assert (left.resolution, left.resolved_by, left.error) == ("pruned", None, None)
    assert await db.letters.replay_plain([run.id], [0.0], "ada") == []


async def test_letters_of_workflows_are_closed_with_their_jobs(
    db: Database, retention: Retention
) -> None:
    woven = await weave(db, {"a": ()})
    await woven.fail("a")
    await db.session.execute("UPDATE workflows SET finished_at = finished_at - interval '2 hours'")
    assert await retention.prune_workflows(HOUR_S, 100) == 1
    await retention.prune_workflow_jobs(100)
    (left,) = (await db.letters.page(LetterFilter(which=Which.ALL), 9)).items
    assert left.resolution == "pruned"


async def test_resolved_letters_go_by_age_and_open_ones_stay(
    db: Database, retention: Retention
) -> None:
    runs = await db.running(4)
    for run in runs:
        await db.settle(run, making.FINAL_FAILURE)
    for run in runs[:3]:
        await db.letters.discard(run.id, "ada")
    aged = "UPDATE dead_letters SET died_at = died_at - interval '1 day', resolved_at = resolved_at"
    await db.session.execute(f"{aged} - interval '2 hours' WHERE job_id <> $1", runs[2].id)
    assert await retention.prune_letters(HOUR_S, 1) == 1
    assert await retention.prune_letters(HOUR_S, 10) == 1
    left = (await db.letters.page(LetterFilter(which=Which.ALL), 9)).items
    assert {one.job for one in left} == {runs[2].id, runs[3].id}


async def test_deliveries_go_by_age_and_what_is_pending_stays(
    db: Database, retention: Retention, box: Letterbox
) -> None:
    for _ in range(3):
        await box.over()  # days ago
    young = await db.session.fetchval("SELECT now()")
    kept = await box.over(finished_at=young)
    pending = await box.pending()
    assert await retention.prune_deliveries(HOUR_S, 2) == 2
    assert await retention.prune_deliveries(HOUR_S, 2) == 1
    assert await retention.prune_deliveries(HOUR_S, 2) == 0
    left = await db.session.fetch(
        "SELECT effect_id FROM deliveries UNION ALL SELECT effect_id FROM effects"
    )
    assert {row[0] for row in left} == {kept, pending}
