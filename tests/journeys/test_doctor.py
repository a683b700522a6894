"""`penstock doctor` on real servers: what is well, and what was spoiled on purpose."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio as redis
from pydantic import SecretStr

from penstock.dev.postgres import SETTINGS, EmbeddedPostgres
from penstock.dev.redis import EmbeddedRedis
from penstock.doctor import Case, examine
from penstock.domain.checkup import Finding, Level
from penstock.server import Replica
from penstock.settings import Settings
from penstock.store.checkup import session
from penstock.store.grants import grant
from penstock.store.postgres import Limits
from tests.cli.command import penstock
from tests.egress.receiver import receiver, saying
from tests.outlets.mailbox import mailbox
from tests.support.ports import free_port
from tests.support.replica import SECRET
from tests.support.still import changed
from tests.support.tokens import signer

OK, WARNING, ERROR, SKIPPED = Level.OK, Level.WARNING, Level.ERROR, Level.SKIPPED


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL with all that a doctor warns of."""
    bad = {"fsync": "off", "autovacuum": "off", "max_prepared_transactions": "2"}
    bad |= {"max_connections": "20", "shared_buffers": "16MB", "wal_level": "logical"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("spoiled"), settings={**SETTINGS, **bad}) as one:
        yield one


async def levels(case: Case, *only: str) -> dict[str, Level]:
    """The worst of each check."""
    order = [SKIPPED, OK, WARNING, ERROR]
    found: dict[str, Level] = {}
    for one in await examine(case, only or None):
        before = found.get(one.check, SKIPPED)
        found[one.check] = max(before, one.level, key=order.index)
    return found


def one_of(findings: Sequence[Finding], check: str) -> Finding:
    (found,) = [one for one in findings if one.check == check]
    return found


async def test_a_replica_that_is_well(replica: Replica, replica_settings: Settings) -> None:
    found = await levels(Case(replica_settings, replica.url))
    machine = found.pop("machine.files"), found.pop("postgres.disk")
    assert set(machine) <= {OK, SKIPPED, WARNING, ERROR}, "they are as this machine is"
    assert {k for k, level in found.items() if level is SKIPPED} == {
        *("broker", "smtp", "auth.jwks_url")
    }
    assert found.pop("auth.jwt_secret") is WARNING, "it holds the word secret"
    assert set(found.values()) == {OK, SKIPPED}, found
    assert found.keys() >= {
        *("settings", "handlers", "postgres", "postgres.version", "postgres.durability"),
        *("postgres.writable", "postgres.tls", "postgres.connections", "postgres.autovacuum"),
        *("postgres.schema", "postgres.rights", "postgres.transactions", "postgres.prepared"),
        *("postgres.slots", "postgres.bloat", "postgres.wraparound", "postgres.clock"),
        *("work.replicas", "work.backlog", "work.effects", "work.dead_letters", "redis"),
        *("redis.version", "redis.mode", "redis.writable", "redis.eviction", "redis.memory"),
        *("redis.tls", "redis.clock", "server.ready"),
    }


async def test_a_postgres_that_was_spoiled(
    replica_settings: Settings, spoiled: EmbeddedPostgres
) -> None:
    settings = changed(replica_settings, postgres={"dsn": SecretStr(spoiled.dsn)})
    con = await asyncpg.connect(spoiled.dsn)
    try:
        await con.execute("SELECT pg_create_logical_replication_slot('left', 'test_decoding')")
        await con.execute("BEGIN; SELECT txid_current(); PREPARE TRANSACTION 'forgotten'")
        found = await levels(Case(settings), "postgres")
        assert found["postgres.durability"] is ERROR
        assert found["postgres.autovacuum"] is ERROR
        assert found["postgres.connections"] is ERROR
        assert found["postgres.schema"] is ERROR, "nobody has migrated it"
        assert found["postgres.slots"] is WARNING
        assert found["work"] is SKIPPED, "there are no tables"
        prepared = one_of(await examine(Case(settings), ["postgres"]), "postgres.prepared")
        assert "forgotten" in prepared.found
    finally:
        await con.execute("ROLLBACK PREPARED 'forgotten'")
        await con.execute("SELECT pg_drop_replication_slot('left')")
        await con.close()


