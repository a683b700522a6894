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
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from penstock import chaos, clock
from penstock.access import Access
from penstock.api import app
from penstock.api.door import Door
from penstock.api.peers import Peers
from penstock.domain import safety
from penstock.domain.checkup import SKEW_MAX_S
from penstock.domain.errors import (
    PenstockError,
    QueueUnavailable,
    StoreUnavailable,
    WrongSetting,
)
from penstock.domain.readiness import Readiness
from penstock.egress import Egress, pinned
from penstock.engine import Engine
from penstock.handlers.registry import Registry
from penstock.loops import forks, supervise, traced
from penstock.loops.reloader import SIGNAL
from penstock.queue.checkup import state_of
from penstock.queue.redis import RedisDoor
from penstock.reloading import limits_of, scaling_of, swap_of_door, use_log
from penstock.rooms import Rooms
from penstock.settings import Settings
from penstock.settings.watched import Source
from penstock.store import arrival, checkup, migrate, postgres
from penstock.store.health import Health
from penstock.store.postgres import Postgres
from penstock.telemetry import logs
from penstock.telemetry.metrics import Metrics

EXIT_FAILED = 1
EXIT_LEAKY = 75  # EX_TEMPFAIL: all is well again once we have been started anew
EXIT_INTERRUPTED = 130
_BOOT_PAUSE_S = 0.5
_LOOPS_END_S = 1.0  # handlers that swallow their cancellation are not waited for longer
_SLACK_S = 1.0
_LAST_LINES_S = 0.2  # whoever asks for an end at once waits no longer for lines to be written
_HOOKS_MAX, _HOOKS_PER_HOST_MAX = 512, 32  # webhooks under way, more than the relay ever begins
# Objects that were made and are still there before the youngest are looked through, which takes
# some 2 ms; Python's 700 do so while a request is under way, again and again (12 % of our time).
_GC_THRESHOLDS = (20_000, 10, 10)

log = logs.get_logger(__name__)


class NotMigrated(PenstockError):
    """The schema is older than the code."""


class LoopCancelled(PenstockError):
    """Handlers share our event loop, and one has cancelled what isn't its own."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A running replica. `drain()` ends its work, leaving the context ends the rest."""

    url: str
    engine: Engine
    loops: "asyncio.Task[None]"
    failed: asyncio.Event  # set when a loop has failed for good: a bug, logged with its traceback

    async def drain(self) -> None:
        await self.engine.drain()


async def serve(
    settings: Settings,
    on_ready: Callable[[str], None] | None = None,
    source: Source | None = None,
) -> None:
    """Runs a replica until SIGTERM or SIGINT; a second signal ends the process at once. SIGHUP has
    it read its settings again, from `source`. One whose handlers have leaked too many slots drains
    by itself and leaves with EXIT_LEAKY."""
    logs.set_up(settings.log.level, settings.log.format, waiting_max=settings.log.waiting_max)
    use_log(settings.log)
    forks.shed_when_forked()
    if points := chaos.armed():
        log.warning("chaos_points_armed", points=points, by=chaos.VARIABLE)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _signalled, stop)
    async with AsyncExitStack() as stack:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)
        replica = await started(settings, stop, stack, source)
        if replica is None:
            return
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, replica.engine.reloader.ask, SIGNAL
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # `__main__` had it wait
        gc.collect()
        gc.freeze()  # what is there now stays: looking through it again would hold up the loop
        gc.set_threshold(*_GC_THRESHOLDS)
        if on_ready is not None:
            on_ready(replica.url)
        log.info("serving", url=replica.url, roles=settings.roles, kinds=replica.engine.kinds)
        if "worker" in settings.roles and not settings.handlers.modules:
            log.warning(
                "no_handlers", hint="jobs of other kinds wait until handlers.modules names some"
            )
        leaky = replica.engine.upkeep.leaky
        ends = [asyncio.create_task(_wait(event)) for event in (stop, replica.failed, leaky)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        leaves = leaky.is_set() and not stop.is_set()
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
    status = EXIT_FAILED if failed else EXIT_LEAKY if leaves else 0
    if leaves or await _is_held(replica) or await _is_clung_to():
        logs.flush()
        os._exit(status)
    if failed:
        replica.loops.result()


async def started(
    settings: Settings, stop: asyncio.Event, stack: AsyncExitStack, source: Source | None = None
) -> Replica | None:
    """A replica that ends with the stack; None when `stop` called the start off. PostgreSQL may go
    away again while it begins: then it begins anew, if that is within `postgres.boot_wait_s` of the
    first look. A row in `workers` that the broken start has left is condemned like any other."""
    store = settings.postgres
    dsn, began = store.address, clock.monotonic()
    while await _postgres_is_there(settings, stop):
        try:
            return await stack.enter_async_context(running(settings, source))
        except StoreUnavailable as error:
            is_over = clock.monotonic() - began >= store.boot_wait_s
            if is_over or isinstance(postgres.explain(error, dsn), WrongSetting):
                raise
            log.warning("start_begins_anew", why=str(error), at_most_s=store.boot_wait_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _BOOT_PAUSE_S)
    return None


async def _postgres_is_there(settings: Settings, stop: asyncio.Event) -> bool:
    """False when the start was called off meanwhile. The front door, /livez too, is closed yet."""
    store = settings.postgres
    dsn = store.address
    return await arrival.arrived(dsn, store.connect_timeout_s, store.boot_wait_s, stop)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _is_held(replica: Replica) -> bool:
    """Whether a handler or a name look-up that nobody can stop would keep the process alive."""
    with suppress(TimeoutError):  # idle threads of the loop's own are no such thing
        await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), _LOOPS_END_S)
    others = set(threading.enumerate()) - {threading.main_thread()}
    return any(not thread.daemon for thread in others) or not replica.loops.done()


