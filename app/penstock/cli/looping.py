"""Runs a coroutine on the fastest event loop that is there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from penstock.telemetry.logs import get_logger

Result = TypeVar("Result")

log = get_logger(__name__)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs `work` to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def run_with_handlers(work: Coroutine[Any, Any, Result]) -> Result:
    """The same for a server, which handlers' tasks and callbacks that exit must not end.

    A SystemExit or KeyboardInterrupt in any task or callback leaves the event loop, and nothing
    else: what it was raised in is over, all else stands, and the loop is simply run again. (It
    costs nothing, and holds for whatever way a handler makes tasks or callbacks.) Ctrl-C doesn't
    come by this road: `work` hears its signals by itself.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        loop = runner.get_loop()
        main = loop.create_task(work)
        while True:
            try:
                return loop.run_until_complete(main)
            except (SystemExit, KeyboardInterrupt):
                if main.done():
                    raise
                log.exception("exit_in_handler_ignored")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for this platform
        return None
    return uvloop.new_event_loop
