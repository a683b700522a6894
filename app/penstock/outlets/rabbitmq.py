"""Dead letters to RabbitMQ.

In: messages of the relay. Out: persistent messages whose routing key is their endpoint, with
`message_id` = the dedupe id and headers of CloudEvents. Always holds: the broker has confirmed a
message, and found a queue for it, before it counts as delivered; each is judged by itself. If we
die meanwhile, it is sent again under the same id. Needs the extra `[rabbitmq]`.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError

from penstock.domain import trust
from penstock.domain.effect import DELIVERED, Delivery, Message
from penstock.outlets.dead_letters import headers_of, key_of, later, reference_to, size_of, told
from penstock.outlets.line import CLOSED, Line, Ways
from penstock.outlets.tls import context_of
from penstock.settings import RabbitMq as Settings

_CONNECT_S = 10.0
_FIRST_WAIT_S = 5.0  # for the first connection
_SEND_MAX_S = 20.0  # for a whole batch, well below the relay's lease
_TAKES_LESS = re.compile(r"larger than configured max size (\d+)")
_TOO_SLOW = f"no answer within {_SEND_MAX_S:g} s"


@dataclass(frozen=True, slots=True, eq=False)
class _Open:
    connection: AbstractConnection
    channel: AbstractChannel
    exchange: AbstractExchange


class RabbitMq:
    """The outlet. `why`: what is wrong while the broker is away."""

    name = "rabbitmq"
    at_once = 500

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._max_bytes = settings.message_max_bytes
        self._line = Line(self.name, Ways(self._open, _close, _is_alive))

    @property
    def why(self) -> str | None:
        return self._line.why

    def is_away(self) -> bool:
        """Whether it is known to be; the first look begins to connect, in the background."""
        self._line.begin()
        return self.why is not None

    async def deliver(self, batch: Sequence[Message]) -> list[Delivery]:
        opened = await self._line.get(_FIRST_WAIT_S)
        if opened is None:
            return [later(self.why or "not connected yet")] * len(batch)
        tasks = [asyncio.create_task(self._try(opened, message)) for message in batch]
        try:
            done, late = await asyncio.wait(tasks, timeout=_SEND_MAX_S)
        finally:
            for task in tasks:
                task.cancel()
        why = CLOSED  # which aiormq may tell by a cancellation
        if late:
            why = _TOO_SLOW
            await asyncio.wait(late)
        if late or any(task.cancelled() for task in done):
            self._line.lose(opened, why)
        return [later(why) if task.cancelled() else task.result() for task in tasks]

    async def close(self) -> None:
        await self._line.close()

    async def _try(self, opened: _Open, message: Message) -> Delivery:
        """What comes of one message; raises nothing."""
        try:
            await opened.exchange.publish(
                self._letter(message), message.effect.endpoint, mandatory=True
            )
        except PublishError:
            return later(f"no queue takes the routing key {message.effect.endpoint}: bind one")
        except DeliveryError as error:  # a queue that is full, or of a node that is away
            return later(error)
        except Exception as error:
            self._learn(error)
            self._line.lose(opened, told(error))
            return later(error)
        return DELIVERED

    def _learn(self, error: Exception) -> None:
        """A message that is too large costs the channel, and all that was under way on it: what
        the server takes is learnt of what it says, and a reference is sent the next time."""
        if found := _TAKES_LESS.search(str(error)):
            self._max_bytes = min(self._max_bytes, int(found[1]))

    def _letter(self, message: Message) -> aio_pika.Message:
        headers = headers_of(message)
        body = message.data.encode()
        size = size_of(key_of(message), body, headers)
        if size > self._max_bytes:
            body = reference_to(message, size)
        return aio_pika.Message(
            body,
            headers=dict(headers),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=message.effect.dedupe,
            timestamp=message.effect.at,
            type=message.effect.event,
            app_id="penstock",
        )

    async def fault(self) -> str | None:
        """Connects, logs in and lets go again: what kept us from it, or None."""
        try:
            await (await self._connect()).close()
        except Exception as error:
            return told(error)
        return None

    async def _open(self) -> _Open:
        settings = self._settings
        connection = await self._connect()
        try:
            if not settings.exchange:
                await self._find_queue(connection)
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = channel.default_exchange
            if settings.exchange:
                exchange = await channel.get_exchange(settings.exchange)
        except BaseException:
            await connection.close()
            raise
        return _Open(connection, channel, exchange)

    async def _connect(self) -> AbstractConnection:
        settings = self._settings
        assert settings.url is not None, "settings demand it where the broker is rabbitmq"
        try:
            return await aio_pika.connect(
                settings.url.get_secret_value(),
                timeout=_CONNECT_S,
                ssl_context=context_of(settings.ca_file, settings.cert_file, settings.key_file),
            )
        except Exception as error:
            if fault := trust.fault_of(error):
                text = f"{fault}; see rabbitmq.url, rabbitmq.ca_file and rabbitmq.cert_file"
                raise ConnectionError(text) from error
            raise

    async def _find_queue(self, connection: AbstractConnection) -> None:
        """Makes the queue that the default exchange leads to, durable, unless it is there: as it
        is, it may have other arguments."""
        name = self._settings.routing_key
        channel = await connection.channel()
        try:
            await channel.declare_queue(name, passive=True)
        except ChannelNotFoundEntity:
            channel = await connection.channel()
            await channel.declare_queue(name, durable=True)
        await channel.close()


async def _is_alive(opened: _Open) -> bool:
    return not (opened.connection.is_closed or opened.channel.is_closed)


async def _close(opened: _Open) -> None:
    with suppress(ConnectionError):  # it is lost
        await opened.connection.close()
