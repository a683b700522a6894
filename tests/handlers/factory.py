"""Contexts for tests: a job that has begun, with defaults for what a test doesn't care about."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from penstock.clock import monotonic
from penstock.domain.attempt import Ending
from penstock.domain.ids import JobId
from penstock.domain.job import OnLost, Started
from penstock.domain.retry import DEFAULT_BACKOFF
from penstock.egress import Egress
from penstock.handlers import Context, Handler, LogLimits, Registry, Services, ending_of, failure_of

JOB_ID = "01939f3e-7a00-7000-8000-0000000000aa"
RESULT_MAX_BYTES = 1024 * 1024
_AT = datetime(2026, 11, 21, 10, tzinfo=UTC)

STARTED = Started(
    id=JobId(bytes.fromhex(JOB_ID.replace("-", ""))),
    attempt=3,
    worker=bytes(16),
    queue="default",
    kind="test",
    priority=5,
    payload="null",
    failures=1,
    losses=0,
    crashes=0,
    max_attempts=5,
    backoff=DEFAULT_BACKOFF,
    timeout_s=300.0,
    on_lost=OnLost.RETRY,
    ready_at=_AT,
    started_at=_AT,
    tags=("blue",),
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    created_by="ann",
)


def context(
    *,
    http: Egress | None = None,
    remaining_s: float = 30.0,
    limits: LogLimits | None = None,
    **fields: Any,
) -> Context:
    """The context of an attempt; `fields` replace those of STARTED."""
    services = Services(http=http or Egress())
    job = replace(STARTED, **fields)
    return Context(job, monotonic() + remaining_s, services, limits or LogLimits())


def handler_of(kind: str, *modules: str) -> Handler:
    handler = Registry.load(modules).get(kind)
    assert handler is not None
    return handler


async def run(handler: Handler, payload: Any, ctx: Context) -> Ending:
    """One attempt, as the worker makes it."""
    try:
        result = handler.invoke(orjson.dumps(payload).decode(), ctx)
        return ending_of(await result if handler.is_async else result, RESULT_MAX_BYTES)
    except Exception as exc:
        return failure_of(exc)
