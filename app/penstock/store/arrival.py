"""Waits for PostgreSQL at a start: machines and services come up in any order.

In: where it is, and for how long to wait. Out: it answers, or the start was called off. Nothing is
waited for that waiting won't mend: a wrong password, a database that isn't there, a wrong DSN.
"""

import asyncio

import asyncpg

from penstock import clock
from penstock.domain.errors import PenstockError, StoreUnavailable, WrongSetting
from penstock.store.postgres import explain, translated
from penstock.telemetry.logs import get_logger

_LOOK_S = 0.5
_TELL_S = 5.0

log = get_logger(__name__)


async def arrived(dsn: str, connect_timeout_s: float, wait_s: float, stop: asyncio.Event) -> bool:
    """Returns True when it answers, False when `stop` was set before. PenstockError after
    `wait_s` seconds."""
    waiting = asyncio.create_task(_wait(dsn, connect_timeout_s, wait_s))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if waiting.done():
        waiting.result()
        return True
    waiting.cancel()
    await asyncio.wait([waiting])
    return False


async def _wait(dsn: str, connect_timeout_s: float, wait_s: float) -> None:
    began, tell_at = clock.monotonic(), 0.0
    while (away := await _why_away(dsn, connect_timeout_s)) is not None:
        now = clock.monotonic()
        if now - began >= wait_s:
            raise PenstockError(f"{away}; gave up after {wait_s:g} s (postgres.boot_wait_s)")
        if now >= tell_at:
            log.warning("waiting_for_postgres", why=str(away), at_most_s=wait_s)
            tell_at = now + _TELL_S
        await asyncio.sleep(min(_LOOK_S, began + wait_s - now))


async def _why_away(dsn: str, connect_timeout_s: float) -> PenstockError | None:
    """Raises what waiting won't mend."""
    try:
        with translated(unknown=False):
            con = await asyncpg.connect(dsn, timeout=connect_timeout_s)
    except StoreUnavailable as error:
        told = explain(error, dsn)
        if isinstance(told, WrongSetting):
            raise told from error
        return told or error
    con.terminate()
    return None
