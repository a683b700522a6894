"""In a Redis cluster every script touches one slot: a queue's keys share their hash tag."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.asyncio.cluster import RedisCluster

from penstock.dev.find import find_redis
from penstock.domain.rate import Counts, RateRule
from penstock.queue import keys
from penstock.queue.rates import Rates
from penstock.queue.redis import Arg, RedisDoor, load
from penstock.queue.shelves import Off, Shelves
from penstock.settings import environment
from tests.queue.conftest import Stand
from tests.queue.test_scripts import LEASE_S, State, due, id_, numbers, state_now, whole
from tests.support import redis_shelves
from tests.support.ports import free_port
from tests.support.waiting import eventually

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def cluster_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A cluster of one node that owns all slots."""
    directory, port = tmp_path_factory.mktemp("cluster"), free_port()
    program = find_redis(environment(), Path(directory)).path
    options = ["--port", str(port), "--bind", HOST, "--dir", str(directory), "--save", ""]
    options += ["--cluster-enabled", "yes", "--cluster-announce-ip", HOST]
    with (directory / "server.log").open("wb") as log:
        node = subprocess.Popen([str(program), *options], stdout=log, stderr=log)
    try:
        asyncio.run(own_all_slots(port))
        yield port
    finally:
        node.kill()
        node.wait(10)


async def own_all_slots(port: int) -> None:
    async def is_whole() -> bool:
        try:
            with redis.Redis(HOST, port) as client:
                info: Any = client.execute_command("CLUSTER INFO")
                if info["cluster_slots_assigned"] == "0":
                    client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
                return bool(info["cluster_state"] == "ok")
        except redis.ConnectionError:
            return False

    await eventually(is_whole, "the cluster owns its slots")


class ClusterDoor:
    """The door as redis-py's cluster client would be: it refuses keys of more than one slot."""

    def __init__(self, client: "RedisCluster") -> None:
        self._client = client
        self._scripts = load()
        self.called: set[str] = set()

    async def script(self, name: str, names: Sequence[str], args: Sequence[Arg]) -> Any:
        self.called.add(name)
        return await self._client.eval(self._scripts[name], len(names), *names, *args)

    async def command(self, *words: Arg) -> Any:
        return await self._client.execute_command(*words)

    async def commands(self, calls: Sequence[Sequence[Arg]]) -> list[Any]:
        return [await self.command(*words) for words in calls]


@pytest.fixture
async def plain(cluster_port: int) -> AsyncIterator[Stand]:
    """Our door, on the cluster's node."""
    async with redis_shelves.opened(f"redis://{HOST}:{cluster_port}/0") as one:
        await one.flush()
        yield Stand(one, await one.now_ms())


@pytest.fixture
async def cluster_door(cluster_port: int) -> AsyncIterator[ClusterDoor]:
    async with RedisCluster(host=HOST, port=cluster_port) as client:
        yield ClusterDoor(client)


async def walk(stand: Stand, shelves: Shelves) -> None:
    """Every script once, with several kinds and queues, and the state after each."""

    async def holds(want: State) -> None:
        contents = whole(stand, want)
        assert await state_now(stand, contents) == contents

    for queue in ("q", "other"):
        jobs = [due(stand, 1, -3, queue), due(stand, 2, -2, queue), due(stand, 4, 60, queue)]
        assert await shelves.enqueue(jobs, [Off(queue, id_(9))]) == [queue]
    await stand.redis.raw.delete(*keys.ready("other", "ab"), keys.scheduled("other"))
    claimed = await shelves.claim("q", ["a", "b"], 9, LEASE_S)
    assert numbers(claimed.ids) == [1, 2]
    await shelves.renew("q", claimed.ids, LEASE_S)
    assert await shelves.expired("q") == []
    assert (
        await shelves.restore("q", [due(stand, 3, -1), due(stand, 6, 30), due(stand, 1, -3)]) == 2
    )
    await holds(
        {"leases": {1: LEASE_S, 2: LEASE_S}, "ready:a": {3: -1}, "scheduled": {4: 60, 6: 30}}
    )
    await stand.redis.put(whole(stand, {"scheduled": {5: -1, 8: -1}}))
    assert (await shelves.promote("q", 10)).count == 2
    await shelves.forget([due(stand, 5, 0)])
    await shelves.enqueue([], [Off("q", id_(1), ended=True), Off("q", id_(2))])
    await shelves.enqueue((), blocked=[due(stand, 7, -5), due(stand, 9, -5), due(stand, 11, -5)])
    assert await shelves.enqueue((), unlocked=[due(stand, 7, -5)]) == ["q"]
    assert await shelves.blocked("q", 1, 5) == [id_(11)]
    await shelves.unblock("q", [id_(11)])
    await holds(
        {
            "blocked": {9: 0},
            "ready:a": {7: -5, 3: -1},
            "ready:b": {8: -1},
            "scheduled": {4: 60, 6: 30},
        }
    )
    await shelves.begin_rebuild("q", "ours")
    assert await shelves.goes_on("q", "ours")
    assert not await shelves.mark("q", "another's")
    assert await shelves.mark("q", "ours")
    assert not await shelves.goes_on("q", "ours"), "it is over"
    await stand.redis.raw.delete(keys.meta("q"))


async def test_every_script_stays_in_one_slot_as_redis_sees_it(plain: Stand) -> None:
    await walk(plain, plain.shelves)
    (found,) = await plain.shelves.survey(["q"], ["a", "b"])
    assert found.ready
    assert await plain.shelves.lock("x", 1)


async def test_every_script_stays_in_one_slot_as_a_cluster_client_sees_it(
    plain: Stand, cluster_door: ClusterDoor
) -> None:
    shelves = Shelves(
        cast(RedisDoor, cluster_door), lambda _: 60_000.0, lambda: plain.now_ms, lambda: 0, "me"
    )
    await walk(plain, shelves)
    await Rates(cast(RedisDoor, cluster_door)).take(RateRule(Counts.JOBS, 1, 1, 1), "ada", 1)
    assert cluster_door.called == set(load()) - {"clear"}  # it has one key, and the door calls it


async def test_all_keys_of_a_queue_are_in_its_slot(plain: Stand) -> None:
    """Also those that promote.lua makes of a prefix, which Redis does not check."""
    slots = set()
    for queue in ("q", "other", "a.b-c_d"):
        names = [keys.leases(queue), keys.meta(queue), keys.scheduled(queue)]
        names += [*keys.ready(queue, ["a", "b-2", "c.d"]), keys.ready_prefix(queue) + "any"]
        found = {await plain.redis.door.command("CLUSTER", "KEYSLOT", name) for name in names}
        assert len(found) == 1
        slots |= found
    assert len(slots) == 3


async def test_a_queue_can_not_be_named_into_another_slot(plain: Stand) -> None:
    """Names of queues and kinds have no braces: see domain.job.NAME_PATTERN."""
    command = plain.redis.door.command
    assert await command("CLUSTER", "KEYSLOT", keys.leases("q")) == await command(
        "CLUSTER", "KEYSLOT", "q:q"
    )
