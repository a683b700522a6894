"""The door to Redis: calls are sent once, a breaker spares us a Redis that is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from redis import exceptions
from redis.asyncio.connection import Connection

from penstock import clock
from penstock.dev.redis import EmbeddedRedis
from penstock.domain.errors import QueueUnavailable
from penstock.queue import redis as door_module
from penstock.queue.listener import Listener
from penstock.queue.redis import RedisDoor
from penstock.queue.shelves import Off, Shelves
from tests.queue import proxy
from tests.queue.conftest import Stand
from tests.queue.proxy import Proxy
from tests.queue.test_scripts import LEASE_S, due, id_, numbers
from tests.support import making, redis_shelves
from tests.support.ports import free_port


class FakeClock:
    """The breaker's clock: it goes when the test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(clock, "monotonic", fake.monotonic)
    return fake


@pytest.fixture
async def between(stand: Stand, redis_url: str) -> AsyncIterator[Proxy]:
    async with proxy.running(redis_url) as one:
        yield one


@pytest.fixture
async def door(between: Proxy) -> AsyncIterator[RedisDoor]:
    one = RedisDoor(between.url, timeout_s=0.2)
    yield one
    await one.close()


@pytest.fixture
def shelves(door: RedisDoor, stand: Stand) -> Shelves:
    return Shelves(door, lambda _queue: 60_000.0, lambda: stand.now_ms, lambda: 0, "me")


@pytest.mark.parametrize("answers", ["hang up", "swallow"])
async def test_a_claim_whose_answer_is_lost_is_not_sent_again(
    stand: Stand, between: Proxy, shelves: Shelves, answers: str
) -> None:
    await stand.shelves.enqueue([due(stand, n, -1) for n in range(1, 40, 2)])
    await shelves.claim("q", ["a"], 1, LEASE_S)  # Redis knows the script now
    between.answers, between.asked = answers, []
    with pytest.raises(QueueUnavailable) as caught:
        await shelves.claim("q", ["a"], 5, LEASE_S)
    assert caught.value.unknown
    assert between.sent(b"EVALSHA") == 1
    found = await stand.redis.contents()
    assert len(found["{q:q}:leases"]) == 1 + 5
    assert len(found["{q:q}:ready:a"]) == 20 - 6


@pytest.mark.parametrize("answers", ["hang up", "swallow"])
async def test_no_command_whose_answer_is_lost_is_sent_again(
    between: Proxy, door: RedisDoor, fake_clock: FakeClock, answers: str
) -> None:
    await door.command("PING")
    between.answers = answers
    with pytest.raises(QueueUnavailable):
        await door.command("INCR", "n")
    with pytest.raises(QueueUnavailable):
        await door.commands([["INCR", "n"], ["INCR", "n"]])
    assert between.sent(b"INCR") <= 3
    between.answers = "pass"
    fake_clock.now += 1.3  # two time-outs have opened the breaker
    assert await door.command("INCR", "n") <= 4


async def test_after_a_lost_answer_no_call_reads_the_answer_of_another(
    between: Proxy, door: RedisDoor
) -> None:
    await door.command("SET", "a", "1")
    await door.command("SET", "b", "2")
    between.answers = "swallow"
    with pytest.raises(QueueUnavailable):
        await door.command("GET", "a")
    between.answers = "pass"
    assert await door.command("GET", "b") == b"2"
    assert await door.commands([["GET", "a"], ["GET", "b"]]) == [b"1", b"2"]


async def test_a_cancelled_call_leaves_no_answer_for_the_next(
    between: Proxy, door: RedisDoor
) -> None:
    await door.command("SET", "a", "1")
    await door.command("SET", "b", "2")
    between.answers = "swallow"
    between.has_asked.clear()
    calling = asyncio.create_task(door.command("GET", "a"))
    await between.has_asked.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    between.answers = "pass"
    assert await door.command("GET", "b") == b"2"
    assert not door.is_open


