"""Whether Postgres answers at the moment, so that callers hear within a second that it doesn't.

A ping on a connection of its own tells an outage from a slow statement: the ping stays quick
under load. While Postgres is down, callers are refused at once; those who already wait for it are
released when it goes down, without knowing what became of their statement.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg

from penstock import clock
from penstock.domain.errors import StoreUnavailable
from penstock.store.postgres import Limits, connect_options, translated
from penstock.telemetry.logs import get_logger

_PING_S = 0.3
_ANSWER_S = 0.3
_LATE_S = 0.15  # a time-out that rings so late tells of our own loop, not of Postgres,
_HELD_TIMES_MAX = 2  # but not for ever

log = get_logger(__name__)


class Health:
    def __init__(self, dsn: str, limits: Limits) -> None:
        self._dsn = dsn
        self._limits = limits
        self._con: asyncpg.Connection[asyncpg.Record] | None = None
        self._waiting: set[asyncio.Task[object]] = set()
        self._released: set[asyncio.Task[object]] = set()
        self._held_times = 0  # in a row
        self.down: str | None = None  # why, while it is down
        self.on_down: Callable[[], None] = lambda: None

    async def step(self) -> float:
        """A ping, and another on a new connection if it fails: one may meet a stall of our own
        loop or a connection that somebody ended. Answers the pause until the next."""
        if await self._why_down() is None:
            if self.down is not None:
                log.warning("postgres_back")
            self.down = None
        elif why := await self._why_down():
            self._release(why)
        return _PING_S

    async def _why_down(self) -> str | None:
        """Why it doesn't answer; None also when our own loop was held and we can't tell."""
        began = clock.monotonic()
        try:
            with translated(unknown=False):
                async with asyncio.timeout(_ANSWER_S):
                    await self._ping()
        except StoreUnavailable as error:
            self.close()
            was_held = clock.monotonic() - began > _ANSWER_S + _LATE_S
            self._held_times = self._held_times + 1 if was_held else 0
            is_clear = not was_held or self._held_times > _HELD_TIMES_MAX or self.down is not None
            return str(error) if is_clear else None
        self._held_times = 0
        return None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Guards a caller's wait: raises StoreUnavailable when Postgres is, or goes, down."""
        self.check()
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._released:
                raise
            task.uncancel()
            raise StoreUnavailable("it stopped answering", unknown=True) from None
        finally:
            self._waiting.discard(task)
            self._released.discard(task)

    def check(self) -> None:
        """Raises StoreUnavailable while Postgres is down."""
        if self.down is not None:
            raise StoreUnavailable("it did not answer a moment ago")

    def close(self) -> None:
        if self._con is not None:
            self._con.terminate()
            self._con = None

    async def _ping(self) -> None:
        if self._con is None:
            options = connect_options(self._limits, {})
            self._con = await asyncpg.connect(self._dsn, **options)
        await self._con.execute("SELECT 1")

    def _release(self, why: str) -> None:
        if self.down is None:
            log.warning("postgres_away", why=why)
            self.on_down()
        self.down = why
        for task in self._waiting - self._released:
            self._released.add(task)
            task.cancel()
