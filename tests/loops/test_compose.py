"""Messages: a job as it was at the end that is told of, whatever has become of it since."""

from typing import Any

import orjson
import pytest

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.delivery import masked
from penstock.domain.effect import Channel, Delivery, Effect, Message, On, Wish, wishes_json
from penstock.domain.ids import JobId
from penstock.domain.submission import Submission
from penstock.domain.workflow import NewWorkflow
from penstock.loops.compose import GONE, Composer, Extent, Rules
from penstock.relays import SHOW, Sources
from tests.support import making
from tests.support.graphing import submission
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.relaying import hook
from tests.support.still import Still

URL = "http://127.0.0.1:1/"


@pytest.fixture
def composer(still: Still) -> Composer:
    return composed_with(still, Extent(1000))


def composed_with(still: Still, extent: Extent) -> Composer:
    engine = still.engine
    sources = Sources.of(
        still.rooms.postgres, engine.effects, engine.workflow_reads, engine.current
    )
    rules = Rules(engine.relays.sieve, engine.relays.digests)
    return Composer(sources.ends, sources.workflows, SHOW, rules, extent)


async def claimed(still: Still) -> list[Effect]:
    """All that waits, in the order of what it tells of."""
    share = (1000, 1000, 60.0)
    found = await still.engine.effects.claim(Channel.WEBHOOK, b"x" * 16, [], share)
    return sorted(found, key=lambda one: (one.at, one.attempt))


def data_of(made: Message | Delivery) -> dict[str, Any]:
    assert isinstance(made, Message)
    data = orjson.loads(made.data)
    assert isinstance(data, dict)
    return data


async def replayed(still: Still, id_: JobId, ending: Ending) -> None:
    """A new life, ended."""
    assert await still.db.retry(id_)
    (job,) = await still.engine.jobs.start([id_], still.engine.me.worker)
    await still.settle((job, ending))


async def test_each_life_is_told_as_it_ended(still: Still, composer: Composer) -> None:
    (job,) = await still.start(notify=hook(URL), payload='{"a":1}')
    await still.settle((job, FINAL_FAILURE))
    await replayed(still, job.id, SUCCESS)
    first, second = await claimed(still)
    died, lived = map(data_of, await composer.compose([first, second]))
    assert (died["state"], died["reason"], died["attempt"]) == ("dead", "failed-for-good", 1)
    assert (died["result"], died["error"]["type"]) == (None, "oops")
    assert (died["failures"], died["payload"]) == (1, {"a": 1})
    assert died["finished_at"] is not None
    assert (lived["state"], lived["attempt"], lived["error"]) == ("succeeded", 2, None)
    assert lived["result"] == {"answer": 42}
    assert died["finished_at"] <= lived["finished_at"]
    assert first.dedupe != second.dedupe


async def test_failures_are_those_of_the_life_that_is_told_of(
    still: Still, composer: Composer
) -> None:
    (job,) = await still.start(notify=hook(URL), max_attempts=2)
    for ending in (making.FAILURE, making.FAILURE, making.FAILURE, making.FAILURE, SUCCESS):
        await still.settle((job, ending))
        if await still.db.places([job.id]) == ["dead"]:
            assert await still.db.retry(job.id)
        await still.db.session.execute("UPDATE job_due SET ready_at = now()")
        if due := await still.engine.jobs.start([job.id], still.engine.me.worker):
            (job,) = due
    told = [data_of(made) for made in await composer.compose(await claimed(still))]
    assert [(one["attempt"], one["failures"]) for one in told] == [(2, 2), (4, 2), (5, 0)]


async def test_one_that_waits_again_is_told_as_dead(still: Still, composer: Composer) -> None:
    (job,) = await still.start(notify=hook(URL))
    await still.settle((job, FINAL_FAILURE))
    assert await still.db.retry(job.id)
    (told,) = map(data_of, await composer.compose(await claimed(still)))
    assert (told["state"], told["attempt"]) == ("dead", 1)


async def test_a_cancel_before_any_start_is_told(still: Still, composer: Composer) -> None:
    (id_,) = await still.submit(notify=hook(URL), delay_s=60)
    await still.engine.changes.cancel(id_)
    (told,) = map(data_of, await composer.compose(await claimed(still)))
    assert (told["state"], told["attempt"], told["started_at"]) == ("cancelled", 0, None)
    assert (told["cancel_reason"], told["reason"]) == ("requested", "requested")