async def _is_clung_to() -> bool:
    """Whether tasks that handlers left behind refuse to end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=_LOOPS_END_S)
    return bool(left)


def _signalled(stop: asyncio.Event) -> None:
    if stop.is_set():
        logs.flush(_LAST_LINES_S)
        os._exit(EXIT_INTERRUPTED)
    stop.set()


@asynccontextmanager
async def running(settings: Settings, source: Source | None = None) -> AsyncIterator[Replica]:
    """Opens the doors, starts the engine and the front door; closes them the other way round.
    `source`: where the settings are read from again."""
    registry = Registry.load(settings.handlers.modules)
    async with traced.spans(settings.tracing), _rooms(settings, registry) as rooms:
        engine = Engine(settings, rooms, source)
        access = Access(settings.auth, settings.rate_limits, rooms)
        if "api" in settings.roles:
            engine.loops += access.loops()
        try:
            await _come_alive(engine, rooms.limits)
            async with _turning(engine) as (tasks, failed):
                door = _door(settings, rooms, engine, access, failed)
                async with app.serve(door, settings.http.host, settings.http.port) as front:
                    engine.reloader.swaps.append(partial(swap_of_door, door, front, access))
                    url = f"http://{settings.http.caller_host}:{front.port}"
                    yield Replica(url, engine, tasks, failed)
        finally:
            await engine.close()


async def _come_alive(engine: Engine, limits: postgres.Limits) -> None:
    """Enters this replica and gives its first sign of life: else it could be asked for work, and
    be condemned for never having got through."""
    await engine.registrar.step()
    engine.keeper.start()
    within_s = limits.connect_timeout_s + limits.command_timeout_s + _SLACK_S
    try:
        async with asyncio.timeout(within_s):
            await engine.keeper.begun.wait()
    except TimeoutError:
        raise StoreUnavailable(f"no sign of life got through within {within_s:g} s") from None


@asynccontextmanager
async def _turning(engine: Engine) -> AsyncIterator[tuple["asyncio.Task[None]", asyncio.Event]]:
    """The engine's loops under way; the event is set when one of them is over."""
    failed = asyncio.Event()
    tasks = asyncio.create_task(_loops(engine, failed), name="loops")
    try:
        yield tasks, failed
    finally:
        tasks.cancel()
        await asyncio.wait([tasks], timeout=_LOOPS_END_S)


@asynccontextmanager
async def _rooms(settings: Settings, registry: Registry) -> AsyncIterator[Rooms]:
    dsn = settings.postgres.address
    limits = postgres.Limits(
        settings.postgres.connect_timeout_s,
        settings.postgres.command_timeout_s,
        settings.postgres.read_connections,
        settings.postgres.engine_connections,
    )
    if missing := await migrate.pending(dsn):
        raise NotMigrated(f"the schema lacks {', '.join(missing)}: run `penstock migrate` first")
    store, health = Postgres(dsn, limits), Health(dsn, limits)
    door = RedisDoor(settings.redis.address, settings.redis.timeout_s)
    egress = Egress(
        settings.egress.allow,
        connect_timeout_s=settings.egress.connect_timeout_s,
        response_max_bytes=settings.egress.response_max_bytes,
    )
    hooks = Egress(
        settings.egress.allow,
        connect_timeout_s=settings.egress.connect_timeout_s,
        connections_max=_HOOKS_MAX,
        connections_per_host_max=_HOOKS_PER_HOST_MAX,
    )
    await _demand_safe(settings, limits)
    await store.open()
    try:
        async with egress, hooks, pinned(settings.egress.connect_timeout_s) as own:
            yield Rooms(dsn, limits, store, health, door, egress, own, hooks, registry, Metrics())
    finally:
        await door.close()
        health.close()
        store.close()


