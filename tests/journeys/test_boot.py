"""A replica that is started while PostgreSQL is away: it waits, and says for what."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from penstock import server
from penstock.settings import Settings
from penstock.store import migrate
from tests.support.api import Api
from tests.support.ports import free_port
from tests.support.replica import ReplicaProcess
from tests.support.servers import Servers
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Our own: PostgreSQL is stopped."""
    both = Servers(tmp_path_factory.mktemp("servers"))
    both.start()
    yield both
    both.stop()


@pytest.fixture
async def away(servers: Servers, dsn: str) -> AsyncIterator[str]:
    """A migrated database whose server is stopped."""
    await asyncio.to_thread(servers.postgres.stop)
    yield dsn
    await asyncio.to_thread(servers.postgres.start)


def replica_of(dsn: str, redis_url: str, directory: Path, wait_s: float) -> ReplicaProcess:
    environ = {"PENSTOCK_POSTGRES__BOOT_WAIT_S": str(wait_s)}
    return ReplicaProcess(dsn, redis_url, directory, environ)


async def says(replica: ReplicaProcess, words: str) -> None:
    async def look() -> bool:
        return words in replica.last_words()

    await eventually(look, f"it says {words!r}", 20)


async def test_it_waits_for_postgres_and_then_serves(
    servers: Servers, away: str, redis_url: str, workplace: Path
) -> None:
    replica = replica_of(away, redis_url, workplace, 60)
    replica.start()
    try:
        await says(replica, "waiting_for_postgres")
        assert "Connection refused" in replica.last_words()
        assert not replica.ended
        assert not replica.is_live(), "the front door is closed yet"
        await asyncio.to_thread(servers.postgres.start)
        await replica.ready()
    finally:
        replica.stop()


async def test_postgres_that_goes_away_again_amid_a_start_is_waited_for_again(
    servers: Servers, replica_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    pending = migrate.pending

    async def look(dsn: str) -> list[str]:
        """The first thing that a start asks; the server leaves before it."""
        if not looks:
            await asyncio.to_thread(servers.postgres.stop)
        looks.append(dsn)
        return await pending(dsn)

    async def has_looked() -> bool:
        return len(looks) > 0

    monkeypatch.setattr(migrate, "pending", look)
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(server.started(replica_settings, asyncio.Event(), stack))
        await eventually(has_looked, "the start has begun", 20)
        await asyncio.to_thread(servers.postgres.start)
        replica = await asyncio.wait_for(starting, 30)
        assert replica is not None
        async with Api(replica.url) as api:
            assert (await api.ended(await api.submit("echo", 1)))["state"] == "succeeded"
    assert len(looks) == 2


async def test_a_signal_calls_the_start_off_at_once(
    away: str, redis_url: str, workplace: Path
) -> None:
    replica = replica_of(away, redis_url, workplace, 60)
    replica.start()
    try:
        await says(replica, "waiting_for_postgres")
        began = time.monotonic()
        replica.terminate()
        assert await asyncio.to_thread(replica.wait) == 0
        assert time.monotonic() - began < 3
        assert "Traceback" not in replica.last_words()
    finally:
        replica.stop()


async def test_after_so_long_it_gives_up_with_one_clear_line(
    away: str, redis_url: str, workplace: Path
) -> None:
    replica = replica_of(away, redis_url, workplace, 1)
    replica.start()
    assert await asyncio.to_thread(replica.wait) == 1
    *_, last = replica.last_words().splitlines()
    assert last.startswith("penstock: PostgreSQL is out of reach: Connection refused")
    assert last.endswith("gave up after 1 s (postgres.boot_wait_s)")
    assert "PENSTOCK_POSTGRES__DSN" in last


async def test_a_server_that_answers_nothing_is_waited_for_too(
    redis_url: str, workplace: Path
) -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(silent, "127.0.0.1", port)
    dsn = f"postgres://penstock@127.0.0.1:{port}/penstock"
    environ = {
        "PENSTOCK_POSTGRES__BOOT_WAIT_S": "60",
        "PENSTOCK_POSTGRES__CONNECT_TIMEOUT_S": "30",
    }
    replica = ReplicaProcess(dsn, redis_url, workplace, environ)
    replica.start()
    try:
        async with asyncio.timeout(20):
            await asked.wait()
        began = time.monotonic()
        replica.terminate()
        assert await asyncio.to_thread(replica.wait) == 0
        assert time.monotonic() - began < 3, "amid a connection that hangs"
    finally:
        replica.stop()
        server.close()


@pytest.mark.parametrize("fault", ["database", "schema"])
async def test_what_waiting_does_not_mend_ends_the_start_at_once(
    servers: Servers, dsn: str, redis_url: str, workplace: Path, fault: str
) -> None:
    wrong = dsn.rpartition("/")[0] + ("/nowhere" if fault == "database" else "/postgres")
    replica = replica_of(wrong, redis_url, workplace, 60)
    began = time.monotonic()
    replica.start()
    assert await asyncio.to_thread(replica.wait) == (2 if fault == "database" else 1)
    assert time.monotonic() - began < 20
    words = replica.last_words()
    assert "waiting_for_postgres" not in words
    assert ("has no database" if fault == "database" else "the schema lacks") in words
