"""What an operator is told whose settings don't fit the servers: one line, and no traceback."""

import asyncio
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.cli.command import SECRET, Servers, penstock, running, the_last_line, the_one_line

DSN = "PENSTOCK_POSTGRES__DSN"
URL = "PENSTOCK_REDIS__URL"


def test_a_handler_is_found_in_the_directory_that_penstock_is_started_in(
    servers: Servers, directory: Path
) -> None:
    (directory / "invoices.py").write_text(
        "from penstock.handlers import handler\n\n"
        '@handler("render-invoice")\nasync def render() -> None: ...\n'
    )
    assert penstock("migrate", environ=servers.environ).returncode == 0
    environ = {**servers.environ, "PENSTOCK_HANDLERS__MODULES": '["invoices"]'}
    # As the console script does, Python itself puts no directory on the path here.
    environ["PYTHONSAFEPATH"] = "1"
    with running("serve", environ=environ, directory=directory) as server:
        server.says("ready on")
        assert server.ends(signal.SIGTERM) == 0
    told = the_last_line(penstock("serve", environ=environ))
    assert "start penstock there, or set PYTHONPATH" in told


@pytest.mark.parametrize("command", ["migrate", "serve"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("penstock:", "penstock:wrong-"), "doesn't let user 'penstock' in"),
        (("/penstock", "/nowhere"), "has no database 'nowhere'"),
        (("/penstock", "/penstock?sslmode=require"), "don't agree on TLS"),
        (("/penstock", "/penstock?sslmode=maybe"), "can't be read"),
    ],
)
def test_a_database_that_lets_us_not_in_is_told_with_the_setting_and_without_the_password(
    servers: Servers, command: str, change: tuple[str, str], words: str
) -> None:
    dsn = servers.environ[DSN]
    wrong = dsn[:13] + dsn[13:].replace(*change)
    told = the_one_line(penstock(command, environ={**servers.environ, DSN: wrong}), 2)
    assert words in told
    assert f"postgres.dsn ({DSN})" in told
    assert str(urlsplit(dsn).password) not in told
    if "read" not in words:
        assert f"127.0.0.1:{urlsplit(dsn).port}" in told


@pytest.mark.parametrize("command", ["migrate", "serve"])
def test_a_user_without_rights_is_told_so(servers: Servers, command: str) -> None:
    async def make() -> None:
        con = await asyncpg.connect(servers.environ[DSN])
        try:
            await con.execute(f"CREATE USER poor_{command} PASSWORD 'hush'")
        finally:
            await con.close()

    assert penstock("migrate", environ=servers.environ).returncode == 0
    asyncio.run(make())
    place = servers.environ[DSN].rpartition("@")[2]
    environ = {**servers.environ, DSN: f"postgres://poor_{command}:hush@{place}"}
    told = the_one_line(penstock(command, environ=environ), 2)
    assert f"user 'poor_{command}' lacks a right" in told


def test_a_postgres_that_would_lose_jobs_is_refused_with_the_way_out(servers: Servers) -> None:
    async def set_to(value: str) -> None:
        con = await asyncpg.connect(servers.environ[DSN])
        await con.execute(f"ALTER DATABASE penstock SET synchronous_commit = {value}")
        await con.close()

    assert penstock("migrate", environ=servers.environ).returncode == 0
    asyncio.run(set_to("off"))
    try:
        told = the_one_line(penstock("serve", environ=servers.environ), 2)
    finally:
        asyncio.run(set_to("on"))
    assert "synchronous_commit = off: a crash loses jobs" in told
    assert "ALTER DATABASE" in told
    assert """PENSTOCK_POSTGRES__ACCEPTED_RISKS='["synchronous_commit"]'""" in told


def test_a_closed_port_of_postgres_is_named(servers: Servers) -> None:
    environ = {**servers.environ, DSN: "postgres://penstock:hush@127.0.0.1:1/x"}
    told = the_one_line(penstock("migrate", environ=environ), 1)
    assert "127.0.0.1:1" in told
    assert DSN in told
    assert "hush" not in told


