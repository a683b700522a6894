"""Reads the topic of dead letters, for alerts.

In: records as `kafka.py` writes them. Out: what they tell, a batch at a time. Always holds: what
was not yet dealt with is read again after a crash; what is no dead letter is passed over. A group
that is new begins at the topic's end.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from penstock.domain.alert import DeadLetter
from penstock.domain.errors import Unavailable
from penstock.outlets.dead_letters import told
from penstock.outlets.kafka import connection_of
from penstock.settings import Kafka as Settings
from penstock.telemetry.logs import get_logger

_AT_ONCE = 500
_WAIT_MS = 1000
_FAREWELL_S = 5.0

log = get_logger(__name__)


class Topic:
    """`async with topic_of(settings, group) as topic:` then `next`, `done`, `next` …"""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._held: set[Any] = set()

    async def next(self) -> list[DeadLetter]:
        """What has come; nothing after a second without."""
        found = await self._consumer.getmany(timeout_ms=_WAIT_MS, max_records=_AT_ONCE)
        await self._keep_places()
        return list(letters_in(one for records in found.values() for one in records))

    async def done(self) -> None:
        """What `next` gave last is dealt with."""
        await self._consumer.commit()

    async def _keep_places(self) -> None:
        """Where a new group begins is written down at once: else it would begin anew, later, when
        it comes back from a crash."""
        new = self._consumer.assignment() - self._held
        for place in new:
            if await self._consumer.committed(place) is None:
                at = await self._consumer.position(place)
                await self._consumer.commit({place: at})
        self._held |= new


@asynccontextmanager
async def topic_of(settings: Settings, group: str) -> AsyncIterator[Topic]:
    """Raises Unavailable when the brokers are out of reach, or go away meanwhile."""
    consumer = AIOKafkaConsumer(
        settings.topic,
        **connection_of(settings),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="latest",
    )
    try:
        await consumer.start()
        yield Topic(consumer)
    except KafkaError as error:
        raise Unavailable("Kafka", told(error)) from error
    finally:
        with suppress(TimeoutError):  # a broker that is away hears no farewell
            async with asyncio.timeout(_FAREWELL_S):
                await consumer.stop()


def letters_in(records: Iterable[ConsumerRecord]) -> Iterable[DeadLetter]:
    for record in records:
        try:
            yield _letter(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("not_a_dead_letter", offset=record.offset, why=repr(error))


def _letter(record: ConsumerRecord) -> DeadLetter:
    headers = {name: value.decode() for name, value in record.headers}
    job = orjson.loads(record.value)
    error = job["error"] or {}
    return DeadLetter(
        id=headers["ce_id"],
        job=str(job["id"]),
        queue=str(job["queue"]),
        kind=str(job["kind"]),
        error_type=str(error.get("type") or "unknown"),
        at=datetime.fromisoformat(headers["ce_time"]),
    )
