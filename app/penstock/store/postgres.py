"""The one door to PostgreSQL: pools, time-outs and the translation of its errors.

In: a query's name and its arguments. Out: rows, or `StoreUnavailable` / `BadRow`. Every call is
one statement and so one transaction, unless `transaction` is used. If we die here, Postgres rolls
back what had not committed; what had committed is found again by fence, id or adoption.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from penstock import chaos
from penstock.domain import trust
from penstock.domain.errors import BadRow, PenstockError, StoreUnavailable, WrongSetting
from penstock.store import cut, queries

Record = asyncpg.Record
Connection: TypeAlias = "asyncpg.Connection[Record] | PoolConnectionProxy[Record]"

# Errors of these classes say nothing against the statement, so the same call may be sent again:
# connection (08), resources (53), intervention (57), conflicts (40, 55), a password or a database
# that is being changed (28, 3D), I/O (58), a standby, an idle session that was ended (25).
_TRY_AGAIN_CLASSES = ("08", "28", "3D", "40", "53", "55", "57", "58", "25006", "25P03")
_BAD_ROW_CLASSES = ("22", "23")
_DEAD_LINK = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)

# Plans are made while tables may be empty, and kept (pitfalls.md, A1).
# A list is a window over an index in its order; a bitmap would read all that lies below, and sort.
# Without sorts an index that has the order is taken, even where an empty table made any look good.
_READERS = {"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off"}
_ENGINE = {"enable_seqscan": "off", "enable_nestloop": "off"}
_COMMON = {
    "jit": "off",
    "application_name": "penstock",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "TimeZone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and connections a pool."""

    connect_timeout_s: float = 3.0
    command_timeout_s: float = 5.0
    read_connections: int = 4
    engine_connections: int = 6


@dataclass(frozen=True, slots=True)
class Pool:
    """Connections of one pool: open, of them idle, at most; and calls that wait for one."""

    name: str
    size: int
    idle: int
    size_max: int
    waiting: int


if TYPE_CHECKING:  # asyncpg's classes are generic in its type stubs only
    _Base = asyncpg.Connection[Record]
else:
    _Base = asyncpg.Connection


class _Connection(_Base):
    def get_reset_query(self) -> str:
        return ""  # no session state is ever set: spare each release a round trip


class Postgres:
    """Two pools with plans pinned to indexes: `engine` for transitions, `read` for readers."""

    def __init__(self, dsn: str, limits: Limits) -> None:
        self._dsn = dsn
        self._limits = limits
        self._sql = queries.load()
        self._engine: asyncpg.Pool[Record]
        self._read: asyncpg.Pool[Record]
        self._waiting: dict[asyncpg.Pool[Record], int] = defaultdict(int)

    async def open(self) -> None:
        with translated(unknown=False):
            self._engine = await self._pool(self._limits.engine_connections, _ENGINE)
            self._read = await self._pool(self._limits.read_connections, _READERS)

    def pools(self) -> list[Pool]:
        """How its pools stand."""
        return [
            Pool(name, pool.get_size(), pool.get_idle_size(), pool.get_max_size(), waiting)
            for name, pool, waiting in (
                ("engine", self._engine, self._waiting[self._engine]),
                ("read", self._read, self._waiting[self._read]),
            )
        ]

    def close(self) -> None:
        self._engine.terminate()
        self._read.terminate()

    async def rows(self, query: str, *args: object, point: str | None = None) -> list[Record]:
        """Runs a transition on the engine's pool; `point` names the chaos point behind it."""
        sql = self._sql[query]
        async with self._connection(self._engine) as con:
            if point is None:
                return await con.fetch(sql, *args)
            return await chaos.answer(
                point, lambda: con.fetch(sql, *args), lambda: cut.fetch(con, sql, args)
            )

    async def value(self, query: str, *args: object, point: str | None = None) -> Any:
        rows = await self.rows(query, *args, point=point)
        return rows[0][0] if rows else None

    async def read(self, query: str, *args: object) -> list[Record]:
        """Runs a query of a reader, on the readers' pool."""
        async with self._connection(self._read) as con:
            return await con.fetch(self._sql[query], *args)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Callable[..., Awaitable[list[Record]]]]:
        """Runs queries of a reader that must agree with one another, on one connection."""
        async with (
            self._connection(self._read) as con,
            con.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield lambda query, *args: con.fetch(self._sql[query], *args)

    @asynccontextmanager
    async def transaction(
        self, *, before: str | None = None, after: str | None = None
    ) -> AsyncIterator["Transaction"]:
        """Several transitions, all or none: what is raised within rolls them back. The names are
        of the chaos points before its COMMIT and behind it, where it has some."""
        async with self._connection(self._engine) as con:
            within = con.transaction()
            await within.start()
            try:
                yield Transaction(con, self._sql)
                if before is not None:
                    await chaos.point(before)
            except BaseException:
                await within.rollback()
                raise
            if after is None:
                await within.commit()
            else:
                await chaos.answer(after, within.commit, lambda: cut.commit(con, within))

    @asynccontextmanager
    async def _connection(self, pool: "asyncpg.Pool[Record]") -> AsyncIterator[Connection]:
        self._waiting[pool] += 1
        try:
            with translated(unknown=False):
                con = await pool.acquire(timeout=self._limits.connect_timeout_s)
        finally:
            self._waiting[pool] -= 1
        try:
            with translated(unknown=True):
                yield con
        except (TimeoutError, asyncio.CancelledError):
            _drop(con)
            raise
        except StoreUnavailable as error:
            if error.unknown:
                _drop(con)
            raise
        finally:
            await pool.release(con)

    async def _pool(self, size: int, settings: dict[str, str]) -> "asyncpg.Pool[Record]":
        return await asyncpg.create_pool(
            self._dsn,
            min_size=1,
            max_size=size,
            connection_class=_Connection,
            init=prepare,
            **connect_options(self._limits, settings),
        )


class Transaction:
    """An open transaction on the engine's pool."""

    def __init__(self, con: Connection, sql: Mapping[str, str]) -> None:
        self._con = con
        self._sql = sql

    async def rows(self, query: str, *args: object) -> list[Record]:
        return await self._con.fetch(self._sql[query], *args)

    async def many(self, query: str, calls: Sequence[Sequence[object]]) -> None:
        """Runs one query with many sets of arguments, in one round trip."""
        await self._con.executemany(self._sql[query], calls)


def _drop(con: Connection) -> None:
    """Its state is unknown, and a release would wait for it. One whose server hung up has left the
    pool by itself, and refuses every call."""
    with suppress(asyncpg.InterfaceError):
        con.terminate()


def connect_options(limits: Limits, settings: dict[str, str]) -> dict[str, Any]:
    """What every connection of ours is made with."""
    timeout_ms = str(int(limits.command_timeout_s * 1000))
    return {
        "timeout": limits.connect_timeout_s,
        "command_timeout": limits.command_timeout_s,
        "max_cached_statement_lifetime": 0,
        "server_settings": {**_COMMON, "statement_timeout": timeout_ms, **settings},
    }


async def prepare(con: Connection) -> None:
    """Ids travel as 16 bytes, as Redis and the engine hold them."""
    await con.set_type_codec(
        "uuid", schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary"
    )


class translated:  # small: it reads as a phrase, "with translated(...)"
    """Turns asyncpg's errors into ours; what is neither is a bug and passes through.

    `unknown`: the statement may have been committed although no answer came.
    """

    def __init__(self, *, unknown: bool) -> None:
        self._unknown = unknown

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, asyncpg.PostgresError):
            self._server_said(error)
        elif isinstance(error, asyncpg.DataError):
            raise BadRow(str(error)) from error
        elif isinstance(error, _DEAD_LINK) and not _is_misuse(error):
            raise StoreUnavailable(_short(error), unknown=self._unknown) from error

    def _server_said(self, error: asyncpg.PostgresError) -> None:
        code = error.sqlstate or ""
        if code.startswith(_BAD_ROW_CLASSES):
            raise BadRow(_short(error)) from error
        if code.startswith(_TRY_AGAIN_CLASSES):
            unknown = self._unknown and code.startswith(("08", "57P"))
            raise StoreUnavailable(_short(error), unknown=unknown) from error


