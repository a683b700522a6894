"""One attempt: references resolved, arguments, handler, ending. Whatever the handler does, an
`Ending` comes out."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from penstock.domain.attempt import CANCELLED, LOST, RELEASED, Ending, Failure, Outcome
from penstock.handlers.context import Context
from penstock.handlers.errors import failure_of
from penstock.handlers.parents import resolved
from penstock.handlers.registry import Handler
from penstock.handlers.results import ending_of
from penstock.loops.forks import Whole, called


async def run_handler(
    handler: Handler, context: Context, threads: ThreadPoolExecutor, result_max_bytes: int
) -> Ending:
    """Runs the handler to its end. Only CancelledError passes through."""
    try:
        arguments = handler.arguments(_payload(context), context)
        if not handler.is_async:
            # A copy: what a handler binds must not reach the thread's next job.
            fresh = contextvars.copy_context()
            call = partial(fresh.run, _in_thread, handler, arguments, result_max_bytes)
            return await asyncio.get_running_loop().run_in_executor(threads, call)
        result = await Whole(handler.function(*arguments))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # a handler may raise anything, also SystemExit
        return failure_of(error)
    return ending_of(result, result_max_bytes)


def _payload(context: Context) -> str:
    """Of a job that may have parents: with their results in it. Raises PermanentError."""
    payload = context.job.payload
    if context.job.graph_id is None:
        return payload
    return resolved(payload, context.kin, context.services.bounds.payload_max_bytes)


def _in_thread(handler: Handler, arguments: tuple[Any, ...], result_max_bytes: int) -> Ending:
    """Comes to an ending within the thread: a StopIteration, say, could not leave it."""
    try:
        result = called(handler.function, arguments)
    except BaseException as error:
        return failure_of(error)
    return ending_of(result, result_max_bytes)


def stop_ending(why: Outcome, timeout_s: float) -> Ending:
    """How an attempt ended whose handler was told to stop."""
    if why is Outcome.TIMED_OUT:
        text = f"the attempt ran longer than its timeout_s of {timeout_s:g} s"
        return Ending(Outcome.TIMED_OUT, failure=Failure("timeout", text))
    return {Outcome.CANCELLED: CANCELLED, Outcome.RELEASED: RELEASED}.get(why, LOST)
