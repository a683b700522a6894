"""Running rows that Postgres lets nobody settle: somebody has meddled with the tables."""

import asyncio

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.loops import settle
from tests.support.gates import let_go
from tests.support.making import SUCCESS
from tests.support.still import Still

# Its attempt stands in the history already.
_MEDDLE = """
INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)
SELECT job_id, attempt, worker_id, started_at, started_at, 'lost' FROM job_running
WHERE job_id = $1
"""


@pytest.fixture
async def broken(still: Still) -> Started:
    """One that was refused once."""
    (job,) = await still.start(kind="gated")
    let_go(job.id)
    await still.db.session.execute(_MEDDLE, job.id)
    await still.settle((job, SUCCESS))
    assert await still.db.places([job.id]) == ["running"]
    return job


async def test_its_handler_is_not_run_again_and_it_is_counted_once(
    still: Still, broken: Started
) -> None:
    assert still.metric("unsettleable_total") == 1
    for _ in range(3):
        assert await still.engine.worker.adopt() > 0.0
    assert still.engine.pool.busy() == []
    assert still.metric("adopted_total") == 0
    assert await still.outcomes(broken.id) == ["lost"], "what was meddled in"


async def test_it_hides_no_stranger_from_adoption(still: Still, broken: Started) -> None:
    (stranger,) = await still.start(kind="gated")
    await still.engine.worker.adopt()
    assert [run.job.id for run in still.engine.pool.busy()] == [stranger.id]
    let_go(stranger.id)
    await still.in_places([stranger.id], "succeeded")


async def test_a_drain_does_not_try_for_ever_to_hand_it_back(still: Still, broken: Started) -> None:
    async with asyncio.timeout(3):
        await still.engine.drain()
    assert still.metric("unsettleable_total") == 1
    assert await still.db.places([broken.id]) == ["running"]


async def test_a_reaper_tries_once_and_goes_on_with_the_others(
    still: Still, broken: Started
) -> None:
    still.engine.settler.refused.clear()  # another replica's, which has not met it
    (other,) = await still.start()
    await still.db.session.execute("UPDATE workers SET condemned_at = clock_timestamp()")
    for _ in range(3):
        await still.engine.reaper.step()
    assert still.metric("unsettleable_total") == 2
    assert await still.db.places([broken.id, other.id]) == ["running", "ready"]


async def test_only_so_many_are_remembered(still: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_REFUSED_MAX", 2)
    ids: list[JobId] = []
    for _ in range(3):
        (job,) = await still.start()
        await still.db.session.execute(_MEDDLE, job.id)
        await still.settle((job, SUCCESS))
        ids.append(job.id)
    assert list(still.engine.settler.refused) == ids[1:], "the oldest is forgotten"
