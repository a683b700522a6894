"""What the scripts tell: who should wake, what is over; and the survey, the net under it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest

from penstock.queue import keys
from penstock.queue.listener import Listener
from penstock.queue.shelves import Off, Surveyed
from tests.queue.conftest import Stand
from tests.queue.test_scripts import State, due, id_, whole

ALL = [keys.WAKE, keys.CANCEL, keys.SETTINGS, keys.ENDED]
Call = Callable[[Stand], Awaitable[Any]]


@pytest.fixture
async def listener(stand: Stand) -> AsyncIterator[Listener]:
    one = Listener(stand.redis.door)
    await one.connect(ALL)
    await until_heard(stand, ALL, by=1)
    yield one
    await one.close()


async def until_heard(stand: Stand, channels: list[str], by: int) -> None:
    """Returns when so many listen to each: redis-py does not wait for Redis to say so."""
    async with asyncio.timeout(5):
        while True:
            found: Any = await stand.redis.raw.pubsub_numsub(*channels)
            if all(count == by for _, count in found):
                return


@pytest.mark.parametrize(
    ("given", "call", "heard"),
    [
        ({}, lambda s: s.shelves.enqueue([due(s, 1, -1)]), [("ready", None)]),
        ({}, lambda s: s.shelves.enqueue([due(s, 4, 60), due(s, 6, 30)]), [("not ready", 30)]),
        ({}, lambda s: s.shelves.enqueue([due(s, 4, 60), due(s, 1, -1)]), [("ready", 60)]),
        ({"leases": {1: 5}}, lambda s: s.shelves.enqueue([], [Off("q", id_(1))]), []),
        ({"scheduled": {1: -1}}, lambda s: s.shelves.promote("q", 10), [("ready", None)]),
        ({"scheduled": {1: 60}}, lambda s: s.shelves.promote("q", 10), []),
        ({}, lambda s: s.shelves.restore("q", [due(s, 1, -1)]), []),  # the reconciler tells
        ({}, lambda s: s.shelves.tell_ready("q"), [("ready", None)]),
    ],
)
async def test_workers_and_promoters_are_woken_once_for_a_batch(
    stand: Stand, listener: Listener, given: State, call: Call, heard: list[Any]
) -> None:
    await stand.redis.put(whole(stand, given))
    await call(stand)
    await stand.shelves.tell(keys.SETTINGS, b"that was all")
    messages = []
    while (message := await listener.next())[0] != keys.SETTINGS:
        assert message[0] == keys.WAKE
        told = orjson.loads(message[1])
        assert told["queue"] == "q"
        due_ms = told.get("due_ms")
        at_s = None if due_ms is None else round((due_ms - stand.now_ms) / 1000)
        messages.append(("ready" if told["ready"] else "not ready", at_s))
    assert messages == heard


async def test_a_wake_up_says_whose_it_is_so_that_its_sender_may_pass_over_it(
    stand: Stand, listener: Listener
) -> None:
    await stand.shelves.enqueue([due(stand, 1, -1)])
    assert orjson.loads((await listener.next())[1])["origin"] == "me"
    await stand.redis.put(whole(stand, {"scheduled": {3: -1}}))
    await stand.shelves.promote("q", 10)  # its sender has not woken its own worker yet
    assert orjson.loads((await listener.next())[1])["origin"] is None


async def test_those_who_wait_hear_of_all_ends_of_a_batch_at_once(
    stand: Stand, listener: Listener
) -> None:
    off = [Off("q", id_(1), ended=True), Off("q", id_(2)), Off("q", id_(3), ended=True)]
    await stand.shelves.enqueue([], off)
    assert await listener.next() == (keys.ENDED, id_(1) + id_(3))


async def test_a_listener_may_want_a_channel_for_a_while(stand: Stand, listener: Listener) -> None:
    await listener.want(keys.ENDED, wanted=False)
    await until_heard(stand, [keys.ENDED], by=0)
    await stand.shelves.enqueue([], [Off("q", id_(1), ended=True)])
    await stand.shelves.tell(keys.CANCEL, id_(7))
    assert await listener.next() == (keys.CANCEL, id_(7))
    await listener.want(keys.ENDED, wanted=True)
    await until_heard(stand, [keys.ENDED], by=1)
    await stand.shelves.enqueue([], [Off("q", id_(2), ended=True)])
    assert await listener.next() == (keys.ENDED, id_(2))


@pytest.mark.parametrize(
    ("given", "marked", "want"),
    [
        ({}, False, Surveyed("q", False, False, None, False)),
        ({}, True, Surveyed("q", True, False, None, False)),
        ({"ready:a": {1: -1}}, True, Surveyed("q", True, True, None, False)),
        ({"ready:a": {1: -1}}, False, Surveyed("q", False, True, None, False)),
        ({"ready:x": {1: -1}}, True, Surveyed("q", True, False, None, False)),  # not of our kinds
        ({"scheduled": {1: 60, 2: 90}}, True, Surveyed("q", True, False, 60.0, False)),
        ({"scheduled": {1: -5}}, True, Surveyed("q", True, False, -5.0, False)),
        ({"leases": {1: 5, 2: -5}}, True, Surveyed("q", True, False, None, True)),
        ({"leases": {1: 5}}, True, Surveyed("q", True, False, None, False)),
        (
            {"ready:a": {1: -1}, "ready:b": {2: -1}, "scheduled": {4: 9}, "leases": {3: -1}},
            True,
            Surveyed("q", True, True, 9.0, True),
        ),
    ],
)
async def test_a_survey_sees_a_queue_as_its_shelves_are(
    stand: Stand, given: State, marked: bool, want: Surveyed
) -> None:
    await stand.redis.put(whole(stand, given))
    if marked:
        await stand.shelves.mark("q")
    (found,) = await stand.shelves.survey(["q"], ["a", "b"])
    in_s = found.due_in_s
    assert in_s is None or abs(in_s - (want.due_in_s or 0)) < 3
    assert (found.marked, found.ready, found.expired) == (want.marked, want.ready, want.expired)
    assert (in_s is None) == (want.due_in_s is None)


async def test_a_survey_of_many_queues_keeps_them_apart(stand: Stand) -> None:
    names = [f"q{n}" for n in range(450)]
    await stand.shelves.enqueue([due(stand, 1, -1, "q7"), due(stand, 1, -1, "q401")])
    await stand.shelves.mark("q401")
    found = await stand.shelves.survey(names, ["a"])
    assert [one.queue for one in found] == names
    assert [one.queue for one in found if one.ready] == ["q7", "q401"]
    assert [one.queue for one in found if one.marked] == ["q401"]
    assert await stand.shelves.survey([], ["a"]) == []


async def test_a_lock_is_held_by_one_for_a_while(stand: Stand) -> None:
    first, second = stand.shelves, stand.shelves_of("another")
    assert await first.lock("x", 0.05)
    assert not await second.lock("x", 10.0)
    assert await second.lock("y", 10.0)
    assert not await first.lock("y", 10.0)
    while not await second.lock("x", 10.0):
        continue
    assert not await first.lock("x", 10.0)


async def test_who_holds_a_lock_may_keep_it(stand: Stand) -> None:
    first, second = stand.shelves, stand.shelves_of("another")
    assert await first.lock("x", 0.2)
    assert await first.lock("x", 60.0)
    remaining_ms = await stand.redis.raw.pttl(keys.lock("x"))
    assert remaining_ms > 50_000
    assert not await second.lock("x", 0.01)
    assert await stand.redis.raw.pttl(keys.lock("x")) > 50_000


async def test_redis_tells_its_time(stand: Stand) -> None:
    before = await stand.redis.now_ms()
    told_ms = await stand.shelves.time() * 1000
    assert before <= told_ms <= await stand.redis.now_ms() + 1
