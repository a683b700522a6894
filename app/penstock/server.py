"""The one composition root: opens doors, wires the replica, shuts down in order.

`running(settings)` is a whole replica in this event loop; `serve` adds the signals. Order of
shutdown: not ready, no more claims, running attempts, hand-back, HTTP, loops, doors. What builds
the engine itself stands in `engine.py`.
"""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from penstock.api import app
from penstock.api.auth import TokenRules, Verifier, shared_secret
from penstock.api.door import Defaults, Door, Limits
from penstock.domain.errors import PenstockError
from penstock.domain.readiness import Readiness
from penstock.egress.client import Egress
from penstock.engine import Engine, Rooms
from penstock.handlers.registry import Registry
from penstock.loops import supervise
from penstock.queue.redis import RedisDoor
from penstock.settings import Settings
from penstock.store import migrate, postgres
from penstock.store.health import Health
from penstock.store.postgres import Postgres
from penstock.telemetry import logs
from penstock.telemetry.metrics import Metrics

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
_LOOPS_END_S = 1.0  # handlers that swallow their cancellation are not waited for longer

log = logs.get_logger(__name__)


class NotMigrated(PenstockError):
    """The schema is older than the code."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A running replica. `drain()` ends its work, leaving the context ends the rest."""

    url: str
    engine: Engine
    loops: "asyncio.Task[None]"
    failed: asyncio.Event  # set when a loop has failed for good: a bug, logged with its traceback

    async def drain(self) -> None:
        await self.engine.drain()


