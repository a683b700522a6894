"""The fault proxy, held against a real Redis and a real PostgreSQL."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from tests.support import proxy as faults
from tests.support.ports import free_port
from tests.support.proxy import HOST, PASS, STALL, Fault, Proxies, Proxy
from tests.support.servers import Servers
from tests.support.waiting import eventually
from tests.support.wire import commit, execute

_SOON_S = 5.0
_SILENCE_S = 0.2  # so long nothing comes


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with Proxies() as all_of_them:
        yield all_of_them


@pytest.fixture
def redis_proxy(proxies: Proxies, servers: Servers) -> Proxy:
    return proxies.to(servers.redis.port)


@pytest.fixture
def postgres_proxy(proxies: Proxies, servers: Servers) -> Proxy:
    return proxies.to(servers.postgres.port)


class Caller:
    """A connection on which Redis refuses each call in 33 bytes: it wants a password first."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self) -> None:
        self.writer.write(b"PING\r\n")

    async def answer(self, within_s: float = _SOON_S) -> bytes:
        async with asyncio.timeout(within_s):
            return await self.reader.readexactly(len(_REFUSAL))

    async def is_silent(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.readexactly(1), _SILENCE_S)
        except TimeoutError:
            return True
        return False

    async def is_reset(self, within_s: float = _SOON_S) -> bool:
        """Whether it ends by a reset, after whatever bytes."""
        async with asyncio.timeout(within_s):
            try:
                while await self.reader.read(100):
                    pass
            except ConnectionResetError:
                return True
        return False


_REFUSAL = b"-NOAUTH Authentication required.\r\n"


@asynccontextmanager
async def calling(proxy: Proxy) -> AsyncIterator[Caller]:
    caller = Caller(*await asyncio.open_connection(HOST, proxy.port))
    try:
        yield caller
    finally:
        caller.writer.transport.abort()
        with suppress(OSError):
            await caller.writer.wait_closed()


async def test_without_a_fault_calls_pass_and_their_connections_end(redis_proxy: Proxy) -> None:
    async with calling(redis_proxy) as caller:
        for _ in range(3):
            caller.ask()
            assert await caller.answer() == _REFUSAL
        assert redis_proxy.connections == 1
        caller.writer.write(b"QUIT\r\n")
        assert not await caller.is_reset(), "the server's end is passed on in good order"
    await connections(redis_proxy, 0)


async def test_many_bytes_pass_whole_and_in_order(postgres_proxy: Proxy, dsn: str) -> None:
    con = await asyncpg.connect(through(postgres_proxy, dsn))
    sent = "".join(random.choices("abcdefgh", k=5_000_000))
    assert await con.fetchval("SELECT $1::text", sent) == sent
    await con.close()
    await connections(postgres_proxy, 0)


async def test_a_black_hole_swallows_and_its_connections_are_reset_when_it_ends(
    redis_proxy: Proxy,
) -> None:
    async with calling(redis_proxy) as caller, calling(redis_proxy) as other:
        other.ask()
        await other.answer()
        redis_proxy.apply(faults.BLACK_HOLE)
        caller.ask()
        assert await caller.is_silent()
        async with calling(redis_proxy) as late:
            late.ask()
            assert await late.is_silent()
            redis_proxy.apply(PASS)
            assert await late.is_reset()
        assert await caller.is_reset()
        other.ask()
        assert await other.answer() == _REFUSAL, "a connection that lost nothing goes on"


async def test_what_a_stall_held_arrives_when_it_ends(redis_proxy: Proxy) -> None:
    async with calling(redis_proxy) as caller:
        redis_proxy.apply(STALL)
        caller.ask()
        async with calling(redis_proxy) as late:
            late.ask()
            assert await late.is_silent()
            assert await caller.is_silent()
            redis_proxy.apply(PASS)
            assert await caller.answer() == _REFUSAL
            assert await late.answer() == _REFUSAL


async def test_a_stall_makes_the_sender_of_much_wait(proxies: Proxies) -> None:
    got, ended = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        while data := await reader.read(1 << 16):
            got += len(data)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        proxy = proxies.to(server.sockets[0].getsockname()[1])
        async with calling(proxy) as caller:
            proxy.apply(STALL)
            caller.writer.write(bytes(50 << 20))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(caller.writer.drain(), 0.5)
            proxy.apply(PASS)
            await caller.writer.drain()

            async def all_came() -> bool:
                return got == 50 << 20

            await eventually(all_came, "all of it came")
            caller.writer.close()
            await ended.wait()


async def test_a_refused_connection_is_refused_and_those_that_stand_go_on(
    redis_proxy: Proxy,
) -> None:
    async with calling(redis_proxy) as caller:
        caller.ask()
        await caller.answer()
        redis_proxy.apply(faults.REFUSE)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, redis_proxy.port)
        caller.ask()
        assert await caller.answer() == _REFUSAL
        redis_proxy.apply(PASS)
        async with calling(redis_proxy) as late:
            late.ask()
            assert await late.answer() == _REFUSAL


