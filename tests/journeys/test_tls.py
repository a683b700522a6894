"""TLS to every server: the right certificate passes, a wrong one is one clear line."""

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from penstock.dev.postgres import SETTINGS, EmbeddedPostgres
from penstock.domain.errors import StoreUnavailable, WrongSetting
from penstock.outlets.kafka import Kafka
from penstock.outlets.rabbitmq import RabbitMq
from penstock.queue.redis import greet
from penstock.server import running
from penstock.settings import Kafka as KafkaSettings
from penstock.settings import Postgres, Redis, Settings
from penstock.settings import RabbitMq as RabbitSettings
from penstock.store import arrival, migrate
from tests.support.api import Api
from tests.support.authority import HOST, Authority, terminator
from tests.support.servers import Servers
from tests.support.still import changed
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another CA, whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("theirs"), "others")


def moved(url: str, port: int, scheme: str | None = None) -> SecretStr:
    """The URL of the same server behind another port."""
    parts = urlsplit(url)
    netloc = f"{parts.netloc.rpartition(':')[0]}:{port}"
    return SecretStr(parts._replace(netloc=netloc, scheme=scheme or parts.scheme).geturl())


async def test_jobs_run_over_tls_with_certificates_on_both_sides(
    replica_settings: Settings, dsn: str, redis_url: str, ours: Authority
) -> None:
    tls = ours.serving(ours.issued("server"), wants_ours=True)
    pair = ours.issued("penstock")
    files = {"ca_file": ours.ca_file, "cert_file": pair, "key_file": pair}
    async with (
        terminator(int(urlsplit(dsn).port or 0), tls, postgres=True) as store,
        terminator(int(urlsplit(redis_url).port or 0), tls) as index,
    ):
        settings = changed(
            replica_settings,
            postgres={"dsn": moved(dsn, store), "tls": "verify-full", **files},
            redis={"url": moved(redis_url, index, "rediss"), **files},
        )
        assert await migrate.pending(settings.postgres.address) == []
        async with running(settings) as replica, Api(replica.url) as api:
            assert (await api.ended(await api.submit("echo", 1)))["state"] == "succeeded"
            assert (await api.call("GET", "/readyz"))[1]["degraded"] == []


Told = Callable[[int, str], Awaitable[str]]


async def postgres_told(port: int, ca_file: str) -> str:
    section = Postgres(
        dsn=SecretStr(f"postgres://me:hush@{HOST}:{port}/d"), tls="verify-full", ca_file=ca_file
    )
    with pytest.raises(WrongSetting) as told:  # a start ends with this line, and 2
        await arrival.arrived(section.address, 3, 0, asyncio.Event())
    return str(told.value)


async def redis_told(port: int, ca_file: str) -> str:
    section = Redis(url=SecretStr(f"rediss://:hush@{HOST}:{port}/0"), ca_file=ca_file)
    return str(await greet(section.address, 3))


async def kafka_told(port: int, ca_file: str) -> str:
    section = KafkaSettings(bootstrap_servers=f"{HOST}:{port}", tls=True, ca_file=ca_file)
    return await _told_by(Kafka(section))


async def rabbitmq_told(port: int, ca_file: str) -> str:
    section = RabbitSettings(url=SecretStr(f"amqps://me:hush@{HOST}:{port}/"), ca_file=ca_file)
    return await _told_by(RabbitMq(section))


async def _told_by(outlet: Kafka | RabbitMq) -> str:
    async def why() -> str | None:
        return outlet.why if outlet.is_away() else None

    try:
        return str(await eventually(why, "it is found to be away"))
    finally:
        await outlet.close()


@asynccontextmanager
async def server_of(told: Told, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """Nobody comes as far as to what is behind it."""
    async with terminator(9, tls, postgres=told is postgres_told) as port:
        yield port


@pytest.mark.parametrize("told", [postgres_told, redis_told, kafka_told, rabbitmq_told])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("unknown CA", "signed by no CA that we trust"),
        ("other name", "for another (address|name)"),
        ("expired", "has expired"),
    ],
)
async def test_a_wrong_certificate_is_told_with_its_setting(
    ours: Authority, theirs: Authority, told: Told, fault: str, words: str
) -> None:
    match fault:
        case "unknown CA":
            certificate = theirs.issued("server")
        case "other name":
            certificate = ours.issued("other", "db.example.com")
        case _:
            certificate = ours.issued("old", expired=True)
    async with server_of(told, ours.serving(certificate)) as port:
        line = await told(port, ours.ca_file)
    assert re.search(words, line), line
    assert re.search(r"(postgres|redis|kafka|rabbitmq)\.ca_file", line), line
    assert f"{HOST}:{port}" in line or told is rabbitmq_told
    assert "hush" not in line
    assert "\n" not in line


