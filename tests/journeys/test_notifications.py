"""Who asked for it is told: by a webhook that anybody can verify, by mail."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from standardwebhooks import Webhook as Verifier

from penstock.server import Replica, running
from penstock.settings import Settings
from tests.egress.receiver import Receiver
from tests.outlets.mailbox import Mailbox
from tests.support.api import Api
from tests.support.replica import ReplicaProcess
from tests.support.still import changed
from tests.support.waiting import eventually

OPS = "ops@example.com"


@pytest.fixture
def replica_settings(replica_settings: Settings, smtp: dict[str, Any]) -> Settings:
    return changed(replica_settings, smtp=smtp)


async def test_a_death_is_told_at_once_by_webhook_and_mail(
    api: Api, replica: Replica, replica_settings: Settings, there: Receiver, box: Mailbox
) -> None:
    notify = [{"on": ["dead"], "webhook": there.url}, {"on": ["dead"], "email": OPS}]
    payload = {"message": "as asked", "retryable": False}
    id_ = await api.submit("fail", payload, notify=notify)

    async def look() -> bool:
        return bool(there.seen and box.letters)

    await eventually(look, "both were told", within_s=5)
    (secret,) = replica_settings.webhook.secrets
    (seen,) = there.seen
    event = Verifier(secret.get_secret_value()).verify(seen.body, dict(seen.headers))
    assert event["subject"] == event["data"]["id"] == id_
    ((_, recipients, letter),) = box.letters
    assert recipients == [OPS]
    assert letter["Subject"] == "[Penstock] fail in default: dead"


async def test_a_workflow_tells_too(api: Api, there: Receiver) -> None:
    jobs = [{"name": "a", "kind": "echo"}, {"name": "b", "kind": "echo", "depends_on": ["a"]}]
    notify = [{"on": ["succeeded"], "webhook": there.url}]
    body = {"name": "nightly", "jobs": jobs, "notify": notify}
    status, workflow = await api.call("POST", "/v1/workflows", body)
    assert status == 201, workflow

    async def look() -> bool:
        return bool(there.seen)

    await eventually(look, "it was told", within_s=5)
    (seen,) = there.seen
    assert b"penstock.workflow.succeeded.v1" in seen.body


async def test_a_mail_server_that_is_away_is_said_and_harms_nothing(
    replica_settings: Settings,
) -> None:
    settings = changed(replica_settings, smtp={"port": 1})
    async with running(settings) as replica, Api(replica.url) as api:
        id_ = await api.submit("echo", 1, notify=[{"on": ["succeeded"], "email": OPS}])
        assert (await api.ended(id_))["state"] == "succeeded"

        async def degraded() -> bool:
            async with ClientSession() as http, http.get(f"{replica.url}/readyz") as answer:
                return answer.status == 200 and "smtp" in (await answer.json())["degraded"]

        await eventually(degraded, "it is ready, and says that mail is away", within_s=5)


async def test_a_rule_that_could_tell_nobody_stops_the_start(
    dsn: str, redis_url: str, workplace: Path
) -> None:
    rules = '[{"name": "night-watch", "on": ["dead"], "email": "ops@example.com"}]'
    environ = {"PENSTOCK_NOTIFICATIONS__RULES": rules}
    replica = ReplicaProcess(dsn, redis_url, workplace, environ)
    replica.start()
    assert await asyncio.to_thread(replica.wait) == 2
    said = replica.last_words()
    assert "notifications.rules: night-watch: its email can't be served" in said
    assert "smtp.host" in said
    assert "Traceback" not in said
