"""The relay: what becomes of effects, whatever their receivers do."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import orjson
import pytest
from aiohttp import web

from penstock.api import views
from penstock.domain.attempt import Ending
from penstock.domain.effect import Channel, On
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId
from penstock.telemetry.of_effects import FATES
from tests.egress.receiver import Receiver, receiver, saying
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.relaying import Outbox, hook
from tests.support.still import Still
from tests.support.waiting import eventually
from tests.support.wire import Wire


@pytest.fixture
def outbox(still: Still) -> Outbox:
    return Outbox(still)


async def end(still: Still, *urls: str, ending: Ending = SUCCESS, count: int = 1) -> list[JobId]:
    """Jobs that have ended and want these URLs told."""
    jobs = await still.start(count, notify=hook(*urls))
    await still.settle(*((job, ending) for job in jobs))
    return [job.id for job in jobs]


async def test_an_end_is_told_as_the_api_shows_the_job(still: Still, outbox: Outbox) -> None:
    async with receiver(saying()) as there:
        (id_,) = await end(still, there.url)
        assert outbox.relay.wake.is_set(), "the settlement wakes it"
        await outbox.turn()
    (seen,) = there.seen
    event = orjson.loads(seen.body)
    view = await still.db.reads.job(id_)
    assert view is not None
    shown = orjson.loads(orjson.dumps(views.job(view)))
    del shown["notify"]
    assert event["data"] == {**shown, "reason": None}
    assert event["data"]["result"] == {"answer": 42}
    assert event["type"] == "penstock.job.succeeded.v1"
    assert await outbox.over() == [("delivered", None)]
    assert await outbox.waiting() == []
    assert still.metric("effects_total", channel="webhook", fate="delivered") == 1


async def test_a_failure_is_put_off_and_said(still: Still, outbox: Outbox) -> None:
    async with receiver(saying(status=503)) as there:
        await end(still, there.url)
        await outbox.turn()
        ((url, tries, error, _, _, in_s),) = await outbox.waiting()
        assert (url, tries, error) == (there.url, 1, "the endpoint answered 503")
        assert 4 < in_s < 7
        await outbox.turn()
        assert len(there.seen) == 1, "not before its time"
        await outbox.later()
        await outbox.turn()
    assert len(there.seen) == 2
    first, second = (seen.headers["webhook-id"] for seen in there.seen)
    assert first == second
    ((_, tries, _, _, _, in_s),) = await outbox.waiting()
    assert tries == 2
    assert 290 < in_s < 370


async def test_the_receivers_own_wish_is_kept_to(still: Still, outbox: Outbox) -> None:
    async with receiver(saying(status=429, headers={"Retry-After": "120"})) as there:
        await end(still, there.url)
        await outbox.turn()
    ((_, _, _, _, _, in_s),) = await outbox.waiting()
    assert 115 < in_s < 145


async def test_the_schedule_comes_to_its_end(still: Still, outbox: Outbox) -> None:
    async with receiver(saying(status=500)) as there:
        await end(still, there.url)
        for _ in range(10):
            await outbox.later()
            await outbox.turn()
    assert await outbox.over() == [("failed", "the endpoint answered 500")]
    assert len(there.seen) == 10
    fates = {fate: still.metric("effects_total", channel="webhook", fate=fate) for fate in FATES}
    assert {fate: count for fate, count in fates.items() if count} == {"later": 9, "never": 1}


async def test_an_address_that_is_refused_is_never_tried_again(
    still: Still, outbox: Outbox
) -> None:
    await end(still, "http://10.0.0.1/")
    await outbox.turn()
    ((outcome, error),) = await outbox.over()
    assert outcome == "failed"
    assert error is not None
    assert "a private address" in error
    assert await outbox.endpoints() == []


@pytest.fixture
async def hanging() -> AsyncIterator[Receiver]:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with receiver(hang) as there:
        yield there


async def test_an_endpoint_that_hangs_delays_no_other(
    still: Still, outbox: Outbox, hanging: Receiver
) -> None:
    async with receiver(saying()) as there:
        await end(still, hanging.url, there.url, count=30)
        await end(still, *(f"{hanging.url}/{n}" for n in range(50)))

        async def look() -> bool:
            await outbox.relay.step()
            return len(there.seen) == 30

        await eventually(look, "the other has got all", within_s=5)
    await outbox.relay.drain(0)


async def test_an_endpoint_that_fails_rests_with_all_that_is_for_it(
    still: Still, outbox: Outbox
) -> None:
    headers = {"Retry-After": "30"}
    async with receiver(saying(status=429, headers=headers)) as there:
        await end(still, there.url)
        await outbox.turn()
        await end(still, there.url, count=5)
        await outbox.turn()
        assert len(there.seen) == 1
        assert outbox.relay.rests.names() == [there.url]
        await outbox.later()
        await outbox.turn()
        assert len(there.seen) == 7


async def test_more_endpoints_than_lanes_are_served_one_after_the_other(
    still: Still, outbox: Outbox
) -> None:
    outbox.relay.lanes = 2
    async with receiver(saying()) as there:
        await end(still, *(f"{there.url}/{n}" for n in range(40)))

        async def look() -> bool:
            await outbox.relay.step()
            assert outbox.relay.busy <= 2 + 11
            return len(there.seen) == 40

        await eventually(look, "all were told", every_s=0.001)
        await outbox.idle()


async def test_backlogs_of_the_first_endpoints_hold_up_no_last_one(
    still: Still, outbox: Outbox
) -> None:
    outbox.relay.lanes = 2
    async with receiver(saying()) as there:
        first = [f"{there.url}/a{n}" for n in range(20)]
        await end(still, *first, count=60)
        (last,) = await end(still, f"{there.url}/z")
        for _ in range(40):
            await outbox.turn()
            if any(seen.path.endswith("/z") for seen in there.seen):
                break
        assert await still.db.session.fetchval(
            "SELECT count(*) FROM deliveries WHERE job_id = $1", last
        )
        left = await still.db.session.fetch("SELECT DISTINCT endpoint FROM effects")
        assert len(left) == len(first), "each of the others has a backlog still"


async def test_what_nobody_serves_any_more_fails_and_can_be_sent_again(
    still: Still, outbox: Outbox
) -> None:
    async with receiver(saying()) as there:
        await end(still, there.url, count=3)
        relays = still.engine.relays
        served = relays.by_channel.pop(Channel.WEBHOOK)
        await relays.gauge()
        assert len(await outbox.waiting()) == 3, "others may be told of it later"
        later = "UPDATE effects SET due_at = clock_timestamp() - interval '61 min'"
        await still.db.session.execute(later)
        await still.db.session.execute(  # one is of a group, whose message another tells
            "UPDATE effects SET due_at = 'infinity', waits_for = 'group', message_id = l.effect_id"
            " FROM (SELECT effect_id FROM effects ORDER BY at LIMIT 1) l"
            " WHERE effects.effect_id = (SELECT effect_id FROM effects ORDER BY at DESC LIMIT 1)"
        )
        await relays.gauge()
        assert await still.db.count("effects") == 1, "it has no time of its own"
        await relays.gauge()
        why = "webhook.secrets has not been set for 3600 s: set it, and send this again"
        assert await outbox.over() == [("failed", why)] * 3
        assert still.metric("effects_total", channel="webhook", fate="never") == 3
        relays.by_channel[Channel.WEBHOOK] = served
        id_ = await still.db.session.fetchval("SELECT effect_id FROM deliveries LIMIT 1")
        assert await still.engine.deliveries.send_again(id_)
        await outbox.turn()
        assert len(there.seen) == 1
        await still.db.session.execute(later)
        await relays.gauge()
        assert await outbox.waiting() == []


async def test_an_endpoint_that_says_it_is_gone_gets_nothing_more(
    still: Still, outbox: Outbox
) -> None:
    async with receiver(saying(status=410)) as there:
        await end(still, there.url)
        await outbox.turn()
        (row,) = await outbox.endpoints()
        assert row["disabled_at"] is not None
        await end(still, there.url, count=2)
        await outbox.turn()
    assert len(there.seen) == 1
    first, *others = await outbox.over()
    assert first == ("failed", "the endpoint answered 410")
    for outcome, error in others:
        assert outcome == "dropped"
        assert error is not None
        assert error.startswith("the endpoint was given up at 20")
        assert error.endswith("the endpoint answered 410")
    assert len(others) == 2


async def test_an_endpoint_that_fails_for_too_long_is_given_up(
    still: Still, outbox: Outbox
) -> None:
    async with receiver(saying(status=500)) as there:
        await end(still, there.url)
        await outbox.turn()
        (row,) = await outbox.endpoints()
        assert (row["disabled_at"], row["failures"]) == (None, 1)
        await still.db.session.execute(
            "UPDATE endpoints SET failing_since = failing_since - $1::interval", timedelta(days=5)
        )
        await outbox.later()
        await outbox.turn()
        (row,) = await outbox.endpoints()
        assert row["disabled_at"] is not None
        await outbox.later()
        await outbox.turn()
    assert len(there.seen) == 2
    assert [outcome for outcome, _ in await outbox.over()] == ["dropped"]


async def test_an_endpoint_that_works_again_is_no_longer_a_failing_one(
    still: Still, outbox: Outbox
) -> None:
    """Whoever found it failing: here that was another replica."""
    async with receiver(saying()) as there:
        await still.db.session.execute(
            "INSERT INTO endpoints VALUES ($1, 'webhook', clock_timestamp(), 7, NULL, 'x')",
            there.url,
        )
        await end(still, there.url)
        await outbox.turn()
    assert await outbox.endpoints() == []


async def test_what_somebody_else_holds_is_left_until_its_lease_is_over(
    still: Still, outbox: Outbox
) -> None:
    async with receiver(saying()) as there:
        await end(still, there.url)
        (taken,) = await still.engine.effects.claim(Channel.WEBHOOK, b"x" * 16, [], (10, 10, 60.0))
        await outbox.turn()
        assert there.seen == []
        await outbox.later()  # that one died
        await outbox.turn()
    assert [seen.headers["webhook-id"] for seen in there.seen] == [taken.dedupe]
    assert await still.engine.effects.finish(b"x" * 16, [(taken.id, "delivered", None)]) == set()


async def test_deaths_of_relays_take_nothing_up_the_schedule(still: Still, outbox: Outbox) -> None:
    async with receiver(saying(status=503)) as there:
        await end(still, there.url)
        for number in range(3):
            (taken,) = await still.engine.effects.claim(
                Channel.WEBHOOK, bytes([number]) * 16, [], (10, 10, 60.0)
            )
            assert (taken.tries, taken.lapsed) == (1, number > 0)
            await outbox.later()  # that one died
        await outbox.turn()
        ((_, tries, _, _, _, in_s),) = await outbox.waiting()
        assert tries == 1
        assert 4 < in_s < 7, "it has failed once"
        await outbox.later()
        await outbox.turn()
    ((_, tries, *_),) = await outbox.waiting()
    assert tries == 2


async def test_what_a_job_does_not_ask_for_is_not_told(still: Still, outbox: Outbox) -> None:
    async with receiver(saying()) as there:
        jobs = await still.start(2, notify=hook(there.url, on=(On.DEAD,)))
        await still.settle((jobs[0], SUCCESS), (jobs[1], FINAL_FAILURE))
        await outbox.turn()
    (seen,) = there.seen
    assert orjson.loads(seen.body)["type"] == "penstock.job.dead.v1"


async def test_what_is_pruned_is_told_no_more(still: Still, outbox: Outbox) -> None:
    async with receiver(saying()) as there:
        (id_,) = await end(still, there.url)
        await still.db.session.execute("DELETE FROM jobs WHERE job_id = $1", id_)
        await outbox.turn()
        assert there.seen == []
    assert await outbox.over() == [("dropped", "what it tells of is gone")]


async def test_a_drain_lets_a_call_come_to_its_end_and_begins_none(
    still: Still, outbox: Outbox
) -> None:
    let_go = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        await let_go.wait()
        return web.Response()

    async with receiver(wait) as there:
        await end(still, there.url)
        await outbox.relay.step()
        await eventually(lambda: _has(there), "the call has come")
        draining = asyncio.create_task(outbox.relay.drain(5))
        await asyncio.sleep(0)
        await end(still, there.url + "/second")
        await outbox.relay.step()
        let_go.set()
        await draining
        assert len(there.seen) == 1
    assert await outbox.over() == [("delivered", None)]
    assert len(await outbox.waiting()) == 1


async def _has(there: Receiver) -> bool:
    return bool(there.seen)


async def test_gauges_tell_how_much_waits(still: Still, outbox: Outbox) -> None:
    await end(still, "http://127.0.0.1:1/", count=3)
    await still.engine.relays.gauge()
    assert still.metric("effects_waiting", channel="webhook") == 3
    assert still.metric("effects_oldest_age_seconds", channel="webhook") > 0
    await still.db.session.execute("TRUNCATE effects")
    await still.engine.relays.gauge()
    assert still.metric("effects_waiting", channel="webhook") == 0


async def test_while_postgres_is_away_nobody_knows_how_much_waits(
    wired: Still, postgres_wire: Wire
) -> None:
    await end(wired, "http://127.0.0.1:1/")
    await wired.engine.relays.gauge()
    assert wired.metric("effects_waiting", channel="webhook") == 1
    await postgres_wire.cut()
    with pytest.raises(StoreUnavailable):
        await wired.engine.relays.gauge()
    assert math.isnan(wired.metric("effects_oldest_age_seconds", channel="webhook"))
    assert math.isnan(wired.metric("effects_waiting", channel="webhook"))
    await postgres_wire.mend()
    await eventually(lambda: _gauged(wired), "PostgreSQL answers again")
    assert wired.metric("effects_waiting", channel="webhook") == 1


async def _gauged(still: Still) -> bool:
    with suppress(StoreUnavailable):
        return bool(await still.engine.relays.gauge())
    return False