async def test_attempts_go_along_where_they_are_wanted_up_to_that_end(still: Still) -> None:
    (job,) = await still.start(notify=hook(URL))
    await still.settle((job, FINAL_FAILURE))
    await replayed(still, job.id, FINAL_FAILURE)
    whole = composed_with(still, Extent(1000, whole=True))
    first, second = map(data_of, await whole.compose(await claimed(still)))
    assert [one["attempt"] for one in first["attempts"]] == [1]
    assert [one["attempt"] for one in second["attempts"]] == [1, 2]
    assert second["attempts"][1]["outcome"] == "failed"
    assert [one["webhook"] for one in first["notify"]] == [masked(URL)]


async def test_a_receiver_does_not_learn_who_else_is_told(still: Still, composer: Composer) -> None:
    (job,) = await still.start(notify=hook(URL, "http://127.0.0.1:2/secret"))
    await still.settle((job, SUCCESS))
    for made in await composer.compose(await claimed(still)):
        assert isinstance(made, Message)
        assert "secret" not in made.data


async def test_what_is_too_large_stays_behind(still: Still, composer: Composer) -> None:
    large = orjson.dumps("x" * 2000).decode()
    jobs = await still.start(2, notify=hook(URL), payload=large)
    failure = Failure("oops", "as asked")
    await still.settle(
        (jobs[0], Ending(Outcome.SUCCEEDED, result=large)),
        (jobs[1], Ending(Outcome.FAILED, failure=failure, retryable=False)),
    )
    for told in map(data_of, await composer.compose(await claimed(still))):
        assert (told["payload"], told["result"], told["truncated"]) == (None, None, True)


async def test_many_are_read_by_few_statements_in_their_order(
    still: Still, composer: Composer
) -> None:
    jobs = await still.start(45, notify=hook(URL))
    await still.settle(*((job, SUCCESS) for job in jobs))
    effects = await claimed(still)
    made = await composer.compose([*effects, effects[0]])
    assert [one.effect for one in made if isinstance(one, Message)] == [*effects, effects[0]]


async def test_what_is_gone_is_said_in_its_place(still: Still, composer: Composer) -> None:
    jobs = await still.start(3, notify=hook(URL))
    await still.settle(*((job, SUCCESS) for job in jobs))
    effects = await claimed(still)
    await still.db.session.execute("DELETE FROM jobs WHERE job_id = $1", effects[1].job)
    first, second, third = await composer.compose(effects)
    assert isinstance(first, Message)
    assert second == GONE
    assert isinstance(third, Message)


async def test_a_workflows_end_is_told(still: Still, composer: Composer) -> None:
    one, made = submission({"a": ()})
    wishes = wishes_json([Wish((On.DEAD,), Channel.WEBHOOK, URL)])
    workflow = NewWorkflow(made.id, "nightly", created_by="alice", notify=wishes)
    await still.engine.submitter.submit(Submission(one.jobs, workflow=workflow))
    (job,) = await still.engine.jobs.start(made.of("a"), still.engine.me.worker)
    await still.settle((job, FINAL_FAILURE))
    (effect,) = await claimed(still)
    (told,) = map(data_of, await composer.compose([effect]))
    assert (told["name"], told["state"], told["created_by"]) == ("nightly", "failed", "alice")
    assert told["counts"]["dead"] == 1
    (dead,) = told["dead_jobs"]
    assert (dead["name"], dead["kind"], dead["error"]["type"]) == ("a", job.kind, "oops")
    assert await still.engine.graphs.retry_job(job.id)
    (late,) = map(data_of, await composer.compose([effect]))
    assert late["dead_jobs"] == told["dead_jobs"], "it was dead then, though it runs again"
    assert told["finished_at"] is not None
    assert "notify" not in told
    await still.db.session.execute("DELETE FROM workflows")
    assert await composer.compose([effect]) == [GONE]


async def test_where_a_job_comes_from_is_passed_on(still: Still, composer: Composer) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    (job,) = await still.start(notify=hook(URL), traceparent=trace)
    await still.settle((job, making.SUCCESS))
    (made,) = await composer.compose(await claimed(still))
    assert isinstance(made, Message)
    assert made.traceparent == trace