async def serve(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """Runs a replica until SIGTERM or SIGINT; a second signal ends the process at once."""
    logs.set_up(settings.log.level, settings.log.format)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _signalled, stop)
    async with running(settings) as replica:
        gc.collect()
        gc.freeze()  # what is there now stays: looking through it again would hold up the loop
        if on_ready is not None:
            on_ready(replica.url)
        log.info("serving", url=replica.url, roles=settings.roles, kinds=replica.engine.kinds)
        if "worker" in settings.roles and not settings.handlers.modules:
            log.warning(
                "no_handlers", hint="jobs of other kinds wait until handlers.modules names some"
            )
        stopping = asyncio.create_task(_wait(stop))
        failing = asyncio.create_task(_wait(replica.failed))
        await asyncio.wait([stopping, failing], return_when=asyncio.FIRST_COMPLETED)
        if not replica.failed.is_set():
            busy = len(replica.engine.pool.busy())
            log.info(
                "draining",
                running=busy,
                at_most_s=settings.worker.drain_grace_s,
                hint="a second signal ends it at once",
            )
            await replica.drain()
    failed = replica.failed.is_set()
    if _is_held(replica):
        os._exit(EXIT_FAILED if failed else 0)
    if failed:
        replica.loops.result()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _is_held(replica: Replica) -> bool:
    """Whether a handler or a name look-up that nobody can stop would keep the process alive."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    return any(not thread.daemon for thread in others) or not replica.loops.done()


def _signalled(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(EXIT_INTERRUPTED)
    stop.set()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Replica]:
    """Opens the doors, starts the engine and the front door; closes them the other way round."""
    registry = Registry.load(settings.handlers.modules)
    async with _rooms(settings, registry) as rooms:
        engine = Engine(settings, rooms)
        failed = asyncio.Event()
        tasks = asyncio.create_task(_loops(engine, failed), name="loops")
        try:
            async with app.serve(
                _door(settings, rooms, engine), settings.http.host, settings.http.port
            ) as port:
                yield Replica(f"http://{_host(settings.http.host)}:{port}", engine, tasks, failed)
        finally:
            tasks.cancel()
            await asyncio.wait([tasks], timeout=_LOOPS_END_S)
            await engine.close()


@asynccontextmanager
async def _rooms(settings: Settings, registry: Registry) -> AsyncIterator[Rooms]:
    dsn = settings.postgres.dsn.get_secret_value()
    limits = postgres.Limits(
        settings.postgres.connect_timeout_s,
        settings.postgres.command_timeout_s,
        settings.postgres.read_connections,
        settings.postgres.engine_connections,
    )
    if missing := await migrate.pending(dsn):
        raise NotMigrated(f"the schema lacks {', '.join(missing)}: run `penstock migrate` first")
    store, health = Postgres(dsn, limits), Health(dsn, limits)
    door = RedisDoor(settings.redis.url.get_secret_value(), settings.redis.timeout_s)
    egress = Egress(
        settings.egress.allow,
        connect_timeout_s=settings.egress.connect_timeout_s,
        response_max_bytes=settings.egress.response_max_bytes,
    )
    await store.open()
    try:
        async with egress:
            yield Rooms(dsn, limits, store, health, door, egress, registry, Metrics())
    finally:
        await door.close()
        health.close()
        store.close()


async def _loops(engine: Engine, failed: asyncio.Event) -> None:
    """Everything that happens by itself; one bug ends it all, with its traceback."""
    async with asyncio.TaskGroup() as group:
        for run in engine.runs():
            group.create_task(_told(run(), failed))
        for loop in engine.loops:
            work = supervise.run(loop, engine.metrics)
            group.create_task(_told(work, failed), name=loop.name)
        engine.keeper.start()


async def _told(work: Coroutine[Any, Any, None], failed: asyncio.Event) -> None:
    """Tells of a bug at once: the group waits until the last handler has heeded its end."""
    try:
        await work
    except asyncio.CancelledError:
        raise
    except BaseException:  # a group of them, or an exit, must not leave a zombie either
        log.exception("loop_failed")
        failed.set()
        raise


def _door(settings: Settings, rooms: Rooms, engine: Engine) -> Door:
    rules = TokenRules(
        settings.auth.issuer,
        settings.auth.audience,
        settings.auth.token_max_age_s,
        settings.auth.leeway_s,
    )
    secret = shared_secret(settings.auth.jwt_secret.get_secret_value())
    return Door(
        submitter=engine.submitter,
        changes=engine.changes,
        reads=engine.reads,
        waiters=engine.waiters,
        minter=engine.minter,
        verifier=Verifier(secret, rules),
        now_ms=engine.pg_clock.now_ms,
        payload_errors=rooms.registry.payload_errors,
        readiness=lambda: _readiness(rooms, engine),
        metrics=engine.metrics,
        serves_api="api" in settings.roles,
        limits=Limits(
            body_max_bytes=settings.http.body_max_bytes,
            batch_body_max_bytes=settings.http.batch_body_max_bytes,
            batch_jobs_max=settings.http.batch_jobs_max,
            containers_max=settings.http.containers_max,
            bodies_max_bytes=settings.http.bodies_max_bytes,
            connections_max=settings.http.connections_max,
            head_timeout_s=settings.http.head_timeout_s,
            body_timeout_s=settings.http.body_timeout_s,
            keepalive_s=settings.http.keepalive_s,
        ),
        defaults=Defaults(
            priority=settings.jobs.priority,
            max_attempts=settings.jobs.max_attempts,
            timeout_s=settings.jobs.timeout_s,
        ),
    )


def _readiness(rooms: Rooms, engine: Engine) -> Readiness:
    reasons = [f"{loop.name} is stuck" for loop in engine.loops if loop.is_stuck()]
    if rooms.health.down is not None:
        reasons.append("PostgreSQL does not answer")
    if engine.settler.is_stuck():
        reasons.append("settlement is stuck")
    if engine.me.draining:
        reasons.append("draining")
    degraded = ["redis"] if rooms.redis.is_open else []
    ages = {loop.name: round(loop.age_s(), 3) for loop in engine.loops}
    return Readiness(not reasons, reasons, degraded, ages)


def _host(host: str) -> str:
    """What a caller on this machine would use for the address that we listen on."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
