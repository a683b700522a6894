"""A TCP proxy that does to connections what networks do; one stands between a client and a server.

`Proxies` keeps all of them in an event loop of a thread of its own, so that what passes isn't
delayed by a busy test. A fault holds from the moment at which `apply` returns until the next one;
what it did to bytes stays done: a connection that lost some is reset when its fault ends, for a
stream can't go on with a hole in it.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar, cast

from tests.support.ports import free_port
from tests.support.wire import Asked

HOST = "127.0.0.1"
_HELD_MAX = 1 << 20  # bytes kept for one way of a connection; then its sender has to wait
_QUIET_S = 0.02  # after so much silence an answer is taken to be whole
_CALL_S = 10.0
_RESET = struct.pack("ii", 1, 0)

T = TypeVar("T")
Way = Literal["up", "down"]  # up: from the client to the server
BOTH: frozenset[Way] = frozenset({"up", "down"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What a proxy does to its connections; several of these may hold at once.

    `lost`: ways on which bytes, and the ends of connections, vanish. `held`: ways on which they
    wait for the end of the fault. `cut_after`: bytes of answers after which a connection is reset,
    amid a message or not. `loses_answer`: requests that are served, and whose answer is lost
    together with the connection.
    """

    lost: frozenset[Way] = frozenset()
    held: frozenset[Way] = frozenset()
    refuses: bool = False  # new connections; those that stand are left alone
    resets: bool = False  # those that stand at once, new ones as soon as they are made
    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    cut_after: int | None = None
    loses_answer: Asked | None = None

    @property
    def reaches_server(self) -> bool:
        """Whether a new connection gets through to the server."""
        return "up" not in self.lost | self.held


PASS = Fault()
BLACK_HOLE = Fault(lost=BOTH)
STALL = Fault(held=BOTH)
REFUSE = Fault(refuses=True)
RESET = Fault(resets=True)
KILLED = Fault(refuses=True, resets=True)  # as when the server's process was killed


class Proxies:
    """The thread and its loop; `to` adds a proxy. Closing it resets all connections."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._all: list[Proxy] = []

        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()

    def to(self, server_port: int) -> "Proxy":
        """A proxy in front of what listens at this port of the loopback."""
        proxy = Proxy(self, server_port)
        proxy.apply(PASS)
        self._all.append(proxy)
        return proxy

    def heal(self) -> None:
        """Ends all faults."""
        for proxy in self._all:
            proxy.apply(PASS)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives or raises, done in the proxies' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)

    async def _close(self) -> None:
        for proxy in self._all:
            await proxy.close()
        await asyncio.sleep(0)  # transports tell of their end in the next turn


class Proxy:
    """Connect to `port` instead of the server's. `apply` may be called from any thread."""

    def __init__(self, home: Proxies, server_port: int) -> None:
        self.port = free_port()
        self.server_port = server_port
        self.fault = PASS
        self.answers_lost = 0  # by `loses_answer`
        self._home = home
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    def apply(self, fault: Fault) -> None:
        """From now on this holds, and nothing of what held before."""
        self._home.call(self._apply(fault))

    def reset(self) -> None:
        """Resets the connections that stand, once."""
        before = self.fault
        self.apply(RESET)
        self.apply(before)

    async def close(self) -> None:
        """For good; in the proxies' loop."""
        await self._apply(KILLED)
        await asyncio.gather(*(link.ended.wait() for link in set(self._links)))

    async def _apply(self, fault: Fault) -> None:
        self.fault = fault
        await self._listen_or_not()
        for link in list(self._links):
            link.heed(fault)

    async def _listen_or_not(self) -> None:
        if self.fault.refuses and self._listener is not None:
            self._listener.close()
            self._listener = None
        elif not self.fault.refuses and self._listener is None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._linked, HOST, self.port, backlog=1024)

    def _linked(self) -> "_End":
        link = _Link(self)
        self._links.add(link)
        return link.near

    def unlinked(self, link: "_Link") -> None:
        self._links.discard(link)