def _is_misuse(error: BaseException) -> bool:
    """asyncpg raises InterfaceError for closed connections and for wrong calls alike."""
    return isinstance(error, asyncpg.InterfaceError) and "closed" not in str(error)


def _short(error: BaseException) -> str:
    said = trust.fault_of(error) if isinstance(error, OSError) else None
    return said or str(error).split("\n", 1)[0][:200] or type(error).__name__


def explain(error: BaseException, dsn: str) -> PenstockError | None:
    """What kept us from the database, in the words of its operator, or None for anything else.

    Names the server, user and database as far as they matter, and never the password.
    """
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    server, user, database = _places(dsn)
    setting = "postgres.dsn (PENSTOCK_POSTGRES__DSN)"
    match cause:
        case asyncpg.InvalidAuthorizationSpecificationError():
            return WrongSetting(f"{server} doesn't let {user} in: {_short(cause)}; see {setting}")
        case asyncpg.InvalidCatalogNameError():
            return WrongSetting(f"{server} has no {database}: make it, or change {setting}")
        case asyncpg.InsufficientPrivilegeError():
            return WrongSetting(
                f"{user} lacks a right in {database} of {server}: {_short(cause)}; "
                f"have it granted, or change {setting}"
            )
        case asyncpg.ClientConfigurationError():  # its text may show a password
            return WrongSetting(
                f"{setting} can't be read: write postgres://user:password@host:port/database, "
                "special characters as %XX"
            )
        case OSError() if isinstance(error, StoreUnavailable):
            if fault := trust.fault_of(cause):
                return WrongSetting(
                    f"{server} can't be trusted or doesn't trust us: {fault}; see postgres.tls, "
                    "postgres.ca_file and postgres.cert_file, or sslmode in postgres.dsn"
                )
            why = cause.strerror or _short(cause)
            if "rejected SSL" in why:
                return WrongSetting(
                    f"{server} and we don't agree on TLS: {why}; "
                    f"see postgres.tls, or sslmode in {setting}"
                )
            why = "no answer in time" if isinstance(cause, TimeoutError) else why
            return StoreUnavailable(f"{why} ({server}); see {setting}")
        case _:
            return None


def place_of(dsn: str) -> str:
    """`PostgreSQL at host:port`."""
    return _places(dsn)[0]


def _places(dsn: str) -> tuple[str, str, str]:
    """Server, user and database of a DSN, as they are told."""
    parts = urlsplit(dsn)
    login, _, server = parts.netloc.rpartition("@")
    user = unquote(login.partition(":")[0])
    database = unquote(parts.path.lstrip("/")) or user
    server = server or "its default place"
    return f"PostgreSQL at {server}", f"user {user!r}", f"database {database!r}"
