"""Dead letters to Kafka.

In: messages of the relay. Out: records in the topic that is their endpoint: key = job id, value =
the job, headers of CloudEvents. Always holds: all replicas in sync have a record before it counts
as delivered; each message is judged by itself; one that is too large goes as a reference. If we die
meanwhile, it is sent again under the same `ce_id`.
"""

import asyncio
import ssl
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerResponseError,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RequestTimedOutError,
)

from penstock.domain.effect import DELIVERED, Delivery, Fate, Message
from penstock.outlets import tls
from penstock.outlets.dead_letters import headers_of, key_of, later, reference_to, size_of, told
from penstock.outlets.line import Line, Ways
from penstock.settings import Kafka as Settings
from penstock.telemetry.logs import get_logger

_REQUEST_MS = 10_000
_LINGER_MS = 5
_BATCH_BYTES = 16_384  # that records share; a larger one travels alone
_FIRST_WAIT_S = 5.0  # for the first connection
_SEND_MAX_S = 20.0  # for a whole batch, well below the relay's lease
_POLL_S = 0.02
_OVERHEAD_BYTES = 256  # of a request, around a record

_TOO_SLOW = f"no answer within {_SEND_MAX_S:g} s"
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

log = get_logger(__name__)


class Kafka:
    """The outlet. `why`: what is wrong while the broker is away."""

    name = "kafka"
    at_once = 500

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._line = Line(self.name, Ways(self._open, _close, _is_alive))
        self._max_bytes = settings.message_max_bytes

    @property
    def why(self) -> str | None:
        return self._line.why

    def is_away(self) -> bool:
        """Whether it is known to be; the first look begins to connect, in the background."""
        self._line.begin()
        return self.why is not None

    async def deliver(self, batch: Sequence[Message]) -> list[Delivery]:
        producer = await self._line.get(_FIRST_WAIT_S)
        if producer is None:
            return [later(self.why or "not connected yet")] * len(batch)
        errors: list[Exception] = []
        tasks = [asyncio.create_task(self._try(producer, one, errors)) for one in batch]
        try:
            _, late = await asyncio.wait(tasks, timeout=_SEND_MAX_S)
        finally:
            for task in tasks:
                task.cancel()
        if late:
            # An idempotent producer would try them for ever, and hold them all the while.
            self._line.lose(producer, _TOO_SLOW)
            await asyncio.wait(late)
        self._judge(producer, errors)
        return [later(_TOO_SLOW) if task.cancelled() else task.result() for task in tasks]

    async def close(self) -> None:
        await self._line.close()

    async def fault(self) -> str | None:
        """Connects, logs in and lets go again: what kept us from it, or None."""
        try:
            await _close(await self._open())
        except Exception as error:
            return told(error)
        return None

    def _judge(self, producer: AIOKafkaProducer, errors: Sequence[Exception]) -> None:
        """Whether this producer may go on. One that numbers its records may not after any refusal:
        the broker would take what follows for out of order."""
        for error in errors:
            if not isinstance(error, BrokerResponseError) or isinstance(
                error, RequestTimedOutError
            ):
                self._line.lose(producer, told(error))
        if errors and self._settings.enable_idempotence:
            self._line.renew(producer)

    async def _try(
        self, producer: AIOKafkaProducer, message: Message, errors: list[Exception]
    ) -> Delivery:
        """What comes of one message; raises nothing, notes what went wrong."""
        try:
            return await self._send(producer, message)
        except Exception as error:
            errors.append(error)
            return later(error)

    async def _send(self, producer: AIOKafkaProducer, message: Message) -> Delivery:
        value = message.data.encode()
        size = _OVERHEAD_BYTES + size_of(key_of(message), value, headers_of(message))
        if size <= self._max_bytes:
            try:
                await self._put(producer, message, value)
                return DELIVERED
            except _TOO_LARGE:
                self._learn(size)
                if self._settings.enable_idempotence:
                    raise  # as a reference next time, by another producer
        try:
            await self._put(producer, message, reference_to(message, size))
        except _TOO_LARGE as error:
            return Delivery(Fate.NEVER, told(error))
        return DELIVERED

    def _learn(self, size: int) -> None:
        """The broker takes less than we were told: what is as large goes as a reference from now
        on, without asking."""
        if size <= self._max_bytes:
            self._max_bytes = max(size - 1, _BATCH_BYTES)
            log.warning(
                "broker_takes_less",
                bytes=size,
                hint="lower kafka.message_max_bytes to what the topic takes (max.message.bytes)",
            )

    async def _put(self, producer: AIOKafkaProducer, message: Message, value: bytes) -> None:
        await producer.send_and_wait(
            message.effect.endpoint,
            value,
            key=key_of(message).encode(),
            headers=[(name, text.encode()) for name, text in headers_of(message).items()],
        )

    async def _open(self) -> AIOKafkaProducer:
        settings = self._settings
        producer = AIOKafkaProducer(
            **connection_of(settings),
            acks="all",
            enable_idempotence=settings.enable_idempotence,
            compression_type=None,  # gzip takes the event loop up to 250 ms a large record
            linger_ms=_LINGER_MS,
            max_batch_size=_BATCH_BYTES,
            max_request_size=settings.message_max_bytes,
        )
        try:
            async with asyncio.timeout(_REQUEST_MS / 1000):
                await producer.start()
        except TimeoutError:
            await producer.stop()
            raise TimeoutError(
                f"no start within {_REQUEST_MS // 1000} s; is it a broker that knows idempotent "
                "producers (kafka.enable_idempotence)?"
                if settings.enable_idempotence
                else f"no start within {_REQUEST_MS // 1000} s"
            ) from None
        except KafkaConnectionError:
            await producer.stop()
            if fault := await distrust(settings):
                raise ConnectionError(fault) from None
            raise
        except BaseException:
            await producer.stop()
            raise
        return producer


