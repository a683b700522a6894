"""What a handler does to its process by accident ends its own attempt, and nothing else."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.support.api import Api
from tests.support.replica import ReplicaProcess
from tests.support.waiting import eventually

MODULES = '["penstock.handlers.samples", "tests.support.unruly"]'
FORKING = (
    *("forks-and-exits", "forks-and-goes-on", "forks-in-a-thread", "forks-in-a-task"),
    *("works-in-a-fork", "works-in-a-new-process", "signals-a-fork"),
)


@pytest.fixture
async def process(dsn: str, redis_url: str, workplace: Path) -> AsyncIterator[ReplicaProcess]:
    one = ReplicaProcess(dsn, redis_url, workplace, {"PENSTOCK_HANDLERS__MODULES": MODULES})
    one.start()
    await one.ready()
    yield one
    one.stop()


async def ended(api: Api, kind: str) -> tuple[str, str | None]:
    """State and type of the error of a job of that kind."""
    job = await api.ended(await api.submit(kind, max_attempts=1))
    return job["state"], job["error"] and job["error"]["type"]


async def test_who_exits_in_tasks_and_callbacks_ends_nothing_but_his_attempt(
    process: ReplicaProcess,
) -> None:
    async with Api(process.url) as api:
        waiting = await api.submit("sleep", {"seconds": 2})
        for _ in range(2):
            assert await ended(api, "exits-in-a-task") == ("dead", "SystemExit")
            assert await ended(api, "exits-in-a-future") == ("dead", "KeyboardInterrupt")
            assert await ended(api, "exits-in-a-group") == ("dead", "SystemExit")
            assert await ended(api, "exits-in-a-callback") == ("succeeded", None)
            assert await ended(api, "exits-in-a-timer") == ("succeeded", None)
            assert await ended(api, "exits-from-a-thread") == ("succeeded", None)
            assert await ended(api, "fails-in-a-thread") == ("succeeded", None)
        assert await ended(api, "leaves-a-task-that-clings") == ("succeeded", None)
        job = await api.ended(waiting)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), "nobody else was touched"
        assert (await api.get("/readyz"))["reasons"] == []
    process.terminate()
    assert await asyncio.to_thread(process.wait, 15) == 0, "what was left behind holds nobody"
    lines = process.log_file.read_text().splitlines()
    events = [orjson.loads(line).get("event") for line in lines if line.startswith("{")]
    assert events.count("exit_in_handler_ignored") == 12
    assert events.count("thread_failed") == 2
    ready = f"penstock: ready on {process.url}"
    assert [line for line in lines if not line.startswith("{")] == [ready], "every line is JSON"


async def test_a_replica_whose_loop_was_cancelled_ends_instead_of_idling(
    process: ReplicaProcess,
) -> None:
    async with Api(process.url) as api:
        await api.submit("cancels-a-loop")

    async def look() -> bool:
        return process.ended

    await eventually(look, "the process has ended")
    assert process.wait() == 1
    assert "a loop was cancelled, which only a handler can have done" in process.last_words()


async def test_a_copy_of_a_replica_is_no_second_replica(
    process: ReplicaProcess,
) -> None:
    ran, daemon = [], 0
    async with Api(process.url) as api:
        waiting = await api.submit("sleep", {"seconds": 2})
        for _ in range(3):
            for kind in FORKING:
                job = await api.ended(await api.submit(kind, max_attempts=1))
                ran.append((job["state"], job["attempt"], job["result"]))
        daemon = await _result(api, "leaves-a-daemon")
        try:
            assert {one[:2] for one in ran} == {("succeeded", 1)}
            assert [one[2] for one in ran] == (
                [None, "parent", "parent", None, 7, [7, 7], [-15, 2]] * 3
            )
            assert (await api.ended(waiting))["attempt"] == 1
            for _ in range(20):
                await api.submit("echo", 1)
            assert (await api.get("/readyz"))["reasons"] == []
            process.kill()
            process.start()  # its port is free, though the daemon lives
            await process.ready()
            os.kill(daemon, 0)
        finally:
            os.kill(daemon, signal.SIGKILL)


async def _result(api: Api, kind: str) -> int:
    return int((await api.ended(await api.submit(kind)))["result"])
