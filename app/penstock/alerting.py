"""`penstock dlq-consumer`, made and wired by hand: the topic, the rules, whom they tell.

It needs neither PostgreSQL nor Redis, and may run anywhere; several share the topic's partitions.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from penstock.domain.alert import AlertRule, Watch
from penstock.domain.errors import Unavailable, WrongSetting
from penstock.egress import Egress
from penstock.loops.alerter import Alerter
from penstock.outlets.kafka_topic import topic_of
from penstock.relays import callers_of, reach_by
from penstock.settings import Alerts, Kafka, Smtp
from penstock.settings import Egress as EgressSettings
from penstock.settings import Webhook as WebhookSettings
from penstock.telemetry.logs import get_logger

_PAUSE_MAX_S = 30.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """The sections that it goes by."""

    kafka: Kafka
    alerts: Alerts
    webhook: WebhookSettings
    smtp: Smtp
    egress: EgressSettings


async def watch_topic(parts: Parts, on_ready: Callable[[str], None]) -> None:
    """Reads and tells until SIGTERM or SIGINT. Raises WrongSetting for what could not work."""
    rules = rules_of(parts)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    hooks = Egress(parts.egress.allow, connect_timeout_s=parts.egress.connect_timeout_s)
    async with hooks:
        alerter = Alerter(Watch(rules), callers_of(parts.webhook, parts.smtp, hooks))
        reading = asyncio.create_task(_read(parts, alerter, on_ready))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


def rules_of(parts: Parts) -> list[AlertRule]:
    """Raises WrongSetting for a rule that could tell nobody, and where there is no topic."""
    if parts.kafka.bootstrap_servers is None:
        raise WrongSetting(
            "kafka.bootstrap_servers is required to read dead letters: "
            "set PENSTOCK_KAFKA__BOOTSTRAP_SERVERS"
        )
    reach = reach_by(parts.egress, parts.webhook, parts.smtp)
    rules = [rule.as_rule() for rule in parts.alerts.rules]
    for rule in rules:
        why = rule.channel and reach(rule.channel, rule.endpoint)
        if why:
            raise WrongSetting(f"alerts.rules: {rule.name}: its {rule.channel} {why}")
    return rules


async def _read(parts: Parts, alerter: Alerter, on_ready: Callable[[str], None]) -> None:
    pause_s = 1.0
    while True:
        try:
            async with topic_of(parts.kafka, parts.alerts.group) as topic:
                await topic.next()
                on_ready(parts.kafka.topic)
                pause_s = 1.0
                while True:
                    await alerter.take(await topic.next())
                    await topic.done()
        except Unavailable as error:
            log.warning("topic_out_of_reach", why=str(error), again_in_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)
