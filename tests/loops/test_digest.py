"""Rules that wait: quiet hours, and groups that are told of in one message."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web

from penstock.domain import ids
from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.delivery import DeliveryView
from penstock.domain.effect import Channel, Effect, Message, On, WaitsFor
from penstock.domain.grouping import By
from penstock.loops.nights import LOOKS_S
from penstock.settings import Settings
from penstock.settings.notifications import NotificationRule
from penstock.settings.quiet import Group, QuietHours
from penstock.store.deliveries import DeliveryFilter
from tests.egress.receiver import Receiver, receiver
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.relaying import Outbox
from tests.support.still import Still, changed, standing

JOBS_DEAD = "penstock.jobs.dead.v1"
EVERY_S = 300.0


@dataclass
class House:
    """An engine with rules, and who is told by them; `status` is what the receiver answers."""

    still: Still
    outbox: Outbox
    there: Receiver
    answers: list[int]

    async def die(self, count: int = 1, ending: Ending = FINAL_FAILURE, **fields: Any) -> list[str]:
        """Jobs end; their ids."""
        jobs = await self.still.start(count, **fields)
        await self.still.settle(*((job, ending) for job in jobs))
        return [ids.text(job.id) for job in jobs]

    async def turn(self) -> list[dict[str, Any]]:
        """What has come since it was asked last, with the id that its receiver sees."""
        await self.outbox.turn()
        found = [
            {**orjson.loads(seen.body), "sent_as": seen.headers["webhook-id"]}
            for seen in self.there.seen
        ]
        self.there.seen.clear()
        return found

    async def later(self) -> list[dict[str, Any]]:
        """The same when every wait is over."""
        await self.still.db.session.execute(
            "UPDATE rule_groups SET rests_until = clock_timestamp()"
        )
        await self.outbox.later()
        return await self.turn()

    async def views(self) -> list[DeliveryView]:
        """Oldest first."""
        page = await self.still.engine.deliveries.page(DeliveryFilter(), 200)
        return page.items[::-1]

    async def claim(self) -> Effect:
        """The one that is due."""
        await self.outbox.later()
        claimed = self.still.engine.effects.claim
        (effect,) = await claimed(Channel.WEBHOOK, b"x" * 16, [], (9, 9, 60.0))
        return effect


@dataclass(frozen=True)
class Street:
    settings: Settings
    dsn: str
    redis_url: str
    there: Receiver
    answers: list[int]

    @asynccontextmanager
    async def house(self, **fields: Any) -> AsyncIterator[House]:
        """With one rule, which tells of deaths."""
        rule = NotificationRule.model_validate(
            {"name": "r", "on": [On.DEAD], "webhook": self.there.url, **fields}
        )
        settings = changed(self.settings, notifications={"rules": (rule,)})
        async with standing(settings, self.dsn, self.redis_url) as still:
            yield House(still, Outbox(still), self.there, self.answers)


@pytest.fixture
async def street(still_settings: Settings, dsn: str, redis_url: str) -> AsyncIterator[Street]:
    answers: list[int] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=answers.pop(0) if answers else 200)

    async with receiver(answer) as there:
        yield Street(still_settings, dsn, redis_url, there, answers)


def group(*by: By, **fields: Any) -> Group:
    return Group(by=by, **{"wait_s": 30, "every_s": EVERY_S, **fields})


def around(now: datetime, end: int = 1) -> list[QuietHours]:
    """Quiet from an hour ago until in an hour, or in `end`."""
    hours = [(now + timedelta(hours=n)).strftime("%H:%M") for n in (-1, end)]
    return [QuietHours.model_validate({"from": hours[0], "until": hours[1]})]


def due_in_s(view: DeliveryView) -> float:
    assert view.due_at is not None
    return (view.due_at - datetime.now(UTC)).total_seconds()


def counts(events: Sequence[dict[str, Any]]) -> list[int]:
    return sorted(event["data"]["count"] for event in events)


async def test_what_dies_while_the_first_waits_is_told_of_with_it(street: Street) -> None:
    async with street.house(group=group(By.KIND)) as house:
        first = await house.die(2)
        assert await house.turn() == []
        second = await house.die(1)
        assert await house.turn() == []
        (event,) = await house.later()
        views = await house.views()
    assert (event["type"], event["id"]) == (JOBS_DEAD, event["sent_as"])
    assert "subject" not in event
    data = event["data"]
    assert (data["rule"], data["state"], data["group"]) == ("r", "dead", {"kind": "echo"})
    assert data["count"] == 3
    assert [job["id"] for job in data["jobs"]] == first + second
    assert (data["first_at"], data["last_at"]) == (
        data["jobs"][0]["finished_at"],
        data["jobs"][2]["finished_at"],
    )
    assert data["jobs"][0]["error"] == {"type": "oops", "message": "as asked"}
    leader, *members = views
    assert (leader.event, leader.dedupe, leader.part_of) == (JOBS_DEAD, event["id"], None)
    assert [one.part_of for one in members] == [leader.id] * 2
    assert {one.outcome for one in views} == {"delivered"}


async def test_those_that_wait_say_for_what_and_until_when(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        leader, member = await house.views()
        assert house.still.metric("effects_held", channel="webhook", waits_for="group") == 0
        await house.still.engine.relays.gauge()
        assert house.still.metric("effects_held", channel="webhook", waits_for="group") == 2
        assert house.still.metric("effects_oldest_age_seconds", channel="webhook") == 0
    assert [leader.waits_for, member.waits_for] == [WaitsFor.GROUP] * 2
    assert leader.due_at is not None
    assert leader.due_at == member.due_at
    assert timedelta(seconds=29) < leader.due_at - leader.at < timedelta(seconds=40)
    assert (leader.part_of, member.part_of) == (None, leader.id)


async def test_the_next_message_of_a_group_waits_until_it_has_rested(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die()
        await house.turn()
        assert counts(await house.later()) == [1]
        await house.die(2)
        await house.turn()
        _, leader, _ = await house.views()
        assert leader.due_at is not None
        assert leader.due_at - leader.at > timedelta(seconds=EVERY_S - 30)
        assert counts(await house.later()) == [2]


async def test_a_full_message_leaves_the_rest_to_the_next(street: Street) -> None:
    async with street.house(group=group(jobs_max=2)) as house:
        await house.die(5)
        assert await house.turn() == []
        assert counts(await house.later()) == [2]
        assert await house.turn() == [], "not before it has rested"
        assert counts(await house.later()) == [2]
        assert counts(await house.later()) == [1]
        assert await house.later() == []


async def test_what_is_unlike_is_told_of_apart(street: Street) -> None:
    async with street.house(on=["dead", "succeeded"], group=group(By.QUEUE)) as house:
        await house.die(2)
        await house.die(1, queue="other")
        await house.die(1, SUCCESS)
        await house.turn()
        told = await house.later()
    assert counts(told) == [1, 1, 2]
    assert sorted(event["type"] for event in told) == [
        *(JOBS_DEAD, JOBS_DEAD, "penstock.jobs.succeeded.v1")
    ]


async def test_a_crowd_joins_by_few_claims(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die(100)
        await house.turn()
        waiting = await house.views()
        assert {one.waits_for for one in waiting} == {WaitsFor.GROUP}
        ((event),) = await house.later()
    assert event["data"]["count"] == 100
    assert len(event["data"]["jobs"]) == 20


async def test_a_message_that_failed_is_the_same_when_it_comes_again(street: Street) -> None:
    street.answers.append(503)
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        (first,) = await house.later()
        await house.die(3)
        (second,) = await house.later()  # till then its endpoint rests, and the others wait with it
        (third,) = await house.later()
    assert second == first
    assert (second["data"]["count"], third["data"]["count"]) == (2, 3)
    assert second["id"] != third["id"]


async def test_who_is_of_a_message_is_settled_before_it_is_sent(street: Street) -> None:
    """As after a crash between the two: what died meanwhile is of the next message."""
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        lost = await house.still.engine.relays.digests.of(await house.claim())
        assert isinstance(lost, Message)
        await house.die(1)
        await house.turn()
        told = sorted(await house.later(), key=lambda one: str(one["data"]["last_at"]))
    assert orjson.loads(lost.data) == told[0]["data"]
    assert lost.effect.dedupe == told[0]["id"]
    assert counts(told) == [1, 2]


async def test_a_leader_whose_relay_died_is_put_off_by_no_more_than_its_first_failure(
    street: Street,
) -> None:
    street.answers.append(503)
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        await house.claim()  # by one that dies
        await house.claim()
        (first,) = await house.later()
        leader, _ = await house.views()
        assert leader.tries == 1
        assert due_in_s(leader) < 7
        assert await house.later() == [first]


async def test_a_leader_that_met_a_relay_without_its_rule_is_looked_at_each_minute(
    street: Street,
) -> None:
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        await house.claim()  # by one that dies
    async with street.house(name="another") as house:
        for _ in range(3):
            assert await house.later() == []
            leader, _ = await house.views()
            assert 55 < due_in_s(leader) <= 61
    async with street.house(group=group()) as house:
        assert counts(await house.later()) == [2]


async def test_of_two_that_claim_a_leader_one_settles_its_message(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        late = await house.claim()
        digests = house.still.engine.relays.digests
        assert isinstance(await digests.of(await house.claim()), Message)
        assert not isinstance(await digests.of(late), Message)
        assert counts(await house.later()) == [2], "it was not put away for ever"


async def test_a_message_is_sent_again_whole_and_a_member_by_itself(street: Street) -> None:
    async with street.house(group=group(), quiet=[], throttle_s=60) as house:
        await house.die(1)
        await house.die(1, queue="other")
        await house.turn()
        (event,) = await house.later()
        leader, member = await house.views()
        assert await house.still.engine.deliveries.send_again(leader.id)
        assert await house.turn() == [event]
        assert await house.still.engine.deliveries.send_again(member.id)
        (single,) = await house.turn()
        assert await house.still.engine.deliveries.send_again(leader.id)
        assert await house.turn() == [event], "though a member was sent by itself"
    assert (single["type"], single["data"]["queue"]) == ("penstock.job.dead.v1", "other")


async def test_one_that_is_asked_for_leaves_its_group(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        _, member = await house.views()
        assert await house.still.engine.deliveries.send_again(member.id)
        (single,) = await house.turn()
        assert member.job is not None
        assert single["subject"] == ids.text(member.job)
        assert counts(await house.later()) == [1]


async def test_a_leader_that_is_asked_for_tells_of_its_group_at_once(street: Street) -> None:
    async with street.house(group=group(), quiet=around(datetime.now(UTC))) as house:
        await house.die(2)
        await house.turn()
        await house.still.db.session.execute(
            "UPDATE effects SET waits_for = NULL, due_at = clock_timestamp()"
        )
    async with street.house(group=group()) as house:
        await house.turn()
        leader, _ = await house.views()
    async with street.house(group=group(), quiet=around(datetime.now(UTC))) as house:
        assert await house.still.engine.deliveries.send_again(leader.id)
        assert counts(await house.turn()) == [2]


async def test_what_is_quiet_waits_and_says_so(street: Street) -> None:
    async with street.house(quiet=around(datetime.now(UTC))) as house:
        (id_,) = await house.die()
        assert await house.turn() == []
        (view,) = await house.views()
        assert (view.waits_for, view.tries, view.error) == (WaitsFor.QUIET, 0, None)
        assert view.due_at is not None
        assert timedelta(minutes=58) < view.due_at - view.at <= timedelta(minutes=61)
        assert house.still.metric("effects_total", channel="webhook", fate="held") == 1
        assert await house.later() == [], "its time is asked about again"
        assert (await house.views())[0].tries == 0
    async with street.house() as house:
        (event,) = await house.later()
    assert event["subject"] == id_


async def test_a_resend_is_not_held(street: Street) -> None:
    async with street.house(quiet=around(datetime.now(UTC))) as house:
        await house.die()
        await house.turn()
        (view,) = await house.views()
        assert await house.still.engine.deliveries.send_again(view.id)
        assert len(await house.turn()) == 1
        assert await house.still.engine.deliveries.send_again(view.id)
        assert len(await house.turn()) == 1


async def test_a_night_of_a_group_comes_as_one(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
    async with street.house(group=group(), quiet=around(datetime.now(UTC))) as house:
        assert await house.later() == [], "what gathered before is held as well"
        await house.die(3)
        assert await house.turn() == []
        leader, _, *night = await house.views()
        assert {one.waits_for for one in night} == {WaitsFor.QUIET}
        assert leader.due_at is not None
        assert night[0].due_at is not None
        assert leader.due_at - night[0].due_at == timedelta(seconds=30)
    async with street.house(group=group()) as house:
        await house.still.db.session.execute(
            "UPDATE effects SET due_at = clock_timestamp() WHERE group_id IS NULL"
        )
        await house.turn()
        assert counts(await house.later()) == [5]


async def test_a_night_that_is_shortened_ends_as_the_settings_say(street: Street) -> None:
    now = datetime.now(UTC)
    longer, quiet = around(now, 3), around(now)
    async with street.house(group=group(), throttle_s=0) as house:
        await house.die()
        await house.turn()
    async with street.house(group=group(), quiet=longer) as house:
        await house.later()  # what gathered before is held as well
        await house.die(2)
        await house.turn()
        assert [round(due_in_s(one) / 3600) for one in await house.views()] == [3, 3, 3]
        await house.still.engine.relays.nights.step()
        assert [round(due_in_s(one) / 3600) for one in await house.views()] == [3, 3, 3]
    async with street.house(group=group(), quiet=quiet) as house:
        await house.still.engine.relays.nights.step()
        leader, *night = await house.views()
        assert [round(due_in_s(one) / 3600) for one in night] == [1, 1]
        assert night[0].due_at is not None
        assert leader.due_at == night[0].due_at + timedelta(seconds=30)
        assert await house.turn() == []
    async with street.house() as house:
        await house.still.engine.relays.nights.step()
        told = await house.turn()
    assert sorted(event["type"].split(".")[1] for event in told) == ["job", "job", "jobs"]


async def test_a_night_is_looked_at_only_while_replicas_may_differ(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with street.house(quiet=around(datetime.now(UTC))) as house:
        await house.die()
        await house.turn()
        relays = house.still.engine.relays
        rule = relays.sieve.rule("r")
        assert rule is not None
        relays.sieve.use([replace(rule, quiet=())])
        monkeypatch.setattr(relays.sieve, "used_since", relays.sieve.used_since - LOOKS_S - 1)
        await relays.nights.step()
        assert await house.turn() == []
        relays.sieve.use([replace(rule, quiet=())])
        await relays.nights.step()
        assert len(await house.turn()) == 1


async def test_a_retry_that_falls_into_quiet_hours_waits(street: Street) -> None:
    street.answers.append(503)
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
        (first,) = await house.later()
    async with street.house(group=group(), quiet=around(datetime.now(UTC))) as house:
        assert await house.later() == []
        leader, _ = await house.views()
        assert (leader.waits_for, leader.tries) == (WaitsFor.QUIET, 1)
    async with street.house(group=group()) as house:
        assert await house.later() == [first]


async def test_a_first_failure_that_was_held_is_told_though_it_is_over(street: Street) -> None:
    on = [On.FIRST_FAILURE, On.RECOVERY]
    async with street.house(on=on, quiet=around(datetime.now(UTC))) as house:
        await house.die()
        await house.turn()
        await house.die(1, SUCCESS)
        await house.still.engine.relays.sieve.look_for_recoveries()
        await house.die(2)
        await house.turn()
        assert [one.waits_for for one in await house.views()][:2] == [WaitsFor.QUIET] * 2
    async with street.house(on=on) as house:
        told = [event["type"].split(".")[2] for event in await house.later()]
    assert sorted(told) == ["dead", "dead", "recovered"]


async def test_the_throttle_thins_out_what_joins(street: Street) -> None:
    async with street.house(group=group(), throttle_s=60) as house:
        await house.die(3)
        await house.die(1, queue="other")
        await house.turn()
        (event,) = await house.later()
    assert event["data"]["count"] == 2
    assert sorted(job["queue"] for job in event["data"]["jobs"]) == ["default", "other"]


async def test_a_group_for_an_endpoint_that_was_given_up_is_dropped(street: Street) -> None:
    async with street.house(group=group(jobs_max=3)) as house:
        await house.die(5)
        await house.turn()
        await house.still.engine.effects.failed(
            street.there.url, Channel.WEBHOOK, "410", gone=True, patience_s=1
        )
        await house.later()
        await house.later()
        over = await house.outbox.over()
    assert len(over) == 5
    assert {outcome for outcome, _ in over} == {"dropped"}


async def test_a_group_outlives_its_leader(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die(3)
        await house.turn()
        leader, *_ = await house.views()
        await house.still.db.session.execute("DELETE FROM effects WHERE effect_id = $1", leader.id)
        assert await house.later() == []
        await house.still.engine.relays.digests.tidy()
        assert counts(await house.turn()) == [2]
        await house.later()
        await house.still.engine.relays.digests.tidy()
        assert await house.still.db.session.fetchval("SELECT count(*) FROM rule_groups") == 0


async def test_what_gathered_is_told_of_though_its_rule_groups_no_more(street: Street) -> None:
    async with street.house(group=group()) as house:
        await house.die(2)
        await house.turn()
    async with street.house() as house:
        assert counts(await house.later()) == [2]
        await house.die()
        assert [event["type"] for event in await house.turn()] == ["penstock.job.dead.v1"]


async def test_an_error_is_cut_and_a_job_that_is_gone_is_counted(street: Street) -> None:
    long = Ending(Outcome.FAILED, failure=Failure("oops", "x" * 5000), retryable=False)
    async with street.house(group=group()) as house:
        first, _ = await house.die(2, long)
        await house.turn()
        await house.still.db.session.execute("DELETE FROM jobs WHERE job_id = $1", ids.parse(first))
        (event,) = await house.later()
    assert event["data"]["count"] == 2
    (job,) = event["data"]["jobs"]
    assert len(job["error"]["message"]) == 500