async def test_the_breaker_opens_after_three_failures_probes_and_closes(
    between: Proxy, door: RedisDoor, fake_clock: FakeClock
) -> None:
    changes: list[bool] = []
    door.on_change = changes.append
    await door.command("PING")
    between.answers = "hang up"
    for _ in range(3):
        assert (door.is_open, changes) == (False, [])
        with pytest.raises(QueueUnavailable):
            await door.command("PING")
    assert (door.is_open, changes) == (True, [True])

    between.asked.clear()
    for _ in range(5):  # refused at once, without a word to Redis
        with pytest.raises(QueueUnavailable, match="a moment ago"):
            await door.command("PING")
    assert between.asked == []

    fake_clock.now += 1.3  # one probe a second, and it fails
    with pytest.raises(QueueUnavailable):
        await door.command("PING")
    with pytest.raises(QueueUnavailable, match="a moment ago"):
        await door.command("PING")
    assert changes == [True]

    between.answers = "pass"
    fake_clock.now += 1.3
    assert await door.command("PING") in (b"PONG", True)
    assert (door.is_open, changes) == (False, [True, False])
    assert await door.command("PING") in (b"PONG", True)


async def test_the_second_time_out_opens_the_breaker(between: Proxy, door: RedisDoor) -> None:
    """Each costs whoever waits for it a whole time-out: a third would be too dear."""
    await door.command("PING")
    between.answers = "swallow"
    for is_open in (False, True):
        with pytest.raises(QueueUnavailable):
            await door.command("PING")
        assert door.is_open == is_open


async def test_a_success_between_failures_keeps_the_breaker_closed(
    between: Proxy, door: RedisDoor
) -> None:
    for answers in ("hang up", "hang up", "pass", "hang up", "hang up"):
        between.answers = answers
        if answers == "pass":
            await door.command("PING")
        else:
            with pytest.raises(QueueUnavailable):
                await door.command("PING")
    assert not door.is_open


async def test_one_refused_connection_opens_the_breaker_at_once() -> None:
    door = RedisDoor(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)
    with pytest.raises(QueueUnavailable):
        await door.command("PING")
    assert door.is_open
    await door.close()


async def test_only_one_of_many_callers_is_the_probe(
    between: Proxy, door: RedisDoor, fake_clock: FakeClock
) -> None:
    between.answers = "hang up"
    for _ in range(3):
        with pytest.raises(QueueUnavailable):
            await door.command("PING")
    fake_clock.now += 1.3
    between.answers = "pass"
    answers = await asyncio.gather(
        *(door.command("TIME") for _ in range(10)), return_exceptions=True
    )
    refused = [one for one in answers if isinstance(one, QueueUnavailable)]
    assert len(refused) == 9


async def test_a_flushed_script_is_loaded_again_and_the_call_still_made_once(
    stand: Stand,
) -> None:
    jobs = [due(stand, n, -1) for n in (1, 3, 5)]
    await stand.shelves.enqueue(jobs)
    for n in (1, 3, 5):
        await stand.redis.raw.script_flush()
        assert numbers((await stand.shelves.claim("q", ["a"], 1, LEASE_S)).ids) == [n]


async def test_a_full_redis_still_gives_what_it_holds(stand: Stand) -> None:
    """It refuses to grow: claims, acks and renewals go on, what can't be put in line is told."""
    await stand.shelves.enqueue([due(stand, n, -1) for n in (1, 2, 3, 5)])
    await stand.redis.raw.config_set("maxmemory", "1")
    try:
        one = await stand.shelves.claim("q", ["a"], 1, LEASE_S)
        merged = await stand.shelves.claim("q", ["a", "b"], 2, LEASE_S)
        assert numbers([*one.ids, *merged.ids]) == [1, 2, 3]
        assert (await stand.redis.contents())["{q:q}:leases"].keys() == {id_(1), id_(2), id_(3)}
        assert await stand.shelves.enqueue([], [Off("q", id_(1))]) == ["q"]
        assert await stand.shelves.expired("q") == []
        with pytest.raises(QueueUnavailable):
            await stand.shelves.enqueue([due(stand, 7, -1)])
        with pytest.raises(QueueUnavailable):
            await stand.shelves.restore("q", [due(stand, 7, -1)])
        with pytest.raises(QueueUnavailable):
            await stand.shelves.mark("q")
    finally:
        await stand.redis.raw.config_set("maxmemory", "0")
    assert (await stand.redis.contents())["{q:q}:leases"].keys() == {id_(2), id_(3)}