@pytest.mark.parametrize(
    ("password", "says"), [("", "it wants a password"), (":wrong@", "invalid username-password")]
)
def test_a_redis_that_refuses_us_is_a_warning_before_we_say_ready(
    servers: Servers, password: str, says: str
) -> None:
    assert penstock("migrate", environ=servers.environ).returncode == 0
    place = servers.environ[URL].rpartition("@")[2]
    environ = {**servers.environ, URL: f"redis://{password}{place}"}
    with running("serve", environ=environ, directory=servers.directory) as server:
        told = server.says(f"Redis at {place.partition('/')[0]} refuses us: .*{says}.*").string
        assert f"redis.url ({URL}); jobs run without it" in told
        server.says("ready on")
        assert server.ends(signal.SIGTERM) == 0
        assert "wrong" not in "".join(server.said)


def test_a_redis_out_of_reach_is_a_warning(servers: Servers) -> None:
    assert penstock("migrate", environ=servers.environ).returncode == 0
    environ = {**servers.environ, URL: "redis://:hush@127.0.0.1:1/0"}
    with running("serve", environ=environ, directory=servers.directory) as server:
        server.says("Redis is out of reach at 127.0.0.1:1; jobs run without it")
        server.says("ready on")
        assert server.ends(signal.SIGTERM) == 0
        assert "hush" not in "".join(server.said)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_that_is_not_ours_is_told_by_its_setting(servers: Servers, host: str) -> None:
    assert penstock("migrate", environ=servers.environ).returncode == 0
    done = penstock("serve", environ={**servers.environ, "PENSTOCK_HTTP__HOST": host})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"http.host is '{host}'" in done.stderr.splitlines()[-1]


def test_a_port_in_use_is_told_whole(servers: Servers) -> None:
    assert penstock("migrate", environ=servers.environ).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = penstock("serve", environ={**servers.environ, "PENSTOCK_HTTP__PORT": str(port)})
    assert the_last_line(done) == (
        f"penstock: port {port} of 127.0.0.1 is in use; "
        "set http.port (PENSTOCK_HTTP__PORT) or stop the other one"
    )


def test_config_show_shows_all_although_settings_are_missing_wrong_or_unknown() -> None:
    environ = {"PENSTOCK_HTTP__PORT": "99999", "PENSTOCK_FOO": "1"}
    done = penstock("config", "show", environ=environ)
    assert done.returncode == 2
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "(missing)" in lines["postgres.dsn"]
    assert "(wrong: " in lines["http.port"]
    assert "dev.dir" in lines
    assert "PENSTOCK_FOO" in done.stderr


def test_a_misspelt_prefix_is_a_warning() -> None:
    done = penstock("token", environ={"PENSTOCK_AUTH__JWT_SECRET": SECRET, "PENSTOK_ENV": "x"})
    assert done.returncode == 0
    assert "PENSTOK_ENV does nothing" in the_warning(done.stderr)


def the_warning(said: str) -> str:
    assert said.count("\n") == 1
    assert "warning" in said
    return said


def test_a_token_without_a_secret_is_told_where_one_was_looked_for(directory: Path) -> None:
    environ = {"PENSTOCK_ENV": "development", "PENSTOCK_DEV__DIR": str(directory)}
    told = the_one_line(penstock("token", environ=environ), 2)
    assert f"no jwt_secret in {directory}: run 'make run' (penstock dev) first" in told


@pytest.mark.parametrize(
    "words",
    [
        ("--sub", ""),
        ("--sub", "a\nb"),
        ("--queue", ""),
        ("--queue", "mail-["),
        ("--queue", "mail *"),
        ("--queue", "Mail"),
        ("--queue", "a" * 101),
    ],
)
def test_a_token_of_nonsense_is_not_made(words: tuple[str, str]) -> None:
    done = penstock("token", *words, environ={"PENSTOCK_AUTH__JWT_SECRET": SECRET})
    assert (done.returncode, done.stdout) == (2, "")
    assert words[0] in done.stderr


@pytest.mark.parametrize("glob", ["*", "mail-*", "mail-[ab]", "mail-[!0-9].x_?"])
def test_a_good_glob_is_taken(glob: str) -> None:
    environ = {"PENSTOCK_AUTH__JWT_SECRET": SECRET}
    assert penstock("token", "--queue", glob, environ=environ).returncode == 0