class _Link:
    """A client's connection, and ours to the server on its behalf."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.up, self.down = _Pipe(self, "up"), _Pipe(self, "down")
        self.near, self.far = _End(self, self.up, self.down), _End(self, self.down, self.up)
        self.has_hole = False  # bytes of it were lost
        self.loses_answer = False  # to the request that was passed on last
        self.passed = 0  # bytes of answers since the fault began
        self.ended = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._quiet: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """The client is there."""
        self.heed(self.proxy.fault)

    def heed(self, fault: Fault) -> None:
        """A fault begins or ends."""
        self.passed = 0
        if fault.resets or (self.has_hole and not fault.lost):
            self.reset()
            return
        if fault.reaches_server and self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        self.up.flow()
        self.down.flow()

    def reset(self) -> None:
        """Ends both connections so that both sides get a reset."""
        for end in (self.near, self.far):
            end.reset()
        self._check_ended()

    def close(self) -> None:
        """Ends both connections in good order."""
        for end in (self.near, self.far):
            end.close()
        self._check_ended()

    def gone(self, end: "_End") -> None:
        """One of the connections has ended; the other learns of it like of any byte."""
        end.sends.feed(b"")
        self._check_ended()

    def lose_answer(self) -> None:
        """Some of the answer that is to be lost has come; when it is whole, all is over."""
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(_QUIET_S, self._lost_answer)

    def _lost_answer(self) -> None:
        self.proxy.answers_lost += 1
        self.reset()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.far, HOST, self.proxy.server_port)
        except OSError:
            self.reset()

    def _check_ended(self) -> None:
        if self.near.transport is None and self.far.transport is None:
            if self._connecting is not None:
                self._connecting.cancel()
            if self._quiet is not None:
                self._quiet.cancel()
            self.up.stop()
            self.down.stop()
            self.proxy.unlinked(self)
            self.ended.set()


class _End(asyncio.Protocol):
    """One of a link's two connections: `sends` takes what comes from it, `gets` brings to it."""

    def __init__(self, link: _Link, sends: "_Pipe", gets: "_Pipe") -> None:
        self.transport: asyncio.Transport | None = None
        self.sends, self.gets = sends, gets
        self._link = link
        sends.source, gets.sink = self, self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self is self._link.near:
            self._link.opened()
        elif self._link.near.transport is None:
            self.reset()  # the client has gone meanwhile
        else:
            self.gets.flow()

    def data_received(self, data: bytes) -> None:
        self.sends.feed(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None
        self._link.gone(self)

    def pause_writing(self) -> None:
        self.gets.is_full = True
        self.gets.throttle()

    def resume_writing(self) -> None:
        self.gets.is_full = False
        self.gets.throttle()

    def reset(self) -> None:
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class _Pipe:
    """One way of a link: what came and wasn't passed on yet. `b""` is the end of it."""

    def __init__(self, link: _Link, way: Way) -> None:
        self.source: _End
        self.sink: _End
        self.is_full = False  # the sink can take no more
        self._link = link
        self._way = way
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        fault = self._link.proxy.fault
        if self._way in fault.lost:
            self._link.has_hole = True
            return
        self._waiting.append((self._due(fault, len(data)), data))
        self._bytes += len(data)
        self.throttle()
        self.flow()

    def flow(self) -> None:
        """Passes on what is due."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self._way not in self._link.proxy.fault.held:
            at, data = self._waiting[0]
            if self.sink.transport is None and not self._leads_nowhere():
                return
            if at > now:
                self._wake_at(at)
                return
            self._waiting.popleft()
            self._bytes -= len(data)
            self._pass(data)
        self.throttle()

    def throttle(self) -> None:
        """Keeps the source from sending while too much waits here."""
        transport = self.source.transport
        if transport is None or transport.is_closing():
            return
        if self.is_full or self._bytes > _HELD_MAX:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()

    def _leads_nowhere(self) -> bool:
        """Whether the sink has gone, rather than not come yet."""
        return self.sink is self._link.near or self._link.near.transport is None

    def _due(self, fault: Fault, size: int) -> float:
        now = asyncio.get_running_loop().time()
        late_s = max(fault.latency_s + random.uniform(-1, 1) * fault.jitter_s, 0.0)
        self._last_due = max(now + late_s, self._last_due)
        if fault.bytes_per_s is not None:
            self._last_due += size / fault.bytes_per_s
        return self._last_due

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at, self.flow)

    def _pass(self, data: bytes) -> None:
        link, transport = self._link, self.sink.transport
        if not data:
            link.close()
        elif transport is None:
            return
        elif self._way == "up":
            asked = link.proxy.fault.loses_answer
            link.loses_answer = link.loses_answer or (asked is not None and asked(data))
            transport.write(data)
        elif link.loses_answer:
            link.lose_answer()
        else:
            transport.write(data[: self._room(len(data))])

    def _room(self, size: int) -> int:
        """How many bytes of an answer may still pass; resets the link after the last of them."""
        cut_after = self._link.proxy.fault.cut_after
        if cut_after is None:
            return size
        room = max(cut_after - self._link.passed, 0)
        self._link.passed += size
        if self._link.passed >= cut_after:
            asyncio.get_running_loop().call_soon(self._link.reset)
        return min(room, size)


def sometimes(asked: Asked, share: float, chance: random.Random) -> Asked:
    """Only that share of the requests that `asked` means."""
    return lambda request: asked(request) and chance.random() < share