def connection_of(settings: Settings) -> dict[str, object]:
    """How to reach the brokers, as aiokafka's clients want it."""
    secret = settings.password.get_secret_value() if settings.password is not None else None
    sasl = settings.sasl_mechanism
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": "penstock",
        "request_timeout_ms": _REQUEST_MS,
        "security_protocol": f"{'SASL_' if sasl else ''}{'SSL' if settings.tls else 'PLAINTEXT'}",
        "ssl_context": _tls_of(settings) if settings.tls else None,
        "sasl_mechanism": sasl or "PLAIN",
        "sasl_plain_username": settings.username,
        "sasl_plain_password": secret,
    }


def _tls_of(settings: Settings) -> ssl.SSLContext:
    return tls.context_of(settings.ca_file, settings.cert_file, settings.key_file)


async def distrust(settings: Settings) -> str | None:
    """What is wrong with TLS, which aiokafka keeps to itself: the first fault of all brokers."""
    if settings.tls and settings.bootstrap_servers is not None:
        for place in settings.bootstrap_servers.split(","):
            if fault := await tls.fault_at(place, _tls_of(settings)):
                return (
                    f"{place.strip()}: {fault}; "
                    "see kafka.ca_file, kafka.cert_file and kafka.bootstrap_servers"
                )
    return None


async def _is_alive(producer: AIOKafkaProducer) -> bool:
    return bool(await producer.client.force_metadata_update())


async def _close(producer: AIOKafkaProducer) -> None:
    """At once, and without a trace: its own `stop` waits until all that it holds is delivered,
    which may be never. What it holds is sent again by another, when the relay says so."""
    client, held = producer.client, producer._message_accumulator
    sending = producer._sender.sender_task
    if sending is not None:
        sending.cancel()
    await client.close()
    while sending is not None and not sending.done():
        news = client._md_update_fut  # which nobody will bring any more
        if news is not None and not news.done():
            news.set_result(False)
        await asyncio.sleep(_POLL_S)
    held._pending_batches |= {batch for line in held._batches.values() for batch in line}
    for batch in list(held._pending_batches):
        batch.future.cancel()
    await producer.stop()
