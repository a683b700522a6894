"""A wire between a replica and a server, which a test can cut, hold, or let lose an answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tests.support.ports import free_port

_READY = b"Z\x00\x00\x00\x05"  # how PostgreSQL's answer to one request ends, but for one byte
_HOST = "127.0.0.1"

Asked = Callable[[bytes], bool]


def execute(request: bytes) -> bool:
    """A statement that was prepared before: what is not in a transaction is committed with it."""
    return request.startswith(b"B")


def commit(request: bytes) -> bool:
    return request.startswith(b"Q") and b"COMMIT" in request


@dataclass(slots=True, eq=False)
class _Link:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    loses: bool = False  # the answer to what was asked last won't arrive

    def abort(self) -> None:
        self.near.transport.abort()
        self.far.transport.abort()


class Wire:
    """Connect to `port` instead of the server's."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self.lost = asyncio.Event()  # an answer was lost, as asked for
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._loses: Asked | None = None

    async def mend(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, _HOST, self.port)

    async def cut(self) -> None:
        """As when the server was killed: connections are reset, new ones refused."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for link in list(self._links):
            link.abort()
        await asyncio.sleep(0)

    def hold(self) -> None:
        """As when the server was stopped: what is sent arrives nowhere, until `release`."""
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    def lose_answer(self, asked: Asked = execute) -> None:
        """The next such request is served; its whole answer is lost, and the connection."""
        self._loses = asked
        self.lost.clear()

    async def _serve(self, source: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            answers, far = await asyncio.open_connection(_HOST, self._server_port)
        except OSError:
            near.transport.abort()
            return
        link = _Link(near, far)
        self._links.add(link)
        with suppress(ConnectionError):
            await asyncio.gather(self._ask(source, link), self._answer(answers, link))
        link.abort()
        self._links.discard(link)

    async def _ask(self, source: asyncio.StreamReader, link: _Link) -> None:
        while request := await source.read(1 << 16):
            await self._flows.wait()
            if self._loses is not None and self._loses(request):
                self._loses, link.loses = None, True
            link.far.write(request)
        link.abort()

    async def _answer(self, source: asyncio.StreamReader, link: _Link) -> None:
        end = b""
        while answer := await source.read(1 << 16):
            await self._flows.wait()
            if not link.loses:
                link.near.write(answer)
                continue
            end = (end + answer)[-len(_READY) - 1 :]
            if end.startswith(_READY):
                self.lost.set()
                break
        link.abort()


@asynccontextmanager
async def laid(server_port: int) -> AsyncIterator[Wire]:
    wire = Wire(server_port)
    await wire.mend()
    try:
        yield wire
    finally:
        wire.release()
        await wire.cut()
