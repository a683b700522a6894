"""One attempt: arguments, handler, ending. Whatever the handler does, an `Ending` comes out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from penstock.domain.attempt import CANCELLED, LOST, RELEASED, Ending, Failure, Outcome
from penstock.handlers.context import Context
from penstock.handlers.errors import failure_of
from penstock.handlers.registry import Handler
from penstock.handlers.results import ending_of


async def run_handler(
    handler: Handler, context: Context, threads: ThreadPoolExecutor, result_max_bytes: int
) -> Ending:
    """Runs the handler to its end. Only CancelledError passes through."""
    try:
        arguments = handler.arguments(context.job.payload, context)
        if handler.is_async:
            result = await handler.function(*arguments)
        else:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(threads, handler.function, *arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # a handler may raise anything, also SystemExit
        return failure_of(error)
    return ending_of(result, result_max_bytes)


def stop_ending(why: Outcome, timeout_s: float) -> Ending:
    """How an attempt ended whose handler was told to stop."""
    if why is Outcome.TIMED_OUT:
        text = f"the attempt ran longer than its timeout_s of {timeout_s:g} s"
        return Ending(Outcome.TIMED_OUT, failure=Failure("timeout", text))
    return {Outcome.CANCELLED: CANCELLED, Outcome.RELEASED: RELEASED}.get(why, LOST)
