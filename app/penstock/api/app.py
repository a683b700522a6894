"""The door as a server: listens, and keeps to its limits even where no request comes of it.

In: connections. Out: answers by the porter. We use aiohttp's low-level server: the porter has its
own table of routes, so an `Application` with a second router in it would only cost time (6 us of
31 a request, measured) and answer some errors in its own way. If we die, callers lose their
connections; nothing is kept here.
"""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from penstock.api import problems
from penstock.api.door import Door
from penstock.api.porter import Porter, new_request_id, seal
from penstock.api.problems import Problem
from penstock.domain.errors import PenstockError, WrongSetting
from penstock.telemetry.logs import get_logger

log = get_logger(__name__)


_BACKLOG = 1024
_SHUTDOWN_S = 5.0  # what requests under way get when we stop


class CannotListen(PenstockError):
    """The port is another's."""


@asynccontextmanager
async def serve(
    door: Door, host: str, port: int, *, shutdown_s: float = _SHUTDOWN_S
) -> AsyncIterator[int]:
    """Listens while the context is open; gives the port. Port 0 takes a free one."""
    runner = web.ServerRunner(_Listener(door), shutdown_timeout=shutdown_s)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise _not_listening(error, host, port) from error
        yield site.port
    finally:
        await runner.cleanup()


def _not_listening(error: OSError, host: str, port: int) -> PenstockError:
    way_out = "set http.port (PENSTOCK_HTTP__PORT)"
    match error.errno:
        case errno.EADDRINUSE:
            return CannotListen(f"port {port} of {host} is in use; {way_out} or stop the other one")
        case errno.EACCES | errno.EPERM:
            return WrongSetting(f"port {port} of {host} needs more rights than ours; {way_out}")
        case _:
            return WrongSetting(
                f"http.host is {host!r}, which is no address of this machine: "
                "set PENSTOCK_HTTP__HOST, for example to 127.0.0.1 or 0.0.0.0"
            )


class _Listener(web.Server):
    """Makes a `_Connection` for each connection."""

    def __init__(self, door: Door) -> None:
        super().__init__(Porter(door), handler_cancellation=False)
        self._limits = door.limits

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            head_timeout_s=self._limits.head_timeout_s,
            keepalive_timeout=self._limits.keepalive_s,
            access_log=None,
            auto_decompress=False,  # bodies with an encoding are refused, not unpacked
        )


class _Connection(web.RequestHandler):
    """One connection: hangs up on those who never finish a request, and refuses in our words."""

    __slots__ = ("_head_timeout_s", "_patience")

    def __init__(self, manager: web.Server, *, head_timeout_s: float, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._head_timeout_s = head_timeout_s
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._patience = self._loop.call_later(self._head_timeout_s, self._lose_patience)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # repeats what was sent
    ) -> web.StreamResponse:
        """What is not HTTP (400), and what even the porter did not expect (500)."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, it can't become another one")
        if status < 500:
            problem = Problem("bad-request", "this is not HTTP/1.1, or its headers are too long")
        else:
            log.error("connection_failed", exc_info=exc)
            problem = Problem("internal-error", "this is a fault of ours; it has been logged")
        response = problems.answer(problem)
        seal(response, new_request_id())
        response.force_close()
        return response

    def _lose_patience(self) -> None:
        if self._request_count == 0:
            self.force_close()
