"""Handlers that make spans and log lines of their own, and call and submit from within them."""

import logging
from typing import Any

from opentelemetry import trace

from penstock.handlers import Context, handler

_tracer = trace.get_tracer("tests")
_log = logging.getLogger("app.tests")


@handler("calls-and-submits")
async def calls_and_submits(payload: Any, ctx: Context) -> dict[str, Any]:
    ctx.log.info("calling")
    with _tracer.start_as_current_span("own"):
        await ctx.services.http.request("GET", payload["url"])
        ctx.submit("in-a-thread", max_attempts=1)
    return {"traceparent": ctx.traceparent, "tracestate": ctx.tracestate}


@handler("in-a-thread")
def in_a_thread(ctx: Context) -> str | None:
    with _tracer.start_as_current_span("own-in-thread"):
        _log.warning("said in a thread")
    return ctx.traceparent


@handler("fails-traced")
async def fails_traced() -> None:
    raise ValueError("as asked")
