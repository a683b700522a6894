"""One attempt in a process of its own: setup, import, order, run, ending.

The handler gets what it gets in a replica: an event loop or a thread, a context, services. Tasks
and threads that it leaves behind end with the process. If we die here, the parent sees it and the
attempt has crashed; what was logged until then has reached it.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NoReturn

from penstock import clock
from penstock.child.ties import EXIT_ORPHAN, limit_memory
from penstock.child.told import ToldContext
from penstock.domain.attempt import Ending, Outcome
from penstock.egress.client import Egress
from penstock.handlers.context import LogLimits, Services
from penstock.handlers.errors import HandlerError, failure_of
from penstock.handlers.registry import Handler, Registry
from penstock.loops import forks, traced
from penstock.loops.frames import (
    Message,
    Order,
    Setup,
    Wire,
    ending_message,
    order_of,
    setup_of,
)
from penstock.loops.run import run_handler
from penstock.telemetry import logs, scope, tracing

EXIT_UNFIT = 4
_SPANS_S = 1.0  # for those of the handler's to be sent

_Done = tuple[Ending, Sequence[bytes]]  # how it ended, and the jobs that it submits


def run_one(frames: int) -> NoReturn:
    """Runs what the parent orders, tells how it ended, and ends the process."""
    wire = Wire(frames)
    setup = setup_of(_received(wire))
    registry = _prepared(setup, wire)
    spans = traced.exported(setup.spans)
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    parent = Parent(wire, loop)
    # From here on a death is the job's: whatever may fail for want of memory has been done.
    wire.send({"ready": True})
    order = parent.order()
    handler = registry.get(order.job.kind)
    assert handler is not None, order.job.kind  # the parent has loaded the same modules
    ending, submitted = _looped(loop, _run(parent, setup, order, handler))
    sys.stdout.flush()
    sys.stderr.flush()
    if spans is not None:
        spans.close(_SPANS_S)  # first: whoever hears of our end, ends us
    wire.send(ending_message(ending, submitted))
    os._exit(0)  # whatever the handler left behind


def _received(wire: Wire) -> Message:
    message = wire.receive()
    if message is None:
        os._exit(EXIT_ORPHAN)
    return message


def _prepared(setup: Setup, wire: Wire) -> Registry:
    """The handlers, imported from where the parent imports them."""
    logs.set_up(setup.log_level, setup.log_format)
    forks.own_signals_when_forked()
    limit_memory(setup.memory_max_bytes)
    sys.path[:] = setup.path
    try:
        return Registry.load(setup.modules)
    except (HandlerError, MemoryError) as error:
        wire.send({"unfit": f"{type(error).__name__}: {error}"[:1000]})
        os._exit(EXIT_UNFIT)


class Parent:
    """What the parent says, heard by a thread of its own: a handler may block the event loop."""

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
        self.wire = wire
        self._loop = loop
        self._order: SimpleQueue[Order] = SimpleQueue()
        self.on_cancel: Callable[[str], None] = lambda _why: None
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def order(self) -> Order:
        return self._order.get()

    def _listen(self) -> None:
        self._order.put(order_of(_received(self.wire)))
        while True:  # until it has gone, and we with it
            why = str(_received(self.wire).get("cancel"))
            self._loop.call_soon_threadsafe(self._cancel, why)

    def _cancel(self, why: str) -> None:
        self.on_cancel(why)


async def _run(parent: Parent, setup: Setup, order: Order, handler: Handler) -> _Done:
    egress = Egress(
        setup.egress_allow,
        connect_timeout_s=setup.connect_timeout_s,
        response_max_bytes=setup.response_max_bytes,
    )
    deadline = clock.monotonic() + order.within_s
    limits = LogLimits(setup.log_lines_max, setup.log_bytes_max)
    async with egress:
        services = Services(http=egress, bounds=setup.bounds)
        context = ToldContext(order.job, deadline, services, limits, parent.wire.send)
        context.kin = order.kin
        scope.enter(context)
        if tracing.is_on():
            tracing.enter(order.job.traceparent)
        threads = ThreadPoolExecutor(1, thread_name_prefix="handler")
        work = run_handler(handler, context, threads, setup.result_max_bytes)
        # A task of its own: what the handler swallows or leaves set stays there.
        task = asyncio.create_task(work)

        def cancel(why: str) -> None:
            context.cancel(why)
            if handler.is_async:
                task.cancel()

        parent.on_cancel = cancel
        await asyncio.wait([task])
        context.tell_progress()
        # The parent knows better why we were cancelled, and says so in our place.
        ending = failure_of(asyncio.CancelledError()) if task.cancelled() else task.result()
        submitted = context.take_submitted()
        return ending, submitted if ending.outcome is Outcome.SUCCEEDED else []


def _looped(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _Done]) -> _Done:
    """Exits in tasks and callbacks end nothing but those, as in a replica."""
    main = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt):
            if main.done():
                raise


def _new_loop() -> asyncio.AbstractEventLoop:
    """Of the kind that replicas run on."""
    try:
        import uvloop  # noqa: PLC0415 - there may be none for this platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