async def _demand_safe(settings: Settings, limits: postgres.Limits) -> None:
    """Refuses servers that would lose what we promise to keep (decision 0028). Redis is an index:
    one that is away stops no start, and is looked at when it is back (`loops/redis_watch.py`)."""
    where = settings.postgres.address
    async with checkup.session(where, limits) as session:
        state = await session.state()
    if state.read_only:
        raise StoreUnavailable("it is read-only: a standby, or default_transaction_read_only is on")
    store = safety.refused(safety.postgres_faults(state), settings.postgres.accepted_risks)
    index = safety.refused(await _redis_faults(settings), settings.redis.accepted_risks)
    lines = safety.refusals(postgres.place_of(where), "postgres", store)
    lines += safety.refusals("Redis", "redis", index)
    if lines:
        raise WrongSetting("\n".join(lines))


async def _redis_faults(settings: Settings) -> list[safety.Fault]:
    """By a door of its own: what ours finds out is for the engine, which isn't there yet."""
    door = RedisDoor(settings.redis.address, settings.redis.timeout_s)
    try:
        state = await state_of(door)
    except QueueUnavailable:
        return []
    finally:
        await door.close()
    return safety.redis_faults(state) if state is not None else []


async def _loops(engine: Engine, failed: asyncio.Event) -> None:
    """Everything that happens by itself; one bug ends it all, with its traceback."""
    all_of_it = asyncio.current_task()
    assert all_of_it is not None
    async with asyncio.TaskGroup() as group:
        for run in engine.runs():
            group.create_task(_told(run(), failed, all_of_it))
        for loop in engine.loops:
            work = supervise.run(loop, engine.metrics)
            group.create_task(_told(work, failed, all_of_it), name=loop.name)


async def _told(
    work: Coroutine[Any, Any, None], failed: asyncio.Event, all_of_it: "asyncio.Task[None]"
) -> None:
    """Tells of a bug at once: the group waits until the last handler has heeded its end. A single
    loop is never cancelled by us: then a handler did it, and nobody would do that loop's work."""
    try:
        await work
    except asyncio.CancelledError:
        if failed.is_set() or all_of_it.cancelling():
            raise
        log.error("loop_failed", why="it was cancelled, which only a handler can have done")
        failed.set()
        raise LoopCancelled("a loop was cancelled, which only a handler can have done") from None
    except BaseException:  # a group of them, or an exit, must not leave a zombie either
        log.exception("loop_failed")
        failed.set()
        raise


def _door(
    settings: Settings, rooms: Rooms, engine: Engine, access: Access, failed: asyncio.Event
) -> Door:
    return Door(
        submitter=engine.submitter,
        changes=engine.changes,
        reads=engine.reads,
        lists=engine.lists,
        workflows=engine.workflows,
        workflow_reads=engine.workflow_reads,
        letters=engine.letters,
        dead_letters=engine.dead_letters,
        deliveries=engine.deliveries,
        audit_log=engine.audit_log,
        refusals=engine.refusals,
        waiters=engine.waiters,
        reloader=engine.reloader,
        minter=engine.minter,
        verifier=access.verifier,
        limiter=access.limiter,
        now_ms=engine.pg_clock.now_ms,
        payload_errors=rooms.registry.payload_errors,
        readiness=lambda: _readiness(rooms, engine, access, failed),
        metrics=engine.metrics,
        backlog=engine.submitter.backlog,
        serves_api="api" in settings.roles,
        limits=limits_of(settings.http),
        current=engine.current,
        reach=engine.reach,
        peers=Peers(settings.http.trusted_proxies),
        logs_submissions=settings.audit_log.submissions,
        scaling=scaling_of(settings),
    )


def _readiness(rooms: Rooms, engine: Engine, access: Access, failed: asyncio.Event) -> Readiness:
    reasons = [f"{loop.name} is stuck" for loop in engine.loops if loop.is_stuck()]
    reasons += [f"{loop.name} has ended" for loop in engine.loops if loop.ended]
    if failed.is_set() and not reasons:
        reasons.append("a part of the engine has failed")
    if rooms.health.down is not None:
        reasons.append("PostgreSQL does not answer")
    if engine.settler.is_stuck():
        reasons.append("settlement is stuck")
    if engine.upkeep.leaky.is_set():
        reasons.append("handlers that ignore their end have taken too many slots")
    if engine.me.draining:
        reasons.append("draining")
    degraded = ["redis"] if rooms.redis.is_open else []
    degraded += [f"redis-{fault.risk}" for fault in engine.redis_watch.faults]
    degraded += ["clock"] if abs(engine.pg_clock.ahead_s()) > SKEW_MAX_S else []
    degraded += [*engine.relays.away(), *access.degraded()]
    ages = {loop.name: round(loop.age_s(), 3) for loop in engine.loops}
    return Readiness(not reasons, reasons, degraded, ages)
