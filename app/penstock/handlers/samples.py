"""Handlers for trying things out: on in the development configuration only."""

import asyncio
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from penstock.clock import monotonic
from penstock.handlers.context import Context
from penstock.handlers.errors import AttemptFailed, PermanentError
from penstock.handlers.registry import handler

_DAY_S = 86_400
_REPORT_S = 1.0


class Sleep(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    seconds: Annotated[float, Field(ge=0, le=_DAY_S, allow_inf_nan=False)]


class Fail(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    type: Annotated[str, Field(min_length=1, max_length=200)] = "failed-as-asked"
    message: Annotated[str, Field(max_length=2000)] = "this job was asked to fail"
    retryable: bool = True


@handler("echo")
async def echo(payload: Any) -> Any:
    """The result is the payload."""
    return payload


@handler("sleep")
async def sleep(payload: Sleep, ctx: Context) -> dict[str, float]:
    """Waits without blocking anybody, and tells how far it has come."""
    until = monotonic() + payload.seconds
    while (left_s := until - monotonic()) > _REPORT_S:
        ctx.progress(100 * (1 - left_s / payload.seconds))
        await asyncio.sleep(_REPORT_S)
    await asyncio.sleep(max(left_s, 0))
    return {"slept_s": payload.seconds}


@handler("fail")
async def fail(payload: Fail | None) -> None:
    """Fails as the payload says."""
    wish = payload or Fail()
    error = AttemptFailed if wish.retryable else PermanentError
    raise error(wish.message, wish.type)