async def test_a_reset_ends_those_that_stand_and_while_it_holds_new_ones_too(
    redis_proxy: Proxy,
) -> None:
    async with calling(redis_proxy) as caller:
        caller.ask()
        await caller.answer()
        redis_proxy.reset()
        assert await caller.is_reset()
    redis_proxy.apply(faults.RESET)
    assert await is_reset_at_once(redis_proxy)
    redis_proxy.apply(PASS)
    async with calling(redis_proxy) as caller:
        caller.ask()
        assert await caller.answer() == _REFUSAL


async def test_one_way_requests_are_served_and_their_answers_are_lost(
    postgres_proxy: Proxy, dsn: str
) -> None:
    direct = await asyncpg.connect(dsn)
    await direct.execute("CREATE TABLE told (n integer)")
    con = await asyncpg.connect(through(postgres_proxy, dsn))
    postgres_proxy.apply(Fault(lost=frozenset({"down"})))
    telling = asyncio.create_task(con.execute("INSERT INTO told VALUES (1)"))

    async def is_stored() -> bool:
        return bool(await direct.fetchval("SELECT count(*) FROM told"))

    await eventually(is_stored, "it was stored")
    assert not telling.done()
    postgres_proxy.apply(PASS)
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await telling
    await direct.close()


async def test_latency_and_rate_delay_what_passes_and_keep_its_order(redis_proxy: Proxy) -> None:
    async with calling(redis_proxy) as caller:
        caller.ask()
        await caller.answer()
        redis_proxy.apply(Fault(latency_s=0.1, jitter_s=0.05))
        began = time.monotonic()
        caller.ask()
        assert await caller.answer() == _REFUSAL
        assert 0.1 <= time.monotonic() - began < 2, "two ways of 0.05 s at least"
        redis_proxy.apply(Fault(bytes_per_s=200))
        began = time.monotonic()
        for _ in range(2):
            caller.ask()
        for _ in range(2):
            assert await caller.answer() == _REFUSAL
        assert time.monotonic() - began >= 2 * len(_REFUSAL) / 200


async def test_a_connection_is_cut_after_so_many_bytes_of_answers(redis_proxy: Proxy) -> None:
    async with calling(redis_proxy) as caller:
        caller.ask()
        await caller.answer()
        redis_proxy.apply(Fault(cut_after=len(_REFUSAL) + 5))
        caller.ask()
        assert await caller.answer() == _REFUSAL
        caller.ask()
        assert await caller.is_reset()


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_statement_is_committed_whose_answer_was_cut(
    postgres_proxy: Proxy, dsn: str, in_transaction: bool
) -> None:
    direct = await asyncpg.connect(dsn)
    await direct.execute("CREATE TABLE told (n integer)")
    con = await asyncpg.connect(through(postgres_proxy, dsn))
    insert = await con.prepare("INSERT INTO told VALUES ($1)")
    await insert.fetch(1)
    postgres_proxy.apply(Fault(loses_answer=commit if in_transaction else execute))
    transaction = con.transaction()
    if in_transaction:
        await transaction.start()
        await insert.fetch(2)
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await (transaction.commit() if in_transaction else insert.fetch(2))
    assert postgres_proxy.answers_lost == 1
    assert await direct.fetchval("SELECT array_agg(n ORDER BY n) FROM told") == [1, 2]
    await direct.close()


async def test_only_a_share_of_answers_is_cut(redis_proxy: Proxy) -> None:
    any_of_half = faults.sometimes(lambda _: True, 0.5, random.Random(1))
    redis_proxy.apply(Fault(loses_answer=any_of_half))
    cut = 0
    for _ in range(40):
        async with calling(redis_proxy) as caller:
            caller.ask()
            cut += not await heard(caller)
    assert cut == redis_proxy.answers_lost
    assert 10 <= cut <= 30


async def test_a_proxy_of_a_dead_server_resets_its_clients(proxies: Proxies) -> None:
    assert await is_reset_at_once(proxies.to(free_port()))


async def test_healing_ends_the_faults_of_all(proxies: Proxies, servers: Servers) -> None:
    both = [proxies.to(servers.redis.port), proxies.to(servers.redis.port)]
    for proxy in both:
        proxy.apply(faults.KILLED)
    proxies.heal()
    for proxy in both:
        async with calling(proxy) as caller:
            caller.ask()
            assert await caller.answer() == _REFUSAL


async def is_reset_at_once(proxy: Proxy) -> bool:
    try:
        async with calling(proxy) as caller:
            return await caller.is_reset()
    except ConnectionResetError:  # before we knew that we were connected
        return True


async def heard(caller: Caller) -> bool:
    try:
        return await caller.answer() == _REFUSAL
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return False


def through(proxy: Proxy, dsn: str) -> str:
    return dsn.replace(f":{proxy.server_port}/", f":{proxy.port}/")


async def connections(proxy: Proxy, count: int) -> None:
    async def look() -> bool:
        return proxy.connections == count

    await eventually(look, f"{count} connections")