async def test_a_server_that_wants_our_certificate_lets_nobody_in_without(
    dsn: str, ours: Authority
) -> None:
    tls = ours.serving(ours.issued("server"), wants_ours=True)
    async with terminator(int(urlsplit(dsn).port or 0), tls, postgres=True) as port:
        section = Postgres(dsn=moved(dsn, port), tls="verify-full", ca_file=ours.ca_file)
        with pytest.raises(StoreUnavailable):
            await migrate.pending(section.address)


async def turn_on_tls(dsn: str) -> None:
    con = await asyncpg.connect(dsn)
    for name, value in {"cert_file": "server.pem", "key_file": "server.pem"}.items():
        await con.execute(f"ALTER SYSTEM SET ssl_{name} = '{value}'")
    await con.execute("ALTER SYSTEM SET ssl = on")
    await con.execute("SELECT pg_reload_conf()")

    async def is_on() -> bool:
        other = await asyncpg.connect(dsn)
        try:
            return bool(await other.fetchval("SHOW ssl") == "on")
        finally:
            await other.close()

    await eventually(is_on, "TLS is on")
    await con.close()


def _speaks_tls(program: Path) -> bool:
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return "libssl" in linked.stdout


async def test_a_real_postgres_with_ssl_on(
    servers: Servers, ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    """With its own TLS, where the program has any: the wheels' PostgreSQL is built without."""
    if not _speaks_tls(servers.postgres.program.bin / "postgres"):
        pytest.skip("this PostgreSQL is built without OpenSSL")
    pair = Path(ours.issued("postgres"))
    with EmbeddedPostgres(tmp_path, settings={**SETTINGS, "shared_buffers": "16MB"}) as server:
        own = server._data / "server.pem"
        shutil.copy(pair, own)
        data = server._data.stat()
        os.chown(own, data.st_uid, data.st_gid)
        own.chmod(0o600)
        await turn_on_tls(server.dsn)
        right = Postgres(dsn=SecretStr(server.dsn), tls="verify-full", ca_file=ours.ca_file)
        assert await migrate.migrate(right.address)
        con = await asyncpg.connect(right.address)
        assert await con.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        await con.close()
        wrong = Postgres(dsn=SecretStr(server.dsn), tls="verify-full", ca_file=theirs.ca_file)
        with pytest.raises(StoreUnavailable, match="no CA that we trust"):
            await migrate.pending(wrong.address)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dsn": "postgres://h/d?sslmode=require", "tls": "verify-full"}, "both say how"),
        ({"dsn": "postgres://h/d?sslrootcert=x", "tls": "verify-full"}, "both say how"),
        ({"dsn": "postgres://h/d", "ca_file": "CA"}, "is of no use unless postgres.tls"),
        (
            {"dsn": "postgres://h/d", "tls": "verify-full", "ca_file": "/no/ca"},
            "can.t be read: No such file",
        ),
        ({"dsn": "postgres://h/d", "tls": "verify-full", "ca_file": __file__}, "no certificate"),
        ({"dsn": "postgres://h/d", "tls": "verify-full", "cert_file": "CA"}, "go together"),
        (
            {"dsn": "postgres://h/d", "tls": "verify-full", "cert_file": "CA", "key_file": "CA"},
            "are no certificate and its key",
        ),
        ({"url": "redis://h", "ca_file": "CA"}, "redis.url begins with rediss://"),
        ({"url": "rediss://h?ssl_ca_certs=x", "ca_file": "CA"}, "both say how"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(
    ours: Authority, given: dict[str, Any], words: str
) -> None:
    given = {k: ours.ca_file if v == "CA" else v for k, v in given.items()}
    with pytest.raises(ValueError, match=words):
        (Postgres if "dsn" in given else Redis).model_validate(given)


def test_the_systems_own_authorities_are_trusted_where_no_file_is_given() -> None:
    section = Postgres(dsn=SecretStr("postgres://h/d?application_name=x"), tls="verify-full")
    assert "?application_name=x&sslmode=verify-full&sslrootcert=%2F" in section.address
