"""The alerter: reads dead letters, and tells of those that are an alarm.

In: dead letters from the topic. Out: a line of the log for each alert, and a message to whom its
rule names. Always holds: a receiver that is out of reach holds the others up for a bounded time; a
batch is dealt with when all that it raised was told or given up. If we die before, it is read and
told again under the same ids.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence

import orjson

from penstock.clock import rfc3339
from penstock.domain.alert import EVENT, Alert, DeadLetter, Watch
from penstock.domain.effect import Channel, Effect, Fate, Message
from penstock.outlets import Outlet
from penstock.telemetry.logs import get_logger

_PAUSES_S = (1.0, 5.0)  # between the tries to tell

log = get_logger(__name__)


class Alerter:
    def __init__(self, watch: Watch, outlets: Mapping[Channel, Outlet]) -> None:
        self._watch = watch
        self._outlets = outlets

    async def take(self, letters: Sequence[DeadLetter]) -> list[Alert]:
        """Tells of the alerts that these letters raise."""
        alerts = list(self._watch.take(letters))
        await asyncio.gather(*map(self._tell, alerts))
        return alerts

    async def _tell(self, alert: Alert) -> None:
        rule = alert.rule
        log.warning("dead_letter_alert", rule=rule.name, count=alert.count, **alert.group)
        if rule.channel is None:
            return
        outlet, message = self._outlets[rule.channel], message_of(alert, rule.channel)
        (came,) = await outlet.deliver([message])
        for pause_s in _PAUSES_S:
            if came.fate is Fate.LATER:
                await asyncio.sleep(pause_s)
                (came,) = await outlet.deliver([message])
        if came.fate is not Fate.DELIVERED:
            log.error("alert_not_told", rule=rule.name, why=came.error)


def message_of(alert: Alert, channel: Channel) -> Message:
    """What a receiver gets: the alert as data, with an id that a repetition shares."""
    rule = alert.rule
    group = hashlib.sha256(orjson.dumps(alert.group)).hexdigest()[:12]
    data = {
        "rule": rule.name,
        "count": alert.count,
        "within_s": rule.within_s,
        **{name: alert.group.get(name) for name in ("queue", "kind", "error_type")},
        "first_at": rfc3339(alert.first_at),
        "last_at": rfc3339(alert.last_at),
        "jobs": alert.jobs,
    }
    effect = Effect(
        id=secrets.token_bytes(16),
        channel=channel,
        endpoint=rule.endpoint,
        dedupe=f"alert:{rule.name}:{group}:{alert.last_id}",
        event=EVENT,
        job=None,
        workflow=None,
        attempt=0,
        state="raised",
        reason=None,
        rule=rule.name,
        at=alert.last_at,
        tries=1,
    )
    return Message(effect, orjson.dumps(data).decode())
