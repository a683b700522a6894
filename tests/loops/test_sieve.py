"""Rules that look back: first failures, recoveries, throttling."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from penstock.domain.attempt import Ending
from penstock.domain.effect import Channel, On
from penstock.settings import Settings
from penstock.settings.notifications import NotificationRule
from tests.egress.receiver import Receiver, receiver, saying
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.relaying import Outbox
from tests.support.still import Still, changed, standing

WEBHOOK = Channel.WEBHOOK


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver(saying()) as one:
        yield one


@pytest.fixture
def rule(there: Receiver) -> NotificationRule:
    """What a test changes before it asks for `told`."""
    on = (On.FIRST_FAILURE, On.RECOVERY)
    return NotificationRule(name="night-watch", on=on, webhook=there.url)


class Told:
    """Jobs end, the relay is turned, and the receiver has got these types of events."""

    def __init__(self, still: Still, there: Receiver) -> None:
        self.still = still
        self.outbox = Outbox(still)
        self._there = there

    async def after(self, *endings: Ending, **fields: Any) -> list[str]:
        for ending in endings:
            (job,) = await self.still.start(**fields)
            await self.still.settle((job, ending))
        await self.turn()
        return self.types()

    async def turn(self) -> None:
        await self.outbox.turn()
        await self.still.engine.relays.sieve.look_for_recoveries()
        await self.outbox.turn()

    def types(self) -> list[str]:
        """What has come since it was asked last."""
        found = [orjson.loads(seen.body)["type"].split(".")[2] for seen in self._there.seen]
        self._there.seen.clear()
        return sorted(found)


async def opened(
    settings: Settings, rules: list[NotificationRule], dsn: str, redis_url: str, there: Receiver
) -> AsyncIterator[Told]:
    with_rules = changed(settings, notifications={"rules": tuple(rules)})
    async with standing(with_rules, dsn, redis_url) as still:
        yield Told(still, there)


@pytest.fixture
async def told(
    still_settings: Settings, dsn: str, redis_url: str, rule: NotificationRule, there: Receiver
) -> AsyncIterator[Told]:
    async for one in opened(still_settings, [rule], dsn, redis_url, there):
        yield one


async def test_the_first_failure_and_the_recovery_are_told(told: Told) -> None:
    assert await told.after(SUCCESS) == []
    assert await told.after(FINAL_FAILURE, FINAL_FAILURE) == ["dead"]
    assert await told.after(FINAL_FAILURE) == []
    assert await told.after(SUCCESS, SUCCESS) == ["recovered"]
    assert await told.after(SUCCESS) == []
    assert await told.after(FINAL_FAILURE) == ["dead"]


async def test_each_queue_and_kind_has_its_own_past(told: Told) -> None:
    assert await told.after(FINAL_FAILURE) == ["dead"]
    assert await told.after(FINAL_FAILURE, queue="other") == ["dead"]
    assert await told.after(FINAL_FAILURE, kind="sleep") == ["dead"]
    assert await told.after(SUCCESS, kind="sleep") == ["recovered"]
    assert await told.after(FINAL_FAILURE) == []


async def test_one_that_is_sent_again_is_still_the_first(told: Told) -> None:
    """As after a crash between what was marked and what was delivered."""
    (job,) = await told.still.start()
    await told.still.settle((job, FINAL_FAILURE))
    relays = told.still.engine.relays
    (claimed,) = await told.still.engine.effects.claim(WEBHOOK, b"x" * 16, [], (1, 1, 60.0))
    view = await told.still.db.reads.job(job.id)
    assert view is not None
    assert await relays.sieve.judge(claimed, view) is None
    await told.outbox.later()
    assert await told.after(FINAL_FAILURE) == ["dead"]


async def test_what_is_kept_back_says_why(told: Told) -> None:
    await told.after(FINAL_FAILURE, FINAL_FAILURE)
    over = await told.outbox.over()
    assert sorted(outcome for outcome, _ in over) == ["delivered", "dropped"]
    assert ("dropped", "not the first failure since a success") in over


@pytest.mark.parametrize("throttle_s", [60.0])
async def test_a_rule_that_throttles_tells_of_one_in_a_while(
    still_settings: Settings,
    dsn: str,
    redis_url: str,
    rule: NotificationRule,
    there: Receiver,
    throttle_s: float,
) -> None:
    slow = rule.model_copy(update={"on": (On.DEAD,), "throttle_s": throttle_s})
    async for told in opened(still_settings, [slow], dsn, redis_url, there):
        assert await told.after(FINAL_FAILURE, FINAL_FAILURE, FINAL_FAILURE) == ["dead"]
        assert await told.after(FINAL_FAILURE, queue="other") == ["dead"]
        await told.still.db.session.execute(
            "UPDATE rule_marks SET told_at = told_at - interval '1 minute'"
        )
        assert await told.after(FINAL_FAILURE) == ["dead"]


async def test_the_throttle_counts_messages_and_not_tries(
    still_settings: Settings, dsn: str, redis_url: str, rule: NotificationRule
) -> None:
    statuses = [503, 200, 200]

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=statuses.pop(0))

    async with receiver(answer) as there:
        slow = rule.model_copy(update={"on": (On.DEAD,), "throttle_s": 60.0, "webhook": there.url})
        async for told in opened(still_settings, [slow], dsn, redis_url, there):
            assert await told.after(FINAL_FAILURE) == ["dead"]
            await told.still.db.session.execute(
                "UPDATE rule_marks SET told_at = told_at - interval '1 minute'"
            )
            told.outbox.relay.rests.clear()
            assert await told.after(FINAL_FAILURE) == ["dead"], "another one, meanwhile"
            await told.outbox.later()
            assert await told.after() == ["dead"], "the first, which was refused"
            assert [outcome for outcome, _ in await told.outbox.over()] == ["delivered"] * 2


async def test_a_rule_of_other_jobs_or_ends_tells_nothing(
    still_settings: Settings, dsn: str, redis_url: str, rule: NotificationRule, there: Receiver
) -> None:
    rules = [
        rule.model_copy(update={"name": "a", "queues": ("bill*",)}),
        rule.model_copy(update={"name": "b", "tags": ("red",), "on": (On.SUCCEEDED,)}),
        rule.model_copy(update={"name": "c", "kinds": ("ech?",), "on": (On.CANCELLED,)}),
        rule.model_copy(update={"name": "d", "on": (On.RECOVERY,)}),
    ]
    async for told in opened(still_settings, rules, dsn, redis_url, there):
        assert await told.after(FINAL_FAILURE, SUCCESS) == ["recovered"]
        assert await told.after(FINAL_FAILURE, queue="billing") == ["dead"]
        assert await told.after(SUCCESS, tags=("red", "blue"), queue="x") == ["succeeded"]
        assert await told.after(SUCCESS, tags=("blue",), queue="x") == []


async def test_an_effect_of_a_rule_that_is_gone_waits_a_while_and_is_dropped(
    told: Told, still_settings: Settings, dsn: str, redis_url: str, there: Receiver
) -> None:
    (job,) = await told.still.start()
    await told.still.settle((job, FINAL_FAILURE))
    async for other in opened(still_settings, [], dsn, redis_url, there):
        for _ in range(7):
            await other.outbox.later()
            await other.turn()
        assert other.types() == []
        assert await other.outbox.over() == [("dropped", "its rule is no longer configured")]
