"""What connections may do, and how those are cut that are slow, many or deaf."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from penstock.api import app, connection
from penstock.api.connection import SPARE
from penstock.api.door import Door, Limits
from tests.api.conftest import Served
from tests.api.wire import Answer, call, close, raw, read_answer
from tests.support.waiting import eventually

LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
DOCS = b"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n"
ID = "01934a5b-0000-7000-8000-000000000000"
HASTY = Limits(head_timeout_s=0.3, body_timeout_s=0.3)

MakeToken = Callable[..., str]


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(3):
        return await reader.read() == b""


async def test_a_later_head_that_never_ends_is_not_waited_for_either(served: Served) -> None:
    async with served(limits=HASTY) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(LIVEZ)
            assert (await read_answer(reader)).status == 200
        writer.write(b"GET /livez HTTP/1.1\r\nhost: ")
        assert await is_closed(reader)
        await close(writer)


async def test_a_head_that_comes_byte_by_byte_has_the_same_time(served: Served) -> None:
    async with served(limits=HASTY) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LIVEZ)
        await read_answer(reader)
        closed = asyncio.create_task(is_closed(reader))
        for byte in b"GET /livez HTTP/1.1\r\nx: " + b"y" * 100:
            with suppress(ConnectionError):
                writer.write(bytes([byte]))
                await writer.drain()
            await asyncio.wait([closed], timeout=0.05)
            if closed.done():
                break
        assert await closed
        await close(writer)


async def test_a_slow_head_that_ends_in_time_is_served(served: Served) -> None:
    async with served(limits=Limits(head_timeout_s=2)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            for part in (LIVEZ[:10], LIVEZ[10:30], LIVEZ[30:]):
                writer.write(part)
                await asyncio.sleep(0.05)
            assert (await read_answer(reader)).status == 200
        await close(writer)


class Held:
    """Reads of jobs that wait until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def job(self, _id: bytes) -> None:
        await self.go.wait()


async def test_who_begins_a_head_while_he_waits_for_an_answer_still_gets_it(
    served: Served, token: MakeToken
) -> None:
    held = Held()
    head = f"GET /v1/jobs/{ID} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n\r\n"
    async with served(limits=HASTY, reads=cast(Any, held)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode())
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(b"GET /livez HT")
        await asyncio.sleep(0.5)
        held.go.set()
        assert (await read_answer(reader)).status == 404
        assert await is_closed(reader)
        await close(writer)


@asynccontextmanager
async def kept(port: int, count: int) -> AsyncIterator[None]:
    """So many connections that have asked something and stay."""
    inside = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for reader, writer in inside:
        writer.write(LIVEZ)
        assert (await read_answer(reader)).status == 200
    try:
        yield
    finally:
        for _, writer in inside:
            await close(writer)


async def eventually_let_in(port: int) -> None:
    async def is_let_in() -> bool:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            return (await raw(port, DOCS)).status == 200
        return False

    await eventually(is_let_in, "those that left make room")


def refused_count(door: Door) -> float | None:
    return door.metrics.registry.get_sample_value("penstock_connections_refused_total")


def check_told(answer: Answer) -> None:
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"] == "/problems/overloaded"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "sent",
    [
        DOCS,
        b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /livez/ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
        b"not HTTP at all\r\n\r\n",
    ],
)
async def test_beyond_the_limit_a_newcomer_is_told_so_and_closed(
    served: Served, door: Door, sent: bytes
) -> None:
    async with served(limits=Limits(connections_max=3)) as port:
        async with kept(port, 3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            check_told(await read_answer(reader))
            assert await is_closed(reader)
            await close(writer)
            assert refused_count(door) == 1
        await eventually_let_in(port)


@pytest.mark.parametrize("path", ["/livez", "/readyz?x=1", "/metrics"])
async def test_beyond_the_limit_those_who_watch_get_one_answer(
    served: Served, door: Door, path: str
) -> None:
    asked = f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    async with served(limits=Limits(connections_max=3)) as port, kept(port, 3):
        for _ in range(SPARE + 1):  # one after the other: each makes room for the next
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked + asked)
            answer = await read_answer(reader)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await is_closed(reader)
            await close(writer)
    assert refused_count(door) == 0


