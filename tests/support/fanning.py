"""Handlers that submit jobs and look at their parents, as their payloads say."""

from typing import Any

from penstock.handlers import Context, PermanentError, handler
from tests.support import gates


def _submit(payload: Any, ctx: Context) -> dict[str, Any]:
    """`jobs` are the arguments of as many calls; `fails` says whether it then raises."""
    ids = [ctx.submit(**job) for job in payload["jobs"]]
    if payload.get("fails"):
        raise PermanentError("as asked")
    return {"ids": ids}


@handler("fan")
async def fan(payload: Any, ctx: Context) -> Any:
    return _submit(payload, ctx)


@handler("fan-thread")
def fan_thread(payload: Any, ctx: Context) -> Any:
    return _submit(payload, ctx)


@handler("fan-gated")
async def fan_gated(payload: Any, ctx: Context) -> Any:
    """Waits for its gate when it has submitted."""
    ids = _submit(payload, ctx)
    await gates.gated(None, ctx)
    return ids


@handler("seen")
async def seen(payload: Any, ctx: Context) -> Any:
    """Answers what it sees."""
    return {
        "payload": payload,
        "name": ctx.name,
        "workflow_id": ctx.workflow_id,
        "parents": {name: [one.state, one.result] for name, one in ctx.parents.items()},
    }


@handler("seen-thread")
def seen_thread(payload: Any, ctx: Context) -> Any:
    return {"payload": payload, "parents": {n: p.result for n, p in ctx.parents.items()}}
