"""The embedded servers: real processes, started, killed, paused and left behind."""

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from penstock.dev import EmbeddedError, EmbeddedPostgres, EmbeddedRedis, EmbeddedServer
from penstock.dev.find import find_postgres, find_redis

ONCE = Retry(NoBackoff(), 0)
AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def parent() -> Iterator[Path]:
    yield from _open_directory()


@pytest.fixture
def fresh_parent() -> Iterator[Path]:
    yield from _open_directory()


def _open_directory() -> Iterator[Path]:
    """A directory that `nobody`, as whom PostgreSQL may run, can pass through."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def postgres(parent: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(parent)
    with server:
        yield server


@pytest.fixture
def redis(parent: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(parent)
    with server:
        yield server


async def value(server: EmbeddedPostgres, sql: str) -> object:
    connection = await asyncpg.connect(server.dsn, timeout=5)
    try:
        return await connection.fetchval(sql, timeout=5)
    finally:
        await connection.close()


def call(server: EmbeddedRedis, *words: str) -> object:
    with Redis.from_url(server.url, socket_timeout=5, decode_responses=True) as client:
        return client.execute_command(*words)


async def test_postgres_is_new_enough_durable_and_on_loopback_only(
    postgres: EmbeddedPostgres,
) -> None:
    assert int(str(await value(postgres, "SHOW server_version_num"))) >= 150_000
    for name, expected in (
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("server_encoding", "UTF8"),
        ("max_connections", "200"),
    ):
        assert await value(postgres, f"SHOW {name}") == expected
    assert await value(postgres, "SELECT current_database()") == "penstock"


async def test_a_stranger_gets_in_nowhere(postgres: EmbeddedPostgres, redis: EmbeddedRedis) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.dsn, password="guessed", timeout=5)
    with Redis(port=redis.port, retry=ONCE) as client, pytest.raises(RedisError, match=r"(?i)auth"):
        client.ping()


def test_redis_keeps_all_and_evicts_nothing(redis: EmbeddedRedis) -> None:
    for name, expected in (
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
        ("bind", "127.0.0.1"),
    ):
        assert call(redis, "CONFIG", "GET", name) == {name: expected}


async def test_postgres_has_its_data_and_its_port_again_after_a_stop_and_a_kill(
    postgres: EmbeddedPostgres,
) -> None:
    port = postgres.port
    await value(postgres, "CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS number")
    for end in (postgres.stop, postgres.kill, postgres.kill):
        end()
        assert not postgres.running
        postgres.start()
        assert postgres.port == port
        assert await value(postgres, "SELECT number FROM kept") == 7


def test_redis_has_its_data_and_its_port_again_after_a_stop_and_a_kill(
    redis: EmbeddedRedis,
) -> None:
    port = redis.port
    call(redis, "SET", "kept", "7")
    for end in (redis.stop, redis.kill, redis.kill):
        end()
        assert not redis.running
        redis.start()
        assert redis.port == port
        assert call(redis, "GET", "kept") == "7"


async def test_a_paused_postgres_answers_nobody_until_it_is_resumed(
    postgres: EmbeddedPostgres,
) -> None:
    connection = await asyncpg.connect(postgres.dsn, timeout=5)
    postgres.pause()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(postgres.dsn, timeout=0.3)
    family = [postgres.pid, *(c.pid for c in psutil.Process(postgres.pid).children())]
    states = {psutil.Process(pid).status() for pid in family}
    assert states == {psutil.STATUS_STOPPED}
    postgres.resume()
    assert await connection.fetchval("SELECT 1", timeout=5) == 1
    await connection.close()


def test_a_paused_redis_answers_nobody_until_it_is_resumed(redis: EmbeddedRedis) -> None:
    redis.pause()
    with (
        Redis.from_url(redis.url, socket_timeout=0.3, retry=ONCE) as client,
        pytest.raises(RedisError),
    ):
        client.ping()
    redis.resume()
    assert call(redis, "PING") is True


def test_a_paused_server_can_be_stopped(parent: Path) -> None:
    server = EmbeddedRedis(parent)
    server.start()
    server.pause()
    server.stop()
    assert not server.running


def test_a_second_user_of_a_directory_is_told_who_has_it(
    redis: EmbeddedRedis, parent: Path
) -> None:
    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"):
        EmbeddedRedis(parent).start()
    assert call(redis, "PING") is True


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_what_a_crash_left_running_is_stopped_by_the_next_start(
    parent: Path, kind: type[EmbeddedPostgres] | type[EmbeddedRedis]
) -> None:
    left = kind(parent)
    left.start()
    orphan = left.pid
    left.pause()
    left._unlock_directory()  # as when its owner had died
    with kind(parent) as server:
        assert server.pid != orphan
        assert not left.running


def test_a_pid_file_that_names_another_program_stops_no_start(parent: Path) -> None:
    server = EmbeddedPostgres(parent)
    server.start()
    server.stop()
    server._pid_file.write_text(f"{os.getpid()}\n{server._data}\n")
    with server:
        assert server.running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_the_servers_die_with_their_parent_even_by_kill_9(parent: Path) -> None:
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from penstock.dev import EmbeddedPostgres, EmbeddedRedis
        servers = [kind(Path({str(parent)!r})) for kind in (EmbeddedPostgres, EmbeddedRedis)]
        for server in servers:
            server.start()
        print(*(server.pid for server in servers), flush=True)
        input()
        """
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        assert len(servers) == 2
        owner.kill()
    gone = [server for server in servers if _ends(server)]
    assert gone == servers