async def test_who_keeps_a_spare_connection_without_asking_is_closed_soon(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SPARE_S", 0.2)
    limits = Limits(connections_max=3, head_timeout_s=60)
    async with served(limits=limits) as port, kept(port, 3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_closed(reader)
        await close(writer)


async def test_when_the_spare_connections_are_in_use_too_a_newcomer_is_told_unasked(
    served: Served, door: Door
) -> None:
    async with served(limits=Limits(connections_max=3)) as port, kept(port, 3):
        spare = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SPARE)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        check_told(await read_answer(reader))
        assert await is_closed(reader)
        await close(writer)
        assert refused_count(door) == 1
        spare[0][1].write(LIVEZ)
        assert (await read_answer(spare[0][0])).status == 200
        for _, one in spare:
            await close(one)


async def test_who_does_not_take_his_answers_off_is_cut(served: Served) -> None:
    async with served(limits=HASTY) as port:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        _, writer = await asyncio.open_connection(sock=sock, limit=1)  # stops to read soon
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 3000)

        async def is_cut() -> bool:
            writer.write(b"G")
            return writer.transport.is_closing()

        await eventually(is_cut, "the deaf client is cut", within_s=20)


async def test_after_a_408_nobody_waits_for_the_rest_of_the_body(
    served: Served, token: MakeToken
) -> None:
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    async with served(limits=HASTY) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode())
        answer = await read_answer(reader)
        assert answer.status == 408
        assert await is_closed(reader)  # aiohttp would linger for ten seconds
        await close(writer)


@pytest.mark.parametrize(
    "coding", ["gzip, chunked", "gzip,chunked", "identity, chunked", "chunked, chunked"]
)
@pytest.mark.parametrize("line", ["POST /v1/jobs", "GET /livez"])
async def test_a_coding_besides_chunked_is_refused_and_the_connection_closed(
    served: Served, token: MakeToken, line: str, coding: str
) -> None:
    sent = (
        f"{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
        f"content-type: application/json\r\ntransfer-encoding: {coding}\r\n\r\n"
        "2\r\n{}\r\n0\r\n\r\n"
    )
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent.encode() + LIVEZ)
        answer = await read_answer(reader)
        assert (answer.status, answer.json()["type"]) == (400, "/problems/bad-request")
        assert await is_closed(reader)
        await close(writer)


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/3.0", ""])
async def test_another_version_of_http_is_400_and_not_answered_in_kind(
    served: Served, version: str
) -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /livez {version}".rstrip().encode() + b"\r\nhost: x\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
        await close(writer)


@pytest.mark.parametrize("method", ["PROPFIND", "PURGE", "LINK", "SEARCH", "CONNECT"])
async def test_a_method_of_others_is_405_with_those_that_are(served: Served, method: str) -> None:
    async with served() as port:
        answer = await call(port, method, "/v1/jobs/batch")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("line", ["FOO /v1/jobs", "get /livez", "CONNECT x:1"])
async def test_what_no_parser_knows_as_a_method_is_400(served: Served, line: str) -> None:
    """aiohttp's parser refuses it before it has read the path."""
    async with served() as port:
        answer = await raw(port, f"{line} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert answer.status == 400


async def test_an_upgrade_is_passed_over(served: Served) -> None:
    async with served() as port:
        answer = await call(port, "GET", "/livez", upgrade="websocket", connection="upgrade")
        assert answer.status == 200


@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "raised_to"),
    [
        (1024, 4096, 2000, 2768),
        (1024, -1, 2000, 2768),
        (1024, 1024, 512, 1024),
        (256, 1024, 512, 1024),
        (256, 256, 128, 256),
        (4096, 4096, 2000, 4096),
        (-1, -1, 2000, -1),
    ],
)  # fmt: skip
def test_no_more_are_let_in_than_there_can_be_open_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: int, raised_to: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, new: limits.append(new))
    assert app._connections_max(2000) == allowed
    assert limits[-1] == (raised_to, hard)
