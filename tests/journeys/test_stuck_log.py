"""A replica whose standard output nobody reads goes on, and ends in time."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.replica import ReplicaProcess

_PIPE_BYTES = 65536


@pytest.fixture
def stuck() -> Iterator[tuple[int, int]]:
    """A pipe that is full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    assert os.write(writing, b"." * _PIPE_BYTES) == _PIPE_BYTES
    os.set_blocking(writing, True)
    yield reading, writing
    os.close(reading)


async def test_jobs_are_done_while_the_log_is_stuck(
    dsn: str, redis_url: str, workplace: Path, stuck: tuple[int, int]
) -> None:
    reading, writing = stuck
    environ = {"PENSTOCK_LOG__WAITING_MAX": "5", "PENSTOCK_LOG__BURST": "0"}
    one = ReplicaProcess(dsn, redis_url, workplace, environ)
    one.start(writing)
    os.close(writing)
    try:
        await one.ready()
        async with Api(one.url) as api:
            for _ in range(12):  # a line for each, more than may wait
                await api.ended(await api.submit("fail", max_attempts=1))
            text = await api.get("/metrics")
        one.terminate()
        assert await asyncio.to_thread(one.wait, 20) == 0
    finally:
        one.stop()
    (lost,) = [x for x in text.splitlines() if 'log_lines_dropped_total{reason="full"}' in x]
    assert float(lost.split()[-1]) > 0
    assert os.read(reading, 2 * _PIPE_BYTES) == b"." * _PIPE_BYTES, "the log was never stuck"
