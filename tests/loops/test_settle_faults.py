"""Settlement while Postgres fails: nothing is lost, counted twice or called stale."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from penstock.domain.attempt import Ending
from penstock.domain.errors import StoreUnavailable
from penstock.domain.job import Started
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.loops.settle import Outgoing
from penstock.queue import keys
from penstock.store.jobs import Jobs
from tests.support.making import FAILURE, FINAL_FAILURE, SUCCESS
from tests.support.still import Still
from tests.support.waiting import eventually
from tests.support.wire import Wire

Call = Callable[..., Awaitable[object]]

AT_ONCE = Backoff(Curve.FIXED, base_s=0.0, jitter=Jitter.NONE)


async def start(wired: Still, count: int) -> list[Started]:
    """Attempts under way, and the statement that settles them prepared."""
    (first,) = await wired.start()
    await wired.settle((first, SUCCESS))
    return await wired.start(count, backoff=AT_ONCE)


def attempts(wired: Still, outcome: str) -> float:
    return wired.metric("attempts_total", kind="echo", outcome=outcome)


async def settle_unheard(wired: Still, wire: Wire, *endings: tuple[Started, Ending]) -> None:
    """Settles, and the answer of the first sending is lost."""
    wire.lose_answer()
    async with asyncio.timeout(5):
        await wired.settle(*endings)
    assert wire.lost.is_set()


async def test_after_a_lost_answer_all_is_done_that_follows_a_commit(
    wired: Still, postgres_wire: Wire
) -> None:
    good, again, dead = await start(wired, 3)
    async with wired.redis.raw.pubsub() as line:
        await line.subscribe(keys.ENDED)
        assert (await line.get_message(timeout=2))["type"] == "subscribe"
        await settle_unheard(
            wired, postgres_wire, (good, SUCCESS), (again, FAILURE), (dead, FINAL_FAILURE)
        )
        told = await line.get_message(timeout=2)
    ids = [good.id, again.id, dead.id]
    assert await wired.db.places(ids) == ["succeeded", "ready", "dead"]
    assert [await wired.outcomes(id_) for id_ in ids] == [["succeeded"], ["failed"], ["failed"]]
    assert await wired.leases() == set(), "acked"
    assert await wired.ready() == [again.id], "and in line again"
    assert told["data"] == good.id + dead.id
    assert wired.metric("stale_settlements_total") == 0
    assert (attempts(wired, "succeeded"), attempts(wired, "failed")) == (2, 2)
    assert wired.metric("jobs_ended_total", queue="default", state="dead") == 1
    assert wired.engine.settler.unsettled == 0


async def test_an_answer_lost_for_a_later_attempt_finds_that_attempt(
    wired: Still, postgres_wire: Wire
) -> None:
    """The worker has settled an earlier attempt of the same job under the same name."""
    (first,) = await start(wired, 1)
    await wired.settle((first, FAILURE))
    claimed = await wired.engine.shelves.claim("default", ["echo"], 1, 10.0)
    (second,) = await wired.engine.jobs.start(claimed.ids, wired.engine.me.worker)
    await settle_unheard(wired, postgres_wire, (second, SUCCESS))
    assert await wired.outcomes(first.id) == ["failed", "succeeded"]
    assert await wired.shelves() == {}
    assert wired.metric("stale_settlements_total") == 0
    assert (attempts(wired, "succeeded"), attempts(wired, "failed")) == (2, 1)


async def test_a_cancel_is_honoured_beside_a_lost_answer(wired: Still, postgres_wire: Wire) -> None:
    asked, other = await start(wired, 2)
    await wired.db.jobs.cancel_running(asked.id)
    await settle_unheard(wired, postgres_wire, (asked, FAILURE), (other, FAILURE))
    assert await wired.db.places([asked.id, other.id]) == ["cancelled", "ready"]
    assert await wired.ready() == [other.id]
    assert await wired.leases() == set()
    assert wired.metric("stale_settlements_total") == 0


async def test_what_was_stale_stays_stale_when_the_answer_is_lost(
    wired: Still, postgres_wire: Wire
) -> None:
    stale, good = await start(wired, 2)
    other = await wired.db.worker()
    await wired.db.session.execute(
        "UPDATE job_running SET worker_id = $1, attempt = 2 WHERE job_id = $2", other, stale.id
    )
    await settle_unheard(wired, postgres_wire, (stale, SUCCESS), (good, SUCCESS))
    assert await wired.db.places([stale.id, good.id]) == ["running", "succeeded"]
    assert await wired.leases() == {stale.id}
    assert wired.metric("stale_settlements_total") == 1


async def test_endings_wait_for_as_long_as_postgres_is_away(
    wired: Still, postgres_wire: Wire
) -> None:
    jobs = await start(wired, 3)
    await postgres_wire.cut()
    settling = asyncio.create_task(wired.settle(*((job, SUCCESS) for job in jobs)))

    async def waiting() -> bool:
        return wired.engine.settler.unsettled == 3

    await eventually(waiting, "they wait")
    assert not settling.done()
    await postgres_wire.mend()
    async with asyncio.timeout(5):
        await settling
    assert await wired.db.places([job.id for job in jobs]) == ["succeeded"] * 3
    assert await wired.leases() == set()
    assert wired.metric("stale_settlements_total") == 0


QUERIES = ("settle", "settled_before", "add_logs")


class Failing:
    """Queries that fail, each after it was served (True) or instead of it, time after time."""

    def __init__(self, jobs: Jobs, served: dict[str, list[bool]]) -> None:
        self._real: dict[str, Call] = {name: getattr(jobs, name) for name in QUERIES}
        self._served = {name: iter(served.get(name, ())) for name in QUERIES}

    def call(self, name: str) -> Call:
        async def call(*args: object) -> object:
            served = next(self._served[name], None)
            answer = None if served is False else await self._real[name](*args)
            if served is not None:
                raise StoreUnavailable("as asked", unknown=served)
            return answer

        return call


@pytest.mark.parametrize(
    "served",
    [
        {"settle": [False, False]},
        {"settle": [True, True]},
        {"settle": [True, False]},
        {"settle": [True], "settled_before": [False, True]},
        {"add_logs": [True, False]},
    ],
    ids=str,
)
async def test_it_is_sent_again_however_often_it_fails(
    still: Still, monkeypatch: pytest.MonkeyPatch, served: dict[str, list[bool]]
) -> None:
    (job,) = await still.start(backoff=AT_ONCE)
    failing = Failing(still.engine.jobs, served)
    for name in QUERIES:
        monkeypatch.setattr(still.engine.jobs, name, failing.call(name))
    logs = [(job.id, 1, 1, 1_795_000_000.0, "info", "line")]
    async with asyncio.timeout(5):
        await still.engine.settler.settle([Outgoing(job, FAILURE, logs=logs)])
    await still.engine.enqueuer.drained()
    assert await still.outcomes(job.id) == ["failed"]
    assert await still.ready() == [job.id]
    assert await still.leases() == set()
    assert len(await still.db.reads.logs(job.id)) == 1
    assert still.metric("stale_settlements_total") == 0
    assert still.metric("attempts_total", kind="echo", outcome="failed") == 1
