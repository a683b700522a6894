"""`penstock dlq-consumer` as an operator runs it: a process, a topic, receivers."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.outlets.kafka import Kafka
from penstock.settings import Kafka as Settings
from tests.cli.command import penstock, running, the_one_line
from tests.egress.receiver import Receiver, receiver, saying
from tests.outlets.dead_letters import TOPIC, dead_letters
from tests.outlets.mailbox import Mailbox, mailbox
from tests.support.brokers import Tansu
from tests.support.waiting import eventually

SECRET = "whsec_" + "A" * 32


@pytest.fixture
def tansu(tmp_path: Path) -> Iterator[Tansu]:
    with Tansu(tmp_path) as one:
        yield one


def environ(tansu: Tansu, *rules: dict[str, Any], **more: str) -> dict[str, str]:
    return {
        "PENSTOCK_ENV": "test",
        "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": tansu.address,
        "PENSTOCK_KAFKA__TOPIC": TOPIC,
        "PENSTOCK_KAFKA__ENABLE_IDEMPOTENCE": "false",
        "PENSTOCK_ALERTS__RULES": json.dumps(rules),
        "PENSTOCK_EGRESS__ALLOW": '["127.0.0.0/8"]',
        "PENSTOCK_WEBHOOK__SECRETS": json.dumps([SECRET]),
        **more,
    }


async def die(tansu: Tansu, count: int) -> None:
    outlet = Kafka(
        Settings.model_validate(
            {"bootstrap_servers": tansu.address, "topic": TOPIC, "enable_idempotence": False}
        )
    )
    await outlet.deliver(dead_letters(count))
    await outlet.close()


async def test_an_alert_goes_to_webhook_mail_and_log_and_old_letters_are_no_news(
    tansu: Tansu, workplace: Path
) -> None:
    await die(tansu, 1)  # before anybody reads: a new group begins at the end
    async with receiver(saying(status=204)) as there, mailbox() as box:
        rules = [
            {"name": "hook", "by": ["error_type"], "count": 5, "webhook": there.url + "/alerts"},
            {"name": "post", "queue": "q", "count": 5, "email": "ops@example.com"},
            {"name": "other", "queue": "else", "count": 1},
        ]
        smtp = {
            "PENSTOCK_SMTP__HOST": "127.0.0.1",
            "PENSTOCK_SMTP__PORT": str(box.port),
            "PENSTOCK_SMTP__TLS": "none",
            "PENSTOCK_SMTP__FROM_ADDRESS": "penstock@example.com",
        }
        told = environ(tansu, *rules, **smtp)
        with running("dlq-consumer", environ=told, directory=workplace) as command:
            await eventually(lambda: _said(command), "it reads", 60)
            await die(tansu, 5)
            await eventually(lambda: _both(there, box), "it tells", 30)
            assert command.ends(signal.SIGTERM) == 0
    (seen,) = there.seen
    event = json.loads(seen.body)
    assert event["type"] == "penstock.alert.v1"
    assert event["data"]["rule"] == "hook"
    assert event["data"]["count"] == 5
    assert event["data"]["error_type"] == "Boom"
    assert len(event["data"]["jobs"]) == 5
    assert event["id"] == seen.headers["webhook-id"]
    ((_, recipients, letter),) = box.letters
    assert recipients == ["ops@example.com"]
    assert letter["Subject"] == "[Penstock] alert post: 5 dead letters"


async def test_a_broker_that_goes_and_comes_back_is_read_on(tansu: Tansu, workplace: Path) -> None:
    async with receiver(saying(status=204)) as there:
        rule = {"name": "hook", "by": ["queue"], "webhook": there.url}
        told = environ(tansu, rule)
        with running("dlq-consumer", environ=told, directory=workplace) as command:
            await eventually(lambda: _said(command), "it reads", 60)
            tansu.pause()
            await asyncio.sleep(1)
            tansu.resume()
            await die(tansu, 3)
            await eventually(lambda: _seen(there), "it tells", 60)
            tansu.pause()
            assert command.ends(signal.SIGTERM) == 0  # though nobody hears its farewell
            tansu.resume()


def test_a_rule_that_could_tell_nobody_is_one_line_and_code_2(tansu: Tansu) -> None:
    rule = {"name": "post", "email": "ops@example.com"}
    done = penstock("dlq-consumer", environ=environ(tansu, rule))
    assert "alerts.rules: post: its email can't be served" in the_one_line(done, 2)


def test_without_a_topic_it_says_what_to_set() -> None:
    done = penstock("dlq-consumer", environ={"PENSTOCK_ENV": "test"})
    assert "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS" in the_one_line(done, 2)


async def _said(command: Any) -> bool:
    return bool(command.heard("penstock: reading"))


async def _seen(there: Receiver) -> bool:
    return bool(there.seen)


async def _both(there: Receiver, box: Mailbox) -> bool:
    return bool(there.seen and box.letters)
