"""A line to a broker: opened in the background, opened anew when it is lost.

In: how to open, close and probe a connection. Out: the open connection, or none and why.
Always holds: nobody waits for a broker longer than he wants to; what is lost is closed before a new
one is opened, so what it held in memory is gone.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from penstock.outlets.dead_letters import told
from penstock.telemetry.logs import get_logger

_OPEN_MAX_S = 15.0
_CLOSE_MAX_S = 5.0
_PROBE_S = 5.0
_PAUSE_FIRST_S = 0.2
_PAUSE_MAX_S = 5.0

CLOSED = "the connection was closed"

Connection = TypeVar("Connection")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ways(Generic[Connection]):
    """`is_alive` may take as long as it likes, and raise anything: it is bounded here."""

    open: Callable[[], Awaitable[Connection]]
    close: Callable[[Connection], Awaitable[None]]
    is_alive: Callable[[Connection], Awaitable[bool]]


class Line(Generic[Connection]):
    """`why` says what is wrong while there is no connection; None also before the first use."""

    def __init__(self, broker: str, ways: Ways[Connection]) -> None:
        self._broker = broker
        self._ways = ways
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._opened = asyncio.Event()
        self._lost = asyncio.Event()
        self.why: str | None = None

    def begin(self) -> None:
        """Starts to open it, if nobody has."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"line:{self._broker}")

    async def get(self, wait_s: float) -> Connection | None:
        """The open connection. Waits for the first one only: once it is known to be away, it is
        None at once."""
        self.begin()
        if self._connection is None and self.why is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._opened.wait()
        return self._connection

    def lose(self, connection: Connection, why: str) -> None:
        """This one is of no use any more: the other side is away."""
        if connection is self._connection:
            self._tell(why)
            self.renew(connection)

    def renew(self, connection: Connection) -> None:
        """Another is wanted in its place, though nothing is wrong with the other side."""
        if connection is self._connection:
            self._connection = None
            self._opened.clear()
            self._lost.set()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper, *self._closing])
            self._keeper = None

    async def _keep(self) -> None:
        pause_s = _PAUSE_FIRST_S
        while True:
            connection = await self._try_to_open()
            if connection is None:
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                continue
            pause_s = _PAUSE_FIRST_S
            try:
                await self._watch(connection)
            finally:
                self._connection = None
                self._opened.clear()
                closing = asyncio.create_task(self._shut(connection))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
                await asyncio.shield(closing)

    async def _try_to_open(self) -> Connection | None:
        try:
            async with asyncio.timeout(_OPEN_MAX_S):
                return await self._ways.open()
        except TimeoutError as error:
            self._tell(told(error) if str(error) else f"not open within {_OPEN_MAX_S:g} s")
        except asyncio.CancelledError:
            if _is_to_end():
                raise
            self._tell(CLOSED)
        except Exception as error:
            self._tell(told(error))
        return None

    async def _watch(self, connection: Connection) -> None:
        """Returns when it is lost."""
        self._lost.clear()
        self._connection = connection
        if self.why is not None:
            log.warning("broker_back", broker=self._broker)
        self.why = None
        self._opened.set()
        while not self._lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_S):
                    await self._lost.wait()
            if not self._lost.is_set() and not await self._is_alive(connection):
                self.lose(connection, "it does not answer")

    async def _is_alive(self, connection: Connection) -> bool:
        try:
            async with asyncio.timeout(_OPEN_MAX_S):
                return await self._ways.is_alive(connection)
        except asyncio.CancelledError:
            if _is_to_end():
                raise
            return False
        except Exception:
            return False

    async def _shut(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(_CLOSE_MAX_S):
                await self._ways.close(connection)
        except asyncio.CancelledError:
            if _is_to_end():
                raise
        except Exception as error:
            log.warning("broker_not_closed", broker=self._broker, why=told(error))

    def _tell(self, why: str) -> None:
        if self.why is None:
            log.warning("broker_away", broker=self._broker, why=why)
        self.why = why


def _is_to_end() -> bool:
    """Whether somebody cancels us. A broker's client raises the same where a connection is closed
    under it, which must not end who would open another."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
