"""One connection: hangs up on those who keep it without using it, and refuses in our words.

aiohttp closes what is idle. What it lacks is here: a head that is begun must be finished in
time, on later requests too; who doesn't take his answer off, or lets a closed connection linger,
is cut; beyond `connections_max` a newcomer is told whether we live and what we count, else he
gets a 503; beyond the spare ones for that he gets it without being asked what he wants.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Any, cast

from aiohttp import web

from penstock.api import problems
from penstock.api.door import Door
from penstock.api.gate import PLACE, Place, Shut, Traffic
from penstock.api.porter import ANSWER, Porter, new_request_id, seal, stop_reading
from penstock.api.problems import Problem
from penstock.api.shortcut import (
    HEALTH,
    LACKS_MAX,
    SUBMISSIONS,
    Answers,
    Framed,
    framed,
    has_plain_lines,
    written,
)
from penstock.telemetry.logs import get_logger

log = get_logger(__name__)

# aiohttp's 256 KiB would take up to 16,384 chunks at once, which takes it 30 ms; and every body
# that nobody reads yet may lie here twice this long.
_READ_BYTES = 64 * 1024

# Of an answer, in the kernel's buffer, beyond what is on its way: it would take MiBs for each
# connection, which counts nowhere. (Not SO_SNDBUF: that would also bound what is on its way.)
_UNSENT_BYTES = 64 * 1024

SPARE = 64  # connections beyond the limit, for those who watch over us
_SPARE_S = 2.0  # that one of them has to say what it wants, and to take it off
_HEALTH = tuple(HEALTH)
_SHORT = (*SUBMISSIONS, *_HEALTH)
_SPARED = frozenset({"/livez", "/readyz", "/metrics"})


class Listener(web.Server):
    """Makes a `Connection` for each connection. `handler` answers requests."""

    def __init__(self, door: Door, porter: Porter) -> None:
        super().__init__(porter, handler_cancellation=False)
        self.gate = porter.gate
        self.limits = door.limits
        self.answers = Answers(door, new_request_id()[:12])
        self.answered = door.metrics.http_requests
        self.refused = door.metrics.connections_refused
        self.open_count = 0
        self._to_be_told: list[Connection] = []

    def __call__(self) -> web.RequestHandler:
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self.limits.keepalive_s,
            access_log=None,
            read_bufsize=_READ_BYTES,
            auto_decompress=False,  # bodies with an encoding are refused, not unpacked
        )

    def tell_soon(self, connection: "Connection") -> None:
        """Has it tell its answer once all that has come on other connections has been read.

        Told at once, the next request may be there before that: where 1,024 sockets are ready,
        libuv looks again, 47 times, before anybody else has his turn.
        """
        if not self._to_be_told:
            asyncio.get_running_loop().call_soon(self._tell_all)
        self._to_be_told.append(connection)

    def _tell_all(self) -> None:
        connections, self._to_be_told = self._to_be_told, []
        for connection in connections:
            connection.tell()


class Connection(web.RequestHandler):
    """aiohttp's, with limits for those who are slow."""

    __slots__ = (
        *("_body", "_impatience", "_is_spare", "_listener", "_patience", "_wire"),
        *("_lacks", "_place", "_skip", "_untold"),
    )

    def __init__(self, listener: Listener, **settings: Any) -> None:
        super().__init__(listener, **settings)
        self._listener = listener
        self._wire: asyncio.Transport | None = None
        self._is_spare = False
        self._body: Any = None  # of the last request that came
        self._patience: asyncio.TimerHandle | None = None  # with a head that was begun
        self._impatience: asyncio.TimerHandle | None = None  # with an answer that isn't taken off
        self._place: Place | None = None  # of the submission that has just come
        self._lacks = 0  # bytes of the last request that are to come; -1: nobody knows
        self._skip = 0  # bytes of the body of a refused request that are to come
        self._untold = b""  # an answer on the shortcut that is to be told soon

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)  # uvloop's isn't one by name
        self._listener.open_count += 1
        beyond = self._listener.open_count - self._listener.limits.connections_max
        if beyond > SPARE:
            self._turn_away(self._wire)
            return
        self._is_spare = beyond > 0
        super().connection_made(transport)
        _keep_little(self._wire)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire, self._untold = None, b""
        self._listener.open_count -= 1
        self._calm()
        self._forget_head()
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._skip:
            self._skip_body(data)
            return
        if self._untold:
            self.tell()  # answers go out in the order of their requests
        if self._lacks > 0:
            self._lacks = max(self._lacks - len(data), -1)
        elif self._lacks == 0 and data and self._is_dealt_with(data):
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._forget_head()
            if self._messages:
                self._body = self._messages[-1][1]
        elif data and self._patience is None and (self._body is None or self._body.is_eof()):
            self._expect_head()

    def eof_received(self) -> None:
        self.tell()  # before it is closed for that
        super().eof_received()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._hurry()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._calm()

    async def start(self) -> None:
        try:
            await super().start()
        finally:
            self._hurry()  # what is closed is gone when the last answer has been taken off

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: Any
    ) -> tuple[web.StreamResponse, bool]:
        """Answers a request; however that ends, its answer takes no room afterwards."""
        handler = self._answer_spare if self._is_spare else request_handler
        if self._place is not None:
            request[PLACE], self._place = self._place, None
        try:
            response, is_lost = await super()._handle_request(request, start_time, handler)
            if isinstance(response, web.Response):
                response.body = None  # `start` keeps it until the next request
            return response, is_lost
        finally:
            if ANSWER in request:
                request[ANSWER].give_back()
            if PLACE in request:
                request[PLACE].leave()

    def _is_dealt_with(self, data: bytes) -> bool:
        """Whether these bytes, before which a request ended, were answered on the shortcut."""
        request = framed(data)
        if request is None:
            self._lacks = -1
            return False
        self._lacks = request.lacks
        if not (data.startswith(_SHORT) and self._is_at_rest()):
            return False
        if data.startswith(_HEALTH):
            if request.lacks == 0 and has_plain_lines(data):
                self._tell_health(request, data)
                return True
            return False
        traffic = SUBMISSIONS[data[: data.find(b"\n") + 1]]
        if why := self._listener.gate.shut(traffic):
            if request.lacks <= LACKS_MAX and has_plain_lines(data):
                self._refuse(why, request, data)
                return True
        elif request.lacks == 0 and traffic is Traffic.SUBMISSION:
            self._place = self._listener.gate.enter_submission()
        return False

    def _is_at_rest(self) -> bool:
        """Whether aiohttp waits for a request on this connection, and may write at once."""
        waiter = self._waiter
        return (
            waiter is not None
            and not (waiter.done() or self._messages or self._paused or self._is_spare)
            and not (self._close or self._force_close)
        )

    def _refuse(self, why: Shut, request: Framed, data: bytes) -> None:
        """The shortcut: aiohttp never hears of this request."""
        self._skip, self._lacks = request.lacks, 0
        self._answer(self._listener.answers.refusal(why, request.id))
        why.refused.inc()
        path = data[len(b"POST ") : data.find(b" ", len(b"POST "))].decode()  # of SUBMISSIONS
        self._listener.answered(path, "POST", "503").inc()

    def _tell_health(self, request: Framed, data: bytes) -> None:
        status, answer = self._listener.answers.health(data, request.id)
        self._answer(answer)
        path = data[len(b"GET ") : data.find(b" ", len(b"GET "))].decode()  # of HEALTH
        self._listener.answered(path, "GET", str(status)).inc()

    def _answer(self, answer: bytes) -> None:
        assert self._wire is not None
        self._forget_head()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._untold = answer
        self._listener.tell_soon(self)

    def tell(self) -> None:
        """Writes the answer of the shortcut, if it is still to be told."""
        answer, self._untold = self._untold, b""
        if answer and self._wire is not None and not self._wire.is_closing():
            self._wire.write(answer)

    def _skip_body(self, data: bytes) -> None:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        if len(data) > skipped:
            self.data_received(data[skipped:])

    def _leave(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    async def _answer_spare(self, request: web.BaseRequest) -> web.StreamResponse:
        """Beyond the limit: the one answer of this connection."""
        response: web.StreamResponse
        if request.raw_path.partition("?")[0] in _SPARED:
            response = await self._listener.request_handler(request)
        else:
            response = self._too_many()
        response.force_close()
        stop_reading(request)
        return response

    def _too_many(self) -> web.Response:
        self._listener.refused.inc()
        why = "too many connections are open"
        answer = problems.answer(Problem("overloaded", why, headers={"Retry-After": "1"}))
        seal(answer, new_request_id())
        return answer

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

    def _turn_away(self, transport: asyncio.Transport) -> None:
        """A 503 without a look at what is asked; nothing of aiohttp's is set up for it."""
        self._force_close = True  # what comes is ignored
        answer = self._too_many()
        answer.headers["Connection"] = "close"
        transport.write(written(answer))
        transport.close()
        self._hurry()

    def _expect_head(self) -> None:
        self._patience = self._loop.call_later(
            self._at_most(self._listener.limits.head_timeout_s),
            self._lose_patience,
            self._request_count,
        )

    def _forget_head(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self, count: int) -> None:
        """The head that was begun after `count` requests hasn't come."""
        self._patience = None
        if self._request_count != count:
            return
        if self._request_in_progress:  # it may be answered still; the begun head waits behind it
            self.close()
        else:
            self.force_close()

    def _hurry(self) -> None:
        if self._wire is not None and self._impatience is None:
            self._impatience = self._loop.call_later(
                self._at_most(self._listener.limits.body_timeout_s), self._cut
            )

    def _at_most(self, seconds: float) -> float:
        return min(seconds, _SPARE_S) if self._is_spare else seconds

    def _calm(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _cut(self) -> None:
        self._impatience = None
        if self._wire is not None:
            self._wire.abort()


def _keep_little(transport: asyncio.Transport) -> None:
    wire = transport.get_extra_info("socket")
    with suppress(OSError):  # he may be gone already
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