def _ends(process: psutil.Process) -> bool:
    for _ in range(500):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.wait(0.02)
        except psutil.TimeoutExpired:
            continue
        except psutil.NoSuchProcess:
            pass
        return True
    return False


def test_a_port_of_another_program_is_named(parent: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"port {port}, .* in use"):
            EmbeddedRedis(parent, port).start()


def test_a_server_that_does_not_start_says_why(parent: Path) -> None:
    server = EmbeddedRedis(parent)
    (server.directory / "appendonlydir").mkdir(parents=True, exist_ok=True)
    manifest = next((server.directory / "appendonlydir").glob("*.manifest"))
    kept = manifest.read_text()
    manifest.write_text("nonsense")
    with pytest.raises(EmbeddedError, match=r"ended with \d+: .*server\.log"):
        server.start()
    manifest.write_text(kept)
    with server:  # the failed start holds nothing
        assert server.running


@pytest.mark.skipif(not AS_ROOT, reason="PostgreSQL minds root only")
async def test_root_without_user_namespaces_runs_postgres_as_nobody(
    monkeypatch: pytest.MonkeyPatch, fresh_parent: Path
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")  # where `unshare` is not
    with EmbeddedPostgres(fresh_parent) as server:
        assert psutil.Process(server.pid).uids().real != 0
        assert await value(server, "SELECT 1") == 1
    monkeypatch.undo()
    with EmbeddedPostgres(fresh_parent) as server:  # a later start with them has the data
        assert await value(server, "SELECT 1") == 1


def test_a_redis_that_is_named_is_the_one(parent: Path) -> None:
    found = find_redis({}, parent)
    named = find_redis({"PENSTOCK_REDIS_BIN": str(found.path)}, parent)
    assert named == found
    with pytest.raises(EmbeddedError, match=r"PENSTOCK_REDIS_BIN is /bin/false, which is not"):
        find_redis({"PENSTOCK_REDIS_BIN": "/bin/false"}, parent)


def test_what_is_on_path_and_too_old_or_broken_is_passed_over(tmp_path: Path) -> None:
    for name, says in (
        ("redis-server", "echo 'Redis server v=6.2.14 sha=0'"),
        ("valkey-server", "exit 127"),
        ("postgres", "echo 'postgres (PostgreSQL) 14.1'"),
        ("initdb", ""),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{says}\n")
        program.chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    assert tmp_path not in find_redis(environ, tmp_path).path.parents
    assert find_postgres(environ, tmp_path).bin != tmp_path


def test_a_program_whose_data_is_there_goes_before_a_newer_one(tmp_path: Path) -> None:
    real = find_redis({}, tmp_path)
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho 'Redis server v=99.0.0 sha=0'\n")
    program.chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    assert find_redis(environ, tmp_path).version == (99, 0)
    (tmp_path / real.data_name).mkdir()
    assert find_redis(environ, tmp_path) == real


def test_stop_and_kill_of_what_does_not_run_do_nothing(parent: Path) -> None:
    server: EmbeddedServer = EmbeddedRedis(parent)
    server.stop()
    server.kill()
    with pytest.raises(EmbeddedError, match="not running"):
        _ = server.pid


def test_a_half_made_cluster_is_made_anew(fresh_parent: Path) -> None:
    server = EmbeddedPostgres(fresh_parent)
    half = server.directory / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("15\n")
    with server:
        assert server.running
        assert not half.exists()