async def test_a_full_redis_promotes_what_is_due(stand: Stand) -> None:
    await stand.redis.raw.zadd("penstock:{q:q}:scheduled", {id_(1) + b"5a": 1.0})
    await stand.redis.raw.config_set("maxmemory", "1")
    try:
        assert (await stand.shelves.promote("q", 10)).count == 1
    finally:
        await stand.redis.raw.config_set("maxmemory", "0")
    assert list((await stand.redis.contents())["{q:q}:ready:a"]) == [id_(1)]


@pytest.mark.parametrize("words", [["NOSUCHCOMMAND"], ["ZADD", "k", "no number", "m"]])
async def test_a_wrong_call_is_a_bug_and_says_nothing_against_redis(
    stand: Stand, words: list[str]
) -> None:
    for _ in range(4):
        with pytest.raises(exceptions.ResponseError):
            await stand.redis.door.command(*words)
    assert not stand.redis.door.is_open


async def test_scripts_that_are_flushed_all_the_time_are_run_all_the_same(stand: Stand) -> None:
    is_over = asyncio.Event()

    async def flush() -> None:
        while not is_over.is_set():
            await stand.redis.raw.script_flush()

    flushing = asyncio.create_task(flush())
    try:
        for n in range(1, 200, 2):
            await stand.shelves.enqueue([due(stand, n, -1)])
            assert numbers((await stand.shelves.claim("q", ["a"], 1, LEASE_S)).ids) == [n]
    finally:
        is_over.set()
        await flushing


@pytest.mark.parametrize("shelf", ["leases", "meta", "rebuild", "scheduled", "ready:a"])
async def test_a_key_of_another_sort_is_taken_away_and_costs_a_call_or_two(
    stand: Stand, shelf: str
) -> None:
    shelves, one = stand.shelves, due(stand, 1, -1)
    await stand.redis.raw.lpush(f"penstock:{{q:q}}:{shelf}", "a list")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: shelves.mark("q"),
        lambda: shelves.begin_rebuild("q", "one"),
        lambda: shelves.goes_on("q", "one"),
        lambda: shelves.forget([one]),
        lambda: shelves.survey(["q"], ["a"]),
        lambda: shelves.expired("q"),
        lambda: shelves.promote("q", 1),
        lambda: shelves.claim("q", ["a"], 1, LEASE_S),
    ]
    for call in calls:
        with suppress(QueueUnavailable):
            await call()
    await shelves.enqueue([], [Off("q", one.id)])
    assert await shelves.restore("q", [one]) == 1
    assert await shelves.mark("q")
    claimed = await shelves.claim("q", ["a"], 1, LEASE_S)
    assert (numbers(claimed.ids), claimed.marked) == ([1], True)


async def test_a_lock_of_another_sort_is_taken_away(stand: Stand) -> None:
    await stand.redis.raw.lpush("penstock:lock:one", "a list")
    with pytest.raises(QueueUnavailable):
        await stand.shelves.lock("one", 5)
    assert await stand.shelves.lock("one", 5)


async def test_a_foreign_key_of_another_sort_is_left_alone(stand: Stand) -> None:
    await stand.redis.raw.set("foreign", "a string")
    with pytest.raises(QueueUnavailable):
        await stand.redis.door.command("ZCARD", "foreign")
    assert await stand.redis.raw.get("foreign") == b"a string"


