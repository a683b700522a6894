"""Handlers that go on when the test says so, in the test's own process."""

import asyncio
import threading
from typing import Any

from penstock.domain.ids import JobId
from penstock.handlers import Context, handler

_gates: dict[bytes, asyncio.Event] = {}
_barred: dict[bytes, threading.Event] = {}


def let_go(*ids: JobId) -> None:
    """These jobs may end, now or when they begin."""
    for id_ in ids:
        _gates.setdefault(id_, asyncio.Event()).set()
        _barred.setdefault(id_, threading.Event()).set()


@handler("gated")
async def gated(payload: Any, ctx: Context) -> Any:
    await _gates.setdefault(ctx.job.id, asyncio.Event()).wait()
    return payload


@handler("gated-thread")
def gated_thread(payload: Any, ctx: Context) -> Any:
    """Looks at nothing but its gate."""
    _barred.setdefault(ctx.job.id, threading.Event()).wait(10)
    return payload


@handler("telling")
async def telling(payload: list[int], ctx: Context) -> None:
    """Reports each of these percentages."""
    for percent in payload:
        ctx.progress(percent, "told")


@handler("telling-thread")
def telling_thread(payload: list[int], ctx: Context) -> None:
    for percent in payload:
        ctx.progress(percent, "told")


@handler("gated-stubborn")
async def gated_stubborn(ctx: Context) -> None:
    """Swallows its cancellation."""
    gate = _gates.setdefault(ctx.job.id, asyncio.Event())
    while not gate.is_set():
        try:
            await gate.wait()
        except asyncio.CancelledError:
            continue
