"""A lean HTTP/1.1 client: prebuilt requests over raw protocols, one at a time a connection.

A library's client would use more of the cores than the server that shares them with it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import orjson

from tests.bench.figures import BenchError

_END = b"\r\n\r\n"
_LENGTH = b"\r\nContent-Length: "
_CREATED = 201
_CALL_TIMEOUT_S = 30.0


class Owner(Protocol):
    """Whom a link tells of its answers."""

    def answered(self, link: "Link", status: int, body: bytes) -> None: ...
    def lost(self) -> None: ...


class Link(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self.began = 0.0  # perf_counter of when its request was due
        self.began_at = 0.0  # the same by the wall clock, in seconds since 1970
        self._begun = b""  # of an answer
        self._transport: asyncio.Transport

    def send(self, request: bytes) -> None:
        self._transport.write(request)

    def close(self) -> None:
        self.owner = None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent

    def connection_lost(self, _error: Exception | None) -> None:
        if self.owner is not None:
            self.owner.lost()

    def data_received(self, data: bytes) -> None:
        if self._begun:
            data = self._begun + data
        head = data.find(_END)
        at = data.find(_LENGTH, 0, head + 2)
        if head > 0 > at:
            raise BenchError(f"an answer without a length: {data[:head]!r}")
        at += len(_LENGTH)
        start = head + len(_END)
        if head < 0 or len(data) < (end := start + int(data[at : data.find(b"\r", at)])):
            self._begun = data
            return
        self._begun = b""
        status, body = int(data[9:12]), data[start:end]
        if self.owner is not None:
            self.owner.answered(self, status, body)


class _Flow:
    """What all owners share: an end, good or bad."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lost(self) -> None:
        self._fail("the server closed a connection")

    def _fail(self, text: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchError(text))

    def _is_created(self, status: int, body: bytes) -> bool:
        if status != _CREATED:
            self._fail(f"answered {status}: {body[:500]!r}")
        return status == _CREATED


class Flood(_Flow):
    """A closed loop: each link sends its next request as soon as it has its answer."""

    def __init__(self, links: Sequence[Link], requests: Iterator[bytes]) -> None:
        super().__init__()
        self.times_s: list[float] = []
        self._requests = requests
        self._busy = len(links)
        for link in links:
            link.owner = self
            self._next(link)

    def answered(self, link: Link, status: int, body: bytes) -> None:
        if self._is_created(status, body):
            self.times_s.append(time.perf_counter() - link.began)
            self._next(link)

    def _next(self, link: Link) -> None:
        request = next(self._requests, None)
        if request is not None:
            link.began = time.perf_counter()
            link.send(request)
            return
        self._busy -= 1
        if not self._busy and not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True, slots=True)
class Answer:
    """`due_at`: when the request was due, wall clock; `took_s`: from then until its answer."""

    due_at: float
    took_s: float
    body: bytes


class OpenLoop(_Flow):
    """Sends at given instants, whatever the answers do; waiting for a free link counts.

    The links take turns: a server hangs up on one that stays silent.
    """

    def __init__(self, links: Sequence[Link], request: bytes, offsets_s: Sequence[float]) -> None:
        super().__init__()
        self.answers: list[Answer] = []
        self._request = request
        self._count = len(offsets_s)
        self._idle = deque(links)
        self._due: deque[tuple[float, float]] = deque()
        for link in links:
            link.owner = self
        loop = asyncio.get_running_loop()
        now = loop.time()
        for offset_s in offsets_s:
            loop.call_at(now + offset_s, self._fall_due)

    def answered(self, link: Link, status: int, body: bytes) -> None:
        if not self._is_created(status, body):
            return
        took_s = time.perf_counter() - link.began
        self.answers.append(Answer(link.began_at, took_s, body))
        self._idle.append(link)
        self._send()
        if len(self.answers) == self._count and not self.done.done():
            self.done.set_result(None)

    def _fall_due(self) -> None:
        self._due.append((time.perf_counter(), time.time()))
        self._send()

    def _send(self) -> None:
        if self._due and self._idle and not self.done.done():
            link = self._idle.popleft()
            link.began, link.began_at = self._due.popleft()
            link.send(self._request)


class _Call(_Flow):
    """One request, any status."""

    status = 0
    body = b""

    def answered(self, _link: Link, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        self.done.set_result(None)


class Client:
    """Builds requests with one token, opens links, and makes single calls."""

    def __init__(self, url: str, bearer: str) -> None:
        self.url, self.bearer = url, bearer
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._host, self._port = address.hostname, address.port
        self._head = f"Host: {address.netloc}\r\nAuthorization: Bearer {bearer}\r\n"

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """The bytes of a request."""
        content = b"" if body is None else orjson.dumps(body)
        head = f"{method} {path} HTTP/1.1\r\n{self._head}"
        if body is not None:
            head += "Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    @asynccontextmanager
    async def links(self, count: int) -> AsyncIterator[list[Link]]:
        """So many open connections."""
        loop = asyncio.get_running_loop()
        links: list[Link] = []
        try:
            for _ in range(count):
                _, link = await loop.create_connection(Link, self._host, self._port)
                links.append(link)
            yield links
        finally:
            for link in links:
                link.close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded body of an answer, which must be a 2xx."""
        async with self.links(1) as [link]:
            status, answer = await self.ask(link, method, path, body)
        if status // 100 != 2:
            raise BenchError(f"{method} {path} answered {status}: {answer[:500]!r}")
        return orjson.loads(answer)

    async def text(self, path: str) -> str:
        """The body of an answer as it is."""
        async with self.links(1) as [link]:
            _, answer = await self.ask(link, "GET", path)
        return answer.decode()

    async def send(self, link: Link, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a prebuilt request, on a link that rests."""
        link.owner = call = _Call()
        link.send(request)
        await asyncio.wait_for(call.done, _CALL_TIMEOUT_S)
        link.owner = None
        return call.status, call.body

    async def ask(self, link: Link, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of one answer, on a link that rests."""
        return await self.send(link, self.request(method, path, body))
