"""Real receivers on 127.0.0.1: one that answers as told, one that only counts who knocks."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    url: str = ""
    seen: list[Seen] = field(default_factory=list)


@asynccontextmanager
async def receiver(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """An HTTP server that remembers each request and answers with `answer`."""
    here = Receiver()

    async def take(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        here.seen.append(Seen(request.method, request.raw_path, request.headers, body))
        return await answer(request)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        here.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        yield here
    finally:
        await runner.cleanup()


def saying(
    body: str | bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """The same answer for everybody."""

    async def answer(request: web.Request) -> web.StreamResponse:
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=raw, headers=headers)

    return answer


@dataclass
class Canary:
    port: int = 0
    knocks: int = 0


@asynccontextmanager
async def canary(reply: bytes = b"", host: str = "127.0.0.1") -> AsyncIterator[Canary]:
    """A bare TCP listener; sends `reply` to whoever connects, and hangs up."""
    here = Canary()

    async def knock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.knocks += 1
        if reply:
            await reader.read(1)
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(knock, host, 0)
    here.port = server.sockets[0].getsockname()[1]
    async with server:
        yield here
