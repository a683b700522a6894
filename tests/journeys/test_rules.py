"""Rules with quiet hours and groups, over HTTP: one message for many, and none in the night."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook as Verifier

from penstock.server import Replica
from penstock.settings import Settings
from penstock.settings.notifications import NotificationRule
from tests.egress.receiver import Receiver
from tests.outlets.mailbox import Mailbox
from tests.support.api import Api
from tests.support.still import changed
from tests.support.waiting import eventually

OPS = "ops@example.com"


@pytest.fixture
def replica_settings(replica_settings: Settings, smtp: dict[str, Any], there: Receiver) -> Settings:
    hours = [(datetime.now(UTC) + timedelta(hours=n)).strftime("%H:%M") for n in (-1, 1)]
    group = {"by": ["kind", "error_type"], "wait_s": 0.5, "every_s": 60}
    rules: list[dict[str, Any]] = [
        {"name": "hook", "tags": ["loud"], "webhook": there.url, "group": group},
        {"name": "mail", "tags": ["loud"], "email": OPS, "group": group},
        {
            "name": "night",
            "tags": ["quiet"],
            "webhook": there.url,
            "quiet": [{"from": hours[0], "until": hours[1]}],
        },
    ]
    made = tuple(NotificationRule.model_validate({**one, "on": ["dead"]}) for one in rules)
    return changed(replica_settings, smtp=smtp, notifications={"rules": made})


async def die(api: Api, count: int, tag: str) -> list[str]:
    payload = {"message": "<b>as asked</b>", "retryable": False}
    submitted = [api.submit("fail", payload, tags=[tag]) for _ in range(count)]
    return list(await asyncio.gather(*submitted))


async def test_a_storm_is_one_webhook_and_one_mail(
    api: Api, replica: Replica, replica_settings: Settings, there: Receiver, box: Mailbox
) -> None:
    died = await die(api, 30, "loud")

    async def look() -> bool:
        return bool(there.seen and box.letters)

    await eventually(look, "both were told", within_s=10)
    (secret,) = replica_settings.webhook.secrets
    (seen,) = there.seen
    event = Verifier(secret.get_secret_value()).verify(seen.body, dict(seen.headers))
    assert event["type"] == "penstock.jobs.dead.v1"
    data = event["data"]
    assert data["group"] == {"kind": "fail", "error_type": "failed-as-asked"}
    assert (data["count"], len(data["jobs"])) == (30, 20)
    assert {job["id"] for job in data["jobs"]} <= set(died)
    ((_, recipients, letter),) = box.letters
    assert recipients == [OPS]
    assert letter["Subject"] == ("[Penstock] 30 jobs: dead (kind fail, error_type failed-as-asked)")
    text = letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    html = letter.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert "and 10 more." in text
    assert data["jobs"][0]["id"] in html
    assert "&lt;b&gt;as asked&lt;/b&gt;" in html
    leaders = [one for one in await deliveries(api, died) if one["part_of"] is None]
    assert [one["message_id"] for one in leaders if one["channel"] == "webhook"] == [event["id"]]


async def test_by_night_a_death_waits_and_an_operator_sends_it(api: Api, there: Receiver) -> None:
    died = await die(api, 1, "quiet")

    async def held() -> bool:
        return [one["waits_for"] for one in await deliveries(api, died)] == ["quiet"]

    await eventually(held, "it is held", within_s=5)
    (delivery,) = await deliveries(api, died)
    assert (delivery["outcome"], delivery["tries"], delivery["error"]) == ("pending", 0, None)
    until = datetime.fromisoformat(delivery["next_try_at"])
    assert timedelta(minutes=58) < until - datetime.now(UTC) <= timedelta(minutes=61)
    status, answer = await api.call("POST", f"/v1/deliveries/{delivery['id']}/resend", {})
    assert status == 200, answer

    async def came() -> bool:
        return bool(there.seen)

    await eventually(came, "it was sent", within_s=5)


async def deliveries(api: Api, jobs: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for job in jobs:
        status, page = await api.call("GET", f"/v1/deliveries?job_id={job}")
        assert status == 200, page
        found += page["items"]
    return found


async def test_a_rule_is_tried_by_its_name_whatever_it_waits_for(
    api: Api, there: Receiver, box: Mailbox
) -> None:
    for name in ("night", "hook", "mail"):
        status, told = await api.call("POST", "/v1/notifications/test", {"rule": name})
        assert (status, told["event"], told["rule"]) == (202, "penstock.test.v1", name)

    async def look() -> bool:
        return len(there.seen) == 2 and len(box.letters) == 1

    await eventually(look, "all have come", within_s=10)
    assert {orjson.loads(seen.body)["data"]["rule"] for seen in there.seen} == {"night", "hook"}
    ((_, recipients, letter),) = box.letters
    assert (recipients, letter["Subject"]) == ([OPS], "[Penstock] test")
    assert "by the rule mail of" in str(letter)