async def test_rights_that_lack_are_named(replica_settings: Settings, dsn: str) -> None:
    con = await asyncpg.connect(dsn)
    try:
        await con.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
        await grant(dsn, "clerk")
        parts = urlsplit(dsn)
        netloc = f"clerk:clerk@{parts.netloc.rpartition('@')[2]}"
        clerk = SecretStr(parts._replace(netloc=netloc).geturl())
        settings = changed(replica_settings, postgres={"dsn": clerk})
        assert (await levels(Case(settings), "postgres"))["postgres.rights"] is OK
        await con.execute("REVOKE DELETE ON job_due FROM clerk")
        findings = await examine(Case(settings), ["postgres"])
        assert "clerk lacks DELETE on job_due" in one_of(findings, "postgres.rights").found
        assert "pg_read_all_stats" in one_of(findings, "postgres.transactions").found
    finally:
        await con.execute("DROP OWNED BY clerk; DROP ROLE clerk")
        await con.close()


async def test_a_schema_of_a_newer_version_is_told(replica_settings: Settings, dsn: str) -> None:
    con = await asyncpg.connect(dsn)
    await con.execute("INSERT INTO schema_migrations VALUES (9999, '', '', now(), 1, '9.0', 9999)")
    await con.close()
    finding = one_of(await examine(Case(replica_settings), ["postgres"]), "postgres.schema")
    assert finding.level is ERROR
    assert "start the newer version" in finding.found


async def test_work_that_waits_and_replicas_that_are_gone(
    replica_settings: Settings, dsn: str
) -> None:
    con = await asyncpg.connect(dsn)
    await con.execute(
        "INSERT INTO queues (queue) VALUES ('slow'), ('held');"
        "UPDATE queues SET paused = true WHERE queue = 'held';"
        "INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)"
        "  SELECT gen_random_uuid(), q, 'echo', 5, now() - age, 0, 0, 0"
        "  FROM (VALUES ('slow', interval '10 min'), ('held', interval '10 days')) v(q, age);"
        "INSERT INTO workers (worker_id, host, pid, version, queues, kinds, slots, started_at,"
        "                     beat_at, expires_at)"
        "  SELECT gen_random_uuid(), 'h', 1, '0', '{}', '{}', 1, now(), now(),"
        "         now() - interval '1 s'"
    )
    await con.close()
    findings = await examine(Case(replica_settings), ["postgres"])
    backlog = one_of(findings, "work.backlog")
    assert (backlog.level, backlog.found) == (
        WARNING,
        "1 jobs are ready, the oldest for 10 min",
    )
    told = [one.found for one in findings if one.check == "work.replicas"]
    assert told == ["1 have gone silent", "none is alive"]


@pytest.mark.parametrize(
    ("port", "url", "level", "told"),
    [
        (0, None, SKIPPED, "--url"),
        (8080, "localhost:8080", ERROR, "must be as http://"),
        (8080, "ftp://localhost", ERROR, "must be as http://"),
    ],
)
async def test_a_server_without_an_address_is_not_asked(
    replica_settings: Settings, port: int, url: str | None, level: Level, told: str
) -> None:
    settings = changed(replica_settings, http={"port": port})
    finding = one_of(await examine(Case(settings, url), ["server"]), "server")
    assert finding.level is level
    assert told in finding.found


