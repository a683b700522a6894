"""Who lives: the workers table, the pulse, and the keeper's own line to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from penstock import clock
from penstock.clock import ServerClock
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId, WorkerId
from penstock.store import queries
from penstock.store.postgres import Limits, Postgres, connect_options, prepare, translated

_TELLING_S = 0.5


@dataclass(frozen=True, slots=True)
class Identity:
    """How a replica enters itself. `slots` is how many jobs it runs at once."""

    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    slots: int


class Workers:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def register(self, worker: WorkerId, who: Identity, ttl_s: float) -> None:
        """Enters a new name. A name is never used again once it was condemned."""
        await self._pg.rows(
            "register_worker",
            worker,
            who.host,
            who.pid,
            who.version,
            who.queues,
            who.kinds,
            who.slots,
            ttl_s,
        )

    async def condemn(self, ttl_s: float) -> list[WorkerId]:
        """Condemns the expired, if the pulse allows it."""
        return [WorkerId(row[0]) for row in await self._pg.rows("condemn", ttl_s)]

    async def orphaning(self) -> list[WorkerId]:
        """Names that still hold running jobs though they are condemned or gone."""
        return [WorkerId(row[0]) for row in await self._pg.rows("orphaning_workers")]

    async def leave(self, worker: WorkerId) -> None:
        await self._pg.rows("leave", worker)

    async def forget_condemned(self) -> None:
        await self._pg.rows("forget_condemned")


@dataclass(frozen=True, slots=True)
class Beat:
    """`alive` False: condemned. `now_s`: Postgres' time, read between the monotonic readings
    `sent` and `received`. `cancel`: attempts to stop."""

    alive: bool
    now_s: float
    sent: float
    received: float
    cancel: Sequence[JobId]

    def tell(self, pg_clock: ServerClock) -> None:
        """Sets the clock by it, unless the answer took so long that it tells little."""
        if self.alive and self.received - self.sent < _TELLING_S:
            pg_clock.observe(self.now_s, self.sent, self.received)


class KeeperLine:
    """The keeper thread's own connection: it must not share a pool, or a loop, with the engine."""

    def __init__(self, dsn: str, limits: Limits) -> None:
        self._dsn = dsn
        self._limits = limits
        self._sql = queries.load()
        self._con: asyncpg.Connection[asyncpg.Record] | None = None

    async def beat(self, worker: WorkerId, ttl_s: float) -> Beat:
        """Renews the worker and the pulse; raises StoreUnavailable, and then connects anew."""
        try:
            with translated(unknown=True):
                con = self._con or await self._connect()
                sent = clock.monotonic()
                now_s = await con.fetchval(self._sql["beat"], worker, ttl_s)
                received = clock.monotonic()
                stops = await con.fetch(self._sql["cancel_requested"], worker)
        except StoreUnavailable:
            self.close()
            raise
        cancel = [JobId(row[0]) for row in stops]
        return Beat(now_s is not None, now_s or 0.0, sent, received, cancel)

    def close(self) -> None:
        if self._con is not None:
            self._con.terminate()
            self._con = None

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        options = connect_options(self._limits, {})
        con: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self._dsn, **options)
        self._con = con  # before anything else can fail: close() must find it
        await prepare(con)
        return con
