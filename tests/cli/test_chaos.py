"""PENSTOCK_CHAOS at a start: refused with one line, or told as a warning."""

import asyncio
from pathlib import Path

import pytest

from penstock import chaos
from tests.cli.command import Servers, penstock, the_one_line
from tests.support.replica import ReplicaProcess

VARIABLE = "PENSTOCK_CHAOS"


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_point_that_is_none_is_refused_with_those_that_are(
    servers: Servers, command: str
) -> None:
    environ = {**servers.environ, "PENSTOCK_ENV": "development", VARIABLE: "nowhere:1:exit"}
    environ["PENSTOCK_DEV__DIR"] = str(servers.directory)
    told = penstock(command, environ=environ)
    assert told.returncode == 2
    line = told.stderr.splitlines()[-1]
    assert "PENSTOCK_CHAOS: 'nowhere' is no point" in line
    assert all(name in line for name in chaos.POINTS)


def test_production_is_refused(servers: Servers) -> None:
    environ = {**servers.environ, "PENSTOCK_ENV": "production", VARIABLE: "after_pop:1:exit"}
    told = the_one_line(penstock("serve", environ=environ), 2)
    assert "PENSTOCK_ENV is production" in told


async def test_what_is_armed_is_told_and_dies_as_by_a_kill(
    servers: Servers, tmp_path: Path
) -> None:
    assert penstock("migrate", environ=servers.environ).returncode == 0
    dsn, url = (servers.environ[f"PENSTOCK_{name}"] for name in ("POSTGRES__DSN", "REDIS__URL"))
    replica = ReplicaProcess(dsn, url, tmp_path, {"PENSTOCK_WORKER__BEAT_S": "0.1"})
    replica.environ[VARIABLE] = "between_beats:#3:exit"
    replica.start()
    assert await asyncio.to_thread(replica.wait) == -9
    words = replica.last_words()
    assert "chaos_points_armed" in words
    # Not always the last line: the thread that writes the log may come in before the kill.
    assert "penstock: chaos point between_beats: exit" in words.splitlines()
