"""Dead letters in RabbitMQ: against a RabbitMQ, where this machine has one."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from penstock.domain.effect import Delivery, Fate
from penstock.outlets.rabbitmq import RabbitMq
from penstock.settings import RabbitMq as Settings
from tests.outlets.dead_letters import TOPIC, TRACE, dead_letter, dead_letters, fates
from tests.support.authority import Authority, terminator
from tests.support.rabbitmq import PROGRAM, RabbitServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(),
    reason="RabbitMQ comes in no wheel; on Debian: apt-get install rabbitmq-server",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    with RabbitServer(tmp_path_factory.mktemp("rabbit")) as one:
        yield one


@pytest.fixture
async def settings(server: RabbitServer) -> Settings:
    """No queue of an earlier test is left."""
    connection = await aio_pika.connect(server.url)
    async with connection:
        await (await connection.channel()).queue_delete(TOPIC)
    return Settings.model_validate({"url": server.url, "routing_key": TOPIC})


@pytest.fixture
async def outlet(settings: Settings) -> AsyncIterator[RabbitMq]:
    one = RabbitMq(settings)
    yield one
    await one.close()


async def test_a_dead_letter_lasts_and_carries_its_id(
    outlet: RabbitMq, server: RabbitServer
) -> None:
    sent = dead_letter(7)
    assert await outlet.deliver([sent]) == [Delivery(Fate.DELIVERED)]
    (got,) = await taken(server, 1)
    id_ = "00000000-0000-0000-0000-000000000007"
    assert got.body == sent.data.encode()
    assert got.message_id == f"{id_}:3" == got.headers["ce_id"]
    assert got.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert got.content_type == "application/json"
    assert got.type == "penstock.job.dead.v1" == got.headers["ce_type"]
    assert got.headers["traceparent"] == TRACE


async def test_a_batch_of_500_arrives_whole(outlet: RabbitMq, server: RabbitServer) -> None:
    assert fates(await outlet.deliver(dead_letters(500, "y" * 2000))) == {Fate.DELIVERED}
    assert len({one.message_id for one in await taken(server, 500)}) == 500


async def test_what_is_too_large_goes_as_a_reference(
    settings: Settings, server: RabbitServer
) -> None:
    outlet = RabbitMq(settings.model_copy(update={"message_max_bytes": 20_000}))
    await outlet.deliver([dead_letter(1, "z" * 30_000)])
    await outlet.close()
    (got,) = await taken(server, 1)
    assert b'"reference"' in got.body
    assert len(got.body) < 5000


async def test_what_no_queue_takes_is_tried_again(settings: Settings, server: RabbitServer) -> None:
    outlet = RabbitMq(settings.model_copy(update={"exchange": "amq.topic"}))
    (refused,) = await outlet.deliver([dead_letter(1)])
    assert refused.fate is Fate.LATER
    assert "no queue takes" in str(refused.error)
    assert outlet.why is None
    connection = await aio_pika.connect(server.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("amq.topic", TOPIC)
        assert fates(await outlet.deliver(dead_letters(3))) == {Fate.DELIVERED}
    await outlet.close()


async def test_a_server_that_is_killed_is_missed_and_found_again(tmp_path: Path) -> None:
    server = RabbitServer(tmp_path)
    with server:
        outlet = RabbitMq(Settings.model_validate({"url": server.url, "routing_key": TOPIC}))
        assert fates(await outlet.deliver(dead_letters(3))) == {Fate.DELIVERED}
        await eventually(lambda: _remembers(server), "the queue is on the disk", 30)
        server.kill()
        assert fates(await outlet.deliver(dead_letters(3))) == {Fate.LATER}
        assert outlet.is_away()
        began = time.monotonic()
        assert fates(await outlet.deliver(dead_letters(500))) == {Fate.LATER}
        assert time.monotonic() - began < 3  # the first connection is waited for 5 s
        server.start()
        await eventually(lambda: _is_back(outlet), "the outlet comes back by itself", 30)
        assert fates(await outlet.deliver(dead_letters(3))) == {Fate.DELIVERED}
        await outlet.close()
        assert len(await taken(server, 6)) == 6


async def test_a_server_that_takes_less_than_we_were_told_blocks_nobody(tmp_path: Path) -> None:
    with RabbitServer(tmp_path, message_max_bytes=20_000) as server:
        outlet = RabbitMq(Settings.model_validate({"url": server.url, "routing_key": TOPIC}))
        letters = [dead_letter(1), dead_letter(2, "z" * 30_000), dead_letter(3)]
        assert Fate.LATER in fates(await outlet.deliver(letters))
        await eventually(lambda: _is_back(outlet), "the outlet comes back by itself", 30)
        assert fates(await outlet.deliver(letters)) == {Fate.DELIVERED}
        await outlet.close()


async def taken(server: RabbitServer, count: int) -> list[AbstractIncomingMessage]:
    """The messages of the queue, which must be exactly so many."""
    connection = await aio_pika.connect(server.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(TOPIC, durable=True)
        got = [await queue.get(no_ack=True) for _ in range(count)]
        assert await queue.get(no_ack=True, fail=False) is None
        return got


async def _remembers(server: RabbitServer) -> bool:
    return server.remembers(TOPIC)


async def _is_back(outlet: RabbitMq) -> bool:
    return not outlet.is_away()


async def test_a_doctor_is_let_in_by_tls_or_told_why_not(
    server: RabbitServer, tmp_path: Path
) -> None:
    ours = Authority(tmp_path)
    async with terminator(server.port, ours.serving(ours.issued("server"))) as port:
        safe = {"url": f"amqps://guest:guest@127.0.0.1:{port}/", "ca_file": ours.ca_file}
        assert await RabbitMq(Settings.model_validate(safe)).fault() is None
        wrong = safe | {"url": safe["url"].replace(":guest", ":hush")}
        fault = str(await RabbitMq(Settings.model_validate(wrong)).fault())
    assert "refused" in fault.lower(), fault
    assert "hush" not in fault