async def test_what_is_no_id_on_a_shelf_harms_nobody(stand: Stand) -> None:
    strange = {b"": 0, b"short": 1, b"x" * 1000: 2, id_(1) + b"xa": -1, id_(3) + b"5": 3}
    for shelf in ("leases", "scheduled", "ready:a", "ready:b"):
        await stand.redis.raw.zadd(f"penstock:{{q:q}}:{shelf}", strange)
    await stand.redis.raw.zadd("penstock:{q:q}:scheduled", {id_(5) + b"5a": 1.0})
    await stand.shelves.enqueue([due(stand, 7, -1)])
    assert await stand.shelves.expired("q") == []
    await stand.shelves.promote("q", 10)
    found = []
    for _ in range(4):
        found += (await stand.shelves.claim("q", ["a", "b"], 10, LEASE_S)).ids
    assert sorted(numbers(found)) == [5, 7]
    assert (await stand.redis.contents()).keys() == {"{q:q}:leases"}


@pytest.fixture
async def spare(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis that a test may spoil."""
    with EmbeddedRedis(tmp_path) as one:
        yield one


@pytest.mark.parametrize(
    "words",
    [
        ("REPLICAOF", "127.0.0.1", "1"),  # a primary that was just demoted
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "maxmemory", "1"),
    ],
    ids=["read-only", "without replicas", "full"],
)
async def test_a_redis_that_can_not_serve_us_is_away_for_now_and_no_bug(
    spare: EmbeddedRedis, words: tuple[str, ...]
) -> None:
    async with redis_shelves.opened(spare.url) as redis:
        await redis.door.command(*words)
        for _ in range(3):
            with pytest.raises(QueueUnavailable):
                await redis.shelves.enqueue([making.due()])
        assert redis.door.is_open


def test_a_connection_that_is_reset_just_before_a_call_is_written_is_a_failure_of_redis(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Connection._send_packed_command

    async def reset_and_write(connection: Connection, command: list[bytes]) -> None:
        assert connection._writer is not None
        connection._writer.transport.abort()
        await asyncio.sleep(0)
        await write(connection, command)

    async def work() -> None:
        door = RedisDoor(redis_url, timeout_s=1)
        await door.command("PING")
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "_send_packed_command", reset_and_write)
            with pytest.raises(QueueUnavailable):
                await door.command("PING")
        assert await door.command("PING")
        await door.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


async def test_a_listener_tells_when_its_line_breaks_and_connects_anew(stand: Stand) -> None:
    listener = Listener(stand.redis.door)
    for _ in range(2):
        await listener.connect(["c"])
        listening = asyncio.create_task(listener.next())
        while not listening.done():  # the first words may be said before it has subscribed
            await stand.shelves.tell("c", b"hello")
        assert await listening == ("c", b"hello")
        await stand.redis.raw.client_kill_filter(_type="pubsub")
        with pytest.raises(QueueUnavailable):
            await hear_all(listener)
    await listener.close()


async def hear_all(listener: Listener) -> None:
    while True:
        await listener.next()


async def test_a_listener_of_a_redis_that_is_away_says_so() -> None:
    door = RedisDoor(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)
    listener = Listener(door)
    with pytest.raises(QueueUnavailable):
        await listener.connect(["c"])
    await listener.close()
    await door.close()


def test_every_script_is_known_by_the_name_of_its_file() -> None:
    assert set(door_module.load()) == {
        *("claim", "clear", "enqueue", "expired", "mark", "promote", "rate", "renew", "restore"),
    }


async def test_a_redis_that_refuses_scripts_alone_is_away_until_it_runs_one(
    stand: Stand, redis_url: str
) -> None:
    """Rights taken away in part: a command that goes through tells nothing of scripts."""
    heard: list[bool] = []
    rights = ("ACL", "SETUSER", "default")
    door = RedisDoor(redis_url, timeout_s=1)
    door.on_change = heard.append
    refused = Shelves(door, lambda _: 0.0, lambda: 0, lambda: 0, "me")
    await stand.redis.door.command(*rights, "-@scripting")
    try:
        for _ in range(3):
            with pytest.raises(QueueUnavailable):
                await refused.renew("q", [id_(1)], LEASE_S)
        door._probe_at = 0.0
        assert await door.command("PING")
        assert heard == [True], "nothing is well yet"
        await stand.redis.door.command(*rights, "+@scripting")
        await refused.renew("q", [id_(1)], LEASE_S)
        assert heard == [True, False]
    finally:
        await stand.redis.door.command(*rights, "+@scripting")
        await door.close()
