"""Nobody is told a secret: a replica with a canary in each, through all that works and fails."""

import asyncio
import base64
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import psutil
import pytest
import redis.asyncio as redis
from aiohttp import web

from tests.cli.command import penstock
from tests.egress.receiver import Receiver, canary, receiver
from tests.outlets.mailbox import Mailbox, mailbox
from tests.support.api import token
from tests.support.authority import Authority
from tests.support.parameter_store import ParameterStore
from tests.support.replica import ReplicaProcess
from tests.support.waiting import eventually

SIGNER = b"canary-of-the-webhooks-32-bytes!"
# Each is searched for by itself, so that a failure says what came out.
SECRETS = {
    "jwt": "canaryjwt-of-32-bytes-and-more-of-them",
    "postgres": "canarydsn",
    "redis": "canaryredis",
    "smtp": "canarysmtp",
    "webhook": base64.b64encode(SIGNER).decode(),
    "webhook_decoded": SIGNER.decode(),
    "rule_hook": "canaryrule",
    "kind_hook": "canarykind",
    "job_hook": "canaryjob",
    "alert_hook": "canaryalert",
    "test_hook": "canarytest",
    "kafka": "canarykafka",
    "rabbitmq": "canaryrabbit",
    "wrong_token": "canarytoken",
    "query_token": "canaryquery",
    "payload": "canarypayload",
}
_SHOWS_JOBS = ("/v1/jobs", "/replay")  # with their payloads
_STORED = {  # what is told of elsewhere; jobs and effects must hold payloads and whole URLs
    "audit_log": "SELECT a::text FROM audit_log a",
    "attempts": "SELECT a::text FROM attempts a",
    "dead_letters": "SELECT d::text FROM dead_letters d",
    "job_logs": "SELECT l::text FROM job_logs l",
    "workers": "SELECT w::text FROM workers w",
}


@dataclass
class Heard:
    """All that anybody was told, by where."""

    texts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, where: str, *texts: str) -> None:
        self.texts.setdefault(where, []).extend(texts)

    def told(self, secrets: dict[str, str]) -> list[str]:
        """Which secret came out where, and in what words."""
        return [
            f"{name} in {where}: …{text[max(at - 200, 0) : at + 80]}…"
            for where, texts in self.texts.items()
            for text in texts
            for name, secret in secrets.items()
            if (at := text.find(secret)) >= 0
            and not (name == "payload" and where.endswith(_SHOWS_JOBS))
        ]