async def test_what_a_rule_holds_is_not_late(replica_settings: Settings, dsn: str) -> None:
    con = await asyncpg.connect(dsn)
    await con.execute(
        "INSERT INTO effects (effect_id, channel, endpoint, event, at, due_at, waits_for, dedupe,"
        "                     tries, state, attempt)"
        "  SELECT gen_random_uuid(), 'webhook', 'http://h/', 'penstock.job.dead.v1',"
        "         now() - interval '2 h', now() + interval '8 h', w, w, 0, 'dead', 1"
        "  FROM unnest(ARRAY['quiet', 'group', 'retry']) w"
    )
    await con.close()
    effects = one_of(await examine(Case(replica_settings), ["postgres"]), "work.effects")
    assert effects.found.startswith("1 ")  # what failed and is tried again
    assert effects.level is WARNING


async def test_a_transaction_that_is_open_is_found(replica_settings: Settings, dsn: str) -> None:
    con = await asyncpg.connect(dsn, server_settings={"application_name": "report"})
    store = replica_settings.postgres
    async with con.transaction(), session(store.address, Limits()) as doctor:
        await con.fetchval("SELECT pg_current_xact_id()")
        found = await doctor.transaction()
    assert found.age_s > 0
    assert f"pid {con.get_server_pid()}, penstock, report, idle in transaction" in found.who
    await con.close()


async def test_a_clock_that_differs(replica_settings: Settings) -> None:
    found = await levels(Case(replica_settings, skew_s=-90.0), "postgres", "redis")
    assert found["postgres.clock"] is found["redis.clock"] is ERROR


