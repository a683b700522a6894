"""Handlers for tests: they write what they do to an execution log that survives a kill.

One line an event, by one write to a file opened for appending: the page cache survives `kill -9`.
`EXECUTION_LOG` in the environment names the file.
"""

import asyncio
import decimal
import os
import time
from typing import Any

import orjson

from penstock.handlers import Context, handler

_LOG = "EXECUTION_LOG"


def record(ctx: Context, event: str) -> None:
    path = os.environ.get(_LOG)
    if path is None:
        return
    line = {"t": time.time(), "pid": os.getpid(), "job": ctx.job_id, "attempt": ctx.attempt}
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, orjson.dumps({**line, "ev": event}, option=orjson.OPT_APPEND_NEWLINE))
    finally:
        os.close(file)


@handler("logged")
async def logged(payload: Any, ctx: Context) -> Any:
    """Sleeps for `seconds`, fails the first `failures` attempts, answers its payload."""
    record(ctx, "start")
    payload = payload or {}
    await asyncio.sleep(payload.get("seconds", 0))
    record(ctx, "end")
    if ctx.attempt <= payload.get("failures", 0):
        raise ValueError("as asked")
    return payload


@handler("logged-thread")
def logged_thread(payload: Any, ctx: Context) -> Any:
    """The same as a plain function, looking at its cancellation every 10 ms."""
    record(ctx, "start")
    until = time.monotonic() + (payload or {}).get("seconds", 0)
    while time.monotonic() < until:
        ctx.raise_if_cancelled()
        time.sleep(0.01)
    record(ctx, "end")
    return payload


@handler("stubborn")
async def stubborn(payload: Any) -> None:
    """Swallows its cancellation."""
    until = time.monotonic() + payload["seconds"]
    while time.monotonic() < until:
        try:
            await asyncio.sleep(until - time.monotonic())
        except asyncio.CancelledError:
            continue


@handler("blocking")
async def blocking(payload: Any, ctx: Context) -> None:
    """Blocks the event loop for `seconds`."""
    record(ctx, "start")
    time.sleep(payload["seconds"])  # noqa: ASYNC251 - that is the fault
    record(ctx, "end")


@handler("chatty")
async def chatty(payload: Any, ctx: Context) -> None:
    """Logs `lines` lines."""
    for number in range(payload["lines"]):
        ctx.log.info("line", number=number)


@handler("bound")
def bound(payload: Any) -> Any:
    """Answers the decimal precision that it found, and leaves another behind."""
    found = decimal.getcontext().prec
    decimal.getcontext().prec = payload
    return found