@dataclass
class Stage:
    """A replica, and who plays with it. `base`: its settings. `other` has another broker, which it
    can't reach, as it can't Redis."""

    replica: ReplicaProcess
    other: ReplicaProcess
    base: Path
    there: Receiver
    box: Mailbox
    heard: Heard
    admin: str

    async def ask(
        self, method: str, path: str, body: Any = None, bearer: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Asks, remembers what was answered, and answers it."""
        headers = {"Authorization": f"Bearer {bearer or self.admin}", **headers}
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.replica.url + path, json=body, headers=headers) as answer,
        ):
            text = await answer.text()
            self.heard.add(f"{method} {path.partition('?')[0]}", text, str(answer.headers))
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(text) if is_json else text


@asynccontextmanager
async def locked(dsn: str, redis_url: str) -> AsyncIterator[tuple[str, str]]:
    """The same servers, by users with passwords."""
    name, user = urlsplit(dsn).path[1:], f"canary_{urlsplit(dsn).path[1:]}"
    root, index = await asyncpg.connect(dsn), redis.Redis.from_url(redis_url)
    store, shelf = SECRETS["postgres"], SECRETS["redis"]
    await root.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{store}'")
    await index.acl_setuser(
        user, enabled=True, passwords=f"+{shelf}", keys="*", channels="*", commands=["+@all"]
    )
    try:
        place = urlsplit(dsn).netloc.rpartition("@")[2]
        shelves = urlsplit(redis_url)
        yield (
            f"postgresql://{user}:{store}@{place}/{name}",
            f"redis://{user}:{shelf}@{shelves.netloc.rpartition('@')[2]}{shelves.path}",
        )
    finally:
        await root.execute(f"DROP OWNED BY {user}")
        await root.execute(f"DROP ROLE {user}")
        await index.acl_deluser(user)
        await index.aclose()
        await root.close()


async def _answer(request: web.Request) -> web.Response:
    """The kind's webhook fails, and says what it was asked for; all others are taken."""
    is_wrong = SECRETS["kind_hook"] in request.path
    return web.Response(
        status=500 if is_wrong else 204, text=None if not is_wrong else request.path
    )


def _hook(there: str, of: str) -> str:
    return f"{there}/{SECRETS[f'{of}_hook']}"


def _yaml(there: str, mail: int, kafka: int, ca_file: str) -> str:
    """JSON is YAML."""
    rules = [
        {
            "name": "deaths",
            "on": ["dead"],
            "webhook": _hook(there, "rule"),
        },
        {"name": "mails", "on": ["dead"], "email": "ops@example.com"},
    ]
    kinds = {"on": ["dead"], "webhook": _hook(there, "kind")}
    alert = {"name": "many", "webhook": _hook(there, "alert")}
    smtp = {"host": "127.0.0.1", "port": mail, "from_address": "penstock@example.com"}
    sasl = {"sasl_mechanism": "SCRAM-SHA-512", "username": "penstock"}
    return json.dumps(
        {
            "log": {"level": "debug"},
            "webhook": {
                "schemes": ["http", "https"],
                "secrets": ["whsec_" + SECRETS["webhook"]],
            },
            "notifications": {"rules": rules},
            "kinds": {"fail": {"notify": [kinds]}},
            "alerts": {"rules": [alert]},
            "smtp": {
                **smtp,
                "ca_file": ca_file,
                "username": "penstock",
                "password": SECRETS["smtp"],
            },
            "broker": "kafka",
            "kafka": {
                **sasl,
                "bootstrap_servers": f"127.0.0.1:{kafka}",
                "password": SECRETS["kafka"],
            },
            "rabbitmq": {"url": "amqp://penstock:" + SECRETS["rabbitmq"] + "@127.0.0.1:1/"},
            "worker": {"queues": ["*"]},
            "rate_limits": {"rules": [{"counts": "reads", "limit": 100_000}]},
        }
    )


@pytest.fixture
async def stage(
    dsn: str, redis_url: str, parameter_store: ParameterStore, tmp_path: Path
) -> AsyncIterator[Stage]:
    authority, path = Authority(tmp_path), parameter_store.path()
    tls: ssl.SSLContext = authority.serving(authority.issued("mail"))
    parameter_store.put(path, {"auth/jwt_secret": SECRETS["jwt"]}, "SecureString")
    directory = tmp_path / "config"
    directory.mkdir()
    base = directory / "base.yaml"
    (directory / "test.yaml").write_text("")
    async with (
        locked(dsn, redis_url) as (store, index),
        receiver(_answer) as there,
        mailbox(tls, wants_login=True) as box,
        canary(b"no broker") as kafka,
    ):
        base.write_text(_yaml(there.url, box.port, kafka.port, authority.ca_file))
        environ = {
            **parameter_store.environ,
            "PENSTOCK_SSM_PATH": path,
            "PENSTOCK_CONFIG_DIR": str(directory),
        }
        replica = ReplicaProcess(store, index, tmp_path, environ)
        unwelcome = index.replace("canary_", "nobody_")
        more = {"PENSTOCK_BROKER": "rabbitmq", "PENSTOCK_ROLES": '["relay"]'}
        other = ReplicaProcess(store, unwelcome, tmp_path, {**environ, **more})
        try:
            for one in (replica, other):
                del one.environ["PENSTOCK_AUTH__JWT_SECRET"]
                one.start()
            await replica.ready()
            await other.ready()
            admin = token(secret=SECRETS["jwt"])
            yield Stage(replica, other, base, there, box, Heard(), admin)
        finally:
            replica.stop()
            other.stop()


async def test_no_secret_is_told_to_anybody(stage: Stage, dsn: str) -> None:
    admin = stage.admin
    tokens = {"a token": admin, "a signature": admin.rpartition(".")[2]}
    await _knock(stage)
    await _die(stage, dsn)
    await _reload(stage)
    await _look_around(stage)
    await _commands(stage)
    for one in (stage.replica, stage.other):
        one.terminate()
        await asyncio.to_thread(one.wait)
        stage.heard.add("the log", one.log_file.read_text())
    con = await asyncpg.connect(dsn)
    for table, sql in _STORED.items():
        stage.heard.add(f"the table {table}", *[row[0] for row in await con.fetch(sql)])
    await con.close()

    log = "".join(stage.heard.texts["the log"])
    for told in ("settings_refused", "broker_away", '"broker":"rabbitmq"', "jobs_died"):
        assert told in log, log[-3000:]
    leaks = stage.heard.told({**SECRETS, **tokens})
    assert not leaks, "\n".join(leaks)


async def _knock(stage: Stage) -> None:
    """Tokens that are wrong, in all places."""
    wrong, query = SECRETS["wrong_token"], SECRETS["query_token"]
    signed = token(secret=f"{wrong}-that-has-32-bytes-and-more")
    header, claims, signature = stage.admin.split(".")
    for bearer in (wrong, signed, f"{header}.{claims}.{wrong}", f"{wrong}.{claims}.{signature}"):
        assert (await stage.ask("GET", "/v1/queues", bearer=bearer))[0] == 401
    for sent in (f"Basic {wrong}", wrong, f"Bearer {stage.admin} {wrong}"):
        assert (await stage.ask("GET", "/v1/queues", Authorization=sent))[0] == 401
    for path in (f"/v1/queues?access_token={query}", f"/v1/jobs?access_token={query}&limit=x"):
        assert (await stage.ask("GET", path))[0] == 400
    viewer = token("viewer", secret=SECRETS["jwt"])
    for path in ("/v1/config", "/v1/audit"):
        assert (await stage.ask("GET", path, bearer=viewer))[0] == 403


async def _die(stage: Stage, dsn: str) -> None:
    """Deaths that are told by webhook and mail and a broker, in vain and not; a crash; a child."""
    hook = {"on": ["dead"], "webhook": _hook(stage.there.url, "job")}
    payload = {"type": "boom", "message": "as asked", "retryable": False}
    for job in (
        {"kind": "fail", "payload": payload},
        {"kind": "fail", "payload": payload, "notify": [hook]},
        {"kind": "hog", "payload": {"mb": SECRETS["payload"]}, "max_attempts": 1},
        {"kind": "bound", "payload": {"x": SECRETS["payload"]}, "max_attempts": 1},
    ):
        status, _ = await stage.ask("POST", "/v1/jobs", job)
        assert status == 201
    for url in (
        _hook("http://10.0.0.1", "job"),
        "ftp://canaryjob/canaryjob",
    ):
        body = {"kind": "echo", "notify": [{"on": ["dead"], "webhook": url}]}
        assert (await stage.ask("POST", "/v1/jobs", body))[0] == 422
    test = {"webhook": _hook(stage.there.url, "test")}
    assert (await stage.ask("POST", "/v1/notifications/test", test))[0] == 202
    await _run_in_a_child(stage, dsn)

    async def look() -> bool:
        seen = " ".join(one.path for one in stage.there.seen)
        all_called = all(SECRETS[f"{of}_hook"] in seen for of in ("rule", "kind", "job", "test"))
        return all_called and False in stage.box.logins

    await eventually(look, "all were called, and the mail server refused us", within_s=10)
    stage.box.password = SECRETS["smtp"]
    _, found = await stage.ask("GET", "/v1/deliveries?channel=email&outcome=pending")
    for one in found["items"]:
        assert (await stage.ask("POST", f"/v1/deliveries/{one['id']}/resend"))[0] == 200

    async def arrives() -> bool:
        return bool(stage.box.letters)

    await eventually(arrives, "mail is taken", within_s=10)


async def _run_in_a_child(stage: Stage, dsn: str) -> None:
    """What a suspect's process is called, and has."""
    assert (await stage.ask("POST", "/v1/queues/suspect/pause"))[0] == 200
    job = {"kind": "surroundings", "queue": "suspect"}
    slow = {"kind": "deaf", "payload": {"seconds": 1}, "queue": "suspect"}
    for one in (job, slow):
        status, _ = await stage.ask("POST", "/v1/jobs", one)
        assert status == 201
    con = await asyncpg.connect(dsn)
    done = await con.execute("UPDATE job_due SET losses = 2 WHERE queue = 'suspect'")
    await con.close()
    assert done == "UPDATE 2"
    assert (await stage.ask("POST", "/v1/queues/suspect/resume"))[0] == 200

    async def look() -> bool:
        children = psutil.Process(stage.replica.pid).children(recursive=True)
        for child in children:
            with suppress(psutil.Error):  # it has ended meanwhile
                stage.heard.add("the arguments of a child", " ".join(child.cmdline()))
        _, found = await stage.ask("GET", "/v1/jobs?queue=suspect&state=succeeded&include=result")
        return bool(children) and len(found["items"]) == 2

    await eventually(look, "both ran in children", within_s=15)


async def _reload(stage: Stage) -> None:
    """Settings that are refused, by each way; then right ones."""
    right = stage.base.read_text()
    wrong = right.replace('"on": ["dead"]', '"on": ["ded"]').replace('"http", ', "")
    for text in (
        wrong,
        right[:-40],
        f"{right}\n canaryrule: [canarykind",
        right.replace("amqp", "a"),
    ):
        stage.base.write_text(text)
        status, _ = await stage.ask("POST", "/v1/config/reload")
        assert status == 422
        assert (await stage.ask("GET", "/v1/config"))[1]["refused"]
        os.kill(stage.replica.pid, signal.SIGHUP)
    stage.base.write_text(right.replace("ops@example.com", "others@example.com"))
    assert (await stage.ask("POST", "/v1/config/reload"))[0] == 200
    assert (await stage.ask("GET", "/v1/config"))[1]["refused"] is None


async def _look_around(stage: Stage) -> None:
    """All that can be asked for."""
    lists = ("dead-letters", "dead-letters/groups", "deliveries", "endpoints", "audit", "workers")
    for path in (*(f"/v1/{name}?limit=200" for name in (*lists, "jobs", "queues")), "/v1/config"):
        status, found = await stage.ask("GET", path)
        assert status == 200, found
        assert found.get("items", found.get("settings")), path
    for path in ("/metrics", "/openapi.json", "/readyz"):
        assert (await stage.ask("GET", path))[0] == 200
    _, letters = await stage.ask("GET", "/v1/dead-letters?limit=200")
    for one in letters["items"][:2]:
        assert (await stage.ask("POST", f"/v1/dead-letters/{one['job_id']}/replay"))[0] == 200


async def _commands(stage: Stage) -> None:
    """The command line with the replica's settings; servers that aren't there, or refuse us."""
    environ = {k: v for k, v in stage.replica.environ.items() if k.startswith(("PENSTOCK", "AWS"))}
    gone = {
        **environ,
        "PENSTOCK_POSTGRES__DSN": environ["PENSTOCK_POSTGRES__DSN"] + "_is_gone",
        "PENSTOCK_POSTGRES__BOOT_WAIT_S": "0.1",
    }
    sent = (
        (("config", "show", "-o", "json"), environ),
        (("doctor",), stage.other.environ),
        (("serve",), gone),
        (("doctor",), gone),
    )
    ran = [asyncio.to_thread(penstock, *words, environ=one) for words, one in sent]
    for (words, _), done in zip(sent, await asyncio.gather(*ran), strict=True):
        assert "Traceback" not in done.stderr
        assert done.stdout or done.stderr
        stage.heard.add(f"penstock {' '.join(words)}", done.stdout, done.stderr)