async def test_a_redis_that_evicts(replica_settings: Settings, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as spare:
        async with redis.Redis.from_url(spare.url) as client:
            await client.config_set("maxmemory", 2**30)
            await client.config_set("maxmemory-policy", "allkeys-lru")
        there: dict[str, Any] = {"url": SecretStr(spare.url)}
        for accepted, level in (((), ERROR), (("eviction",), WARNING)):
            there["accepted_risks"] = accepted
            found = await levels(Case(changed(replica_settings, redis=there)), "redis")
            assert found["redis.eviction"] is level


async def test_who_lets_us_not_in_is_told_without_the_password(
    replica_settings: Settings, dsn: str, redis_url: str
) -> None:
    wrong = "not-the-right-one"
    settings = changed(
        replica_settings,
        postgres={"dsn": SecretStr(dsn.replace(str(urlsplit(dsn).password), wrong))},
        redis={"url": SecretStr(redis_url.replace(str(urlsplit(redis_url).password), wrong))},
    )
    findings = await examine(Case(settings), ["postgres", "redis"])
    assert "doesn't let user 'penstock' in" in one_of(findings, "postgres").found
    assert "refuses us" in one_of(findings, "redis").found
    assert wrong not in str(findings)


@asynccontextmanager
async def silence() -> AsyncIterator[int]:
    """The port of a server that takes connections and says nothing."""
    held: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in held:
            writer.transport.abort()
        server.close()


async def test_servers_that_hang_hold_nobody_up(replica_settings: Settings) -> None:
    async with silence() as port:
        settings = changed(
            replica_settings,
            postgres={"dsn": SecretStr(f"postgres://u:hush@127.0.0.1:{port}/d")},
            redis={"url": SecretStr(f"redis://:hush@127.0.0.1:{port}/0")},
            smtp={"host": "127.0.0.1", "port": port, "from_address": "a@example.com"},
            kafka={"bootstrap_servers": f"127.0.0.1:{port}"},
        ).model_copy(update={"broker": "kafka"})
        case = Case(settings, f"http://127.0.0.1:{port}", timeout_s=1.0)
        async with asyncio.timeout(5):
            findings = await examine(case)
    wrong = {one.check for one in findings if one.level is ERROR}
    assert wrong >= {"postgres", "redis", "broker", "smtp", "server"}
    assert one_of(findings, "settings").level is OK
    assert "hush" not in str(findings)


async def test_mail_is_greeted_and_no_letter_sent(replica_settings: Settings) -> None:
    async with mailbox() as box:
        smtp = {"host": "127.0.0.1", "port": box.port, "from_address": "a@b.c", "tls": "none"}
        found = await levels(Case(changed(replica_settings, smtp=smtp)), "smtp")
    assert found["smtp"] is OK
    assert (box.connections, box.letters) == (1, [])


async def test_the_key_set_is_fetched_as_a_replica_does(replica_settings: Settings) -> None:
    usable, other = signer("RS256").jwk(kid="a"), signer("RS256").jwk(use="enc")
    async with AsyncExitStack() as there:
        good, gone, page, of_others = [
            (await there.enter_async_context(receiver(answer))).url
            for answer in (
                saying(json.dumps({"keys": [usable]})),
                saying(status=404),
                saying("<html>"),
                saying(json.dumps({"keys": [other]})),
            )
        ]
        wanted = {
            good: (OK, "1 keys (a)"),
            gone: (ERROR, "it answered 404"),
            page: (ERROR, "is no JSON"),
            of_others: (WARNING, "no key that we can use"),
            f"http://127.0.0.1:{free_port()}": (ERROR, "is out of reach"),
        }
        for url, (level, said) in wanted.items():
            auth = {"jwks_url": url, "jwks_allow_http": True, "jwks_timeout_s": 2}
            case = Case(changed(replica_settings, auth=auth))
            finding = one_of(await examine(case, ["auth.jwks_url"]), "auth.jwks_url")
            assert (finding.level, said in finding.found) == (level, True), finding
    assert (await levels(Case(replica_settings), "auth.jwks_url"))["auth.jwks_url"] is SKIPPED


async def test_handlers_that_cannot_be_imported(replica_settings: Settings) -> None:
    settings = changed(replica_settings, handlers={"modules": ("no.such.module",)})
    finding = one_of(await examine(Case(settings), ["handlers"]), "handlers")
    assert finding.level is ERROR
    assert "no.such.module can't be imported" in finding.found


async def test_a_server_that_was_named_must_be_there(replica_settings: Settings) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert (await levels(Case(replica_settings, nowhere), "server"))["server"] is ERROR
    port = changed(replica_settings, http={"port": free_port()})
    assert (await levels(Case(port), "server"))["server"] is SKIPPED


def environ(dsn: str, redis_url: str, **more: str) -> dict[str, str]:
    return {
        "PENSTOCK_ENV": "test",
        "PENSTOCK_HTTP__PORT": str(free_port()),
        "PENSTOCK_HTTP__CONNECTIONS_MAX": "10",
        "PENSTOCK_POSTGRES__DSN": dsn,
        "PENSTOCK_REDIS__URL": redis_url,
        "PENSTOCK_AUTH__JWT_SECRET": SECRET,
        **more,
    }


def test_the_command_tells_and_ends_as_documented(dsn: str, redis_url: str) -> None:
    """Warnings: nobody is alive, and the secret holds that word."""
    there = environ(dsn, redis_url)
    done = penstock("doctor", environ=there)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"^ok +postgres\.schema +up to date$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^warning +work\.replicas +none is alive\n +→ start one", done.stdout, re.MULTILINE
    )
    assert "\x1b" not in done.stdout, "no colours but on a terminal"
    assert penstock("doctor", "--strict", environ=there).returncode == 1
    secrets = (SECRET, *(str(urlsplit(url).password) for url in (dsn, redis_url)))
    assert not any(secret in done.stdout for secret in secrets)


def test_json_for_machines(dsn: str) -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    kafka = {
        "PENSTOCK_BROKER": "kafka",
        "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }
    done = penstock("doctor", "-o", "json", environ=environ(dsn, away, **kafka))
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    assert told["status"] == "error"
    for check in told["checks"]:
        assert check.keys() == {"check", "level", "found", "advice"}
    found = {check["check"]: check["level"] for check in told["checks"]}
    assert (found["redis"], found["kafka"], found["postgres"]) == ("error", "error", "ok")


def test_wrong_settings_are_2(dsn: str) -> None:
    done = penstock("doctor", "-o", "json", environ=environ(dsn, "http://no"))
    assert done.returncode == 2
    assert json.loads(done.stdout)["checks"][0]["check"] == "settings"
    assert "redis.url" in done.stderr
