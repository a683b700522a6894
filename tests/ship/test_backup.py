"""The page on backup and restore (app/docs/operations.md), followed to the letter."""

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.replica import ReplicaProcess
from tests.support.servers import Servers
from tests.test_tidy import ROOT

SOON_LOST = {"PENSTOCK_WORKER__TTL_S": "3", "PENSTOCK_WORKER__BEAT_S": "0.5"}
PAGE = (ROOT / "app" / "docs" / "operations.md").read_text()


def commands() -> list[str]:
    """Those of the section, in order: take it, then restore it."""
    section = PAGE.partition("## Backup and restore")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@pytest.fixture
async def restored(servers: Servers) -> str:
    """An empty database to restore into."""
    return await servers.empty_database()


@pytest.fixture
def tools(servers: Servers, tmp_path: Path) -> str:
    """A PATH with PostgreSQL's own programs, `penstock`, and something for redis-cli."""
    place = tmp_path / "bin"
    place.mkdir()
    python = shlex.quote(sys.executable)
    flush = "import redis, sys; assert sys.argv[1] == '-u'; redis.Redis.from_url(sys.argv[2])"
    scripts = {
        "penstock": f'exec {python} -m penstock "$@"',
        "redis-cli": f'exec {python} -c "{flush}.execute_command(*sys.argv[3:])" "$@"',
    }
    for name, script in scripts.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    if not (servers.postgres.program.bin / "pg_dump").exists():
        pytest.skip("this PostgreSQL comes without pg_dump")
    return os.pathsep.join([str(place), str(servers.postgres.program.bin), os.environ["PATH"]])


async def test_what_was_dumped_is_there_again_and_goes_on(
    dsn: str, redis_url: str, restored: str, tools: str, workplace: Path
) -> None:
    environ = {
        "PATH": tools,
        "PENSTOCK_POSTGRES__DSN": dsn,
        "PENSTOCK_REDIS__URL": redis_url,
        "RESTORED": restored,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    dump, restore = commands()
    first = ReplicaProcess(dsn, redis_url, workplace, SOON_LOST)
    try:
        first.start()
        await first.ready()
        async with Api(first.url) as api:
            done = await api.submit("echo", "done")
            await api.ended(done)
            waits = await api.submit("echo", "waits", delay_s=8)
            child = await api.submit("echo", "child", depends_on=[waits])
            runs = await api.submit("sleep", {"seconds": 4})
            await api.in_state(runs, "running")
            status, _ = await api.call("POST", "/v1/queues/held/pause")
            assert status == 200
            await shell(dump, environ, workplace)
            late = await api.submit("echo", "after the dump")
            await api.ended(late)
            await api.ended(runs)
    finally:
        first.stop()

    await shell(restore, environ, workplace)
    second = ReplicaProcess(restored, redis_url, workplace, SOON_LOST)
    try:
        second.start()
        await second.ready()
        async with Api(second.url) as api:
            assert (await api.get(f"/v1/jobs/{done}"))["result"] == "done"
            assert (await api.get("/v1/queues/held"))["paused"]
            for id_ in (waits, child):
                assert (await api.ended(id_, within_s=30))["state"] == "succeeded"
            again = await api.ended(runs, within_s=30)
            assert (again["state"], again["attempt"]) == ("succeeded", 2)
            assert (await api.call("GET", f"/v1/jobs/{late}"))[0] == 404
    finally:
        second.stop()


async def shell(script: str, environ: dict[str, str], place: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-eu", "-c", script), env=environ, cwd=place, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0, (script, said.decode())
