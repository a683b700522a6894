"""A line to a broker whose client tells by a cancellation that a connection was closed under it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from penstock.domain.effect import Fate
from penstock.outlets import line
from penstock.outlets.line import Line, Ways
from penstock.outlets.rabbitmq import RabbitMq, _Open
from penstock.settings import RabbitMq as Settings
from tests.outlets.dead_letters import TOPIC, dead_letters, fates
from tests.support.waiting import eventually


class Closing:
    """What is opened, closed and asked: the first calls of each end as aiormq's may."""

    def __init__(self, **cancelled: int) -> None:
        self.left = {"open": 0, "close": 0, "alive": 0, **cancelled}
        self.opened = 0

    def _pass(self, what: str) -> None:
        if self.left[what] > 0:
            self.left[what] -= 1
            raise asyncio.CancelledError

    async def open(self) -> int:
        self._pass("open")
        self.opened += 1
        return self.opened

    async def close(self, _connection: int) -> None:
        self._pass("close")

    async def is_alive(self, _connection: int) -> bool:
        self._pass("alive")
        return True


@asynccontextmanager
async def lined(ways: Closing) -> AsyncIterator[Line[int]]:
    one = Line("broker", Ways(ways.open, ways.close, ways.is_alive))
    try:
        yield one
    finally:
        await one.close()


async def test_a_connection_that_is_closed_while_it_is_opened_is_opened_anew() -> None:
    async with lined(Closing(open=1)) as one:
        assert await one.get(0.05) is None
        assert one.why == line.CLOSED

        async def is_back() -> bool:
            return one.why is None

        await eventually(is_back, "it is open")
        assert await one.get(0) == 1


async def test_a_close_that_is_cut_off_and_a_probe_that_is_end_nothing(monkeypatch: Any) -> None:
    monkeypatch.setattr(line, "_PROBE_S", 0.01)
    async with lined(Closing(close=1, alive=1)) as one:

        async def second() -> bool:
            return await one.get(1) == 2

        await eventually(second, "it is open for the second time")


async def test_who_ends_it_ends_it() -> None:
    async with lined(Closing()) as one:
        assert await one.get(1) == 1
    assert one._connection is None


async def test_messages_whose_connection_is_closed_are_late_and_the_broker_is_away() -> None:
    class Closed:
        async def publish(self, *_: object, **__: object) -> None:
            raise asyncio.CancelledError

    async def opened() -> _Open:
        return _Open(cast(Any, None), cast(Any, None), cast(Any, Closed()))

    async def close(_: _Open) -> None: ...

    async def is_alive(_: _Open) -> bool:
        return True

    outlet = RabbitMq(Settings.model_validate({"url": "amqp://there/", "routing_key": TOPIC}))
    outlet._line = Line("rabbitmq", Ways(opened, close, is_alive))
    told = await outlet.deliver(dead_letters(3))
    assert fates(told) == {Fate.LATER}
    assert {one.error for one in told} == {outlet.why} == {line.CLOSED}
    await outlet.close()
