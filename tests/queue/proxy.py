"""A TCP server between us and Redis that may lose an answer, and counts what passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.ports import free_port

_HOST = "127.0.0.1"


class Proxy:
    """`answers`: "pass", "hang up" (the answer is lost with the connection) or "swallow"."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._redis_port = parts.port
        self.port = free_port()
        self.url = url.replace(f":{parts.port}/", f":{self.port}/")
        self.answers = "pass"
        self.asked: list[bytes] = []
        self.has_asked = asyncio.Event()
        self._links: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []

    def sent(self, word: bytes) -> int:
        """How often a command was sent."""
        return sum(request.count(b"\r\n%b\r\n" % word) for request in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, redis = await asyncio.open_connection(_HOST, self._redis_port)
        self._links.append((writer, redis))
        back = asyncio.create_task(self._back(answers, writer))
        with suppress(ConnectionError):
            while request := await reader.read(1 << 16):
                self.asked.append(request)
                self.has_asked.set()
                redis.write(request)
        redis.close()
        await back

    async def _back(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer := await answers.read(1 << 16):
            if self.answers == "hang up":
                break
            if self.answers == "pass":
                writer.write(answer)
        writer.transport.abort()

    async def close(self) -> None:
        for link in self._links:
            for writer in link:
                writer.transport.abort()
                with suppress(ConnectionError):
                    await writer.wait_closed()


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    server = await asyncio.start_server(proxy.serve, _HOST, proxy.port)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
