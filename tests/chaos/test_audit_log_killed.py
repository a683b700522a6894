"""Whatever a replica dies of amid a call: the change is there if, and only if, its entry is."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.support.api import Api
from tests.support.replica import ReplicaProcess
from tests.support.waiting import eventually

JOB = {"kind": "nobodys", "queue": "mail"}
WORKFLOW = {"name": "one", "jobs": [{"name": "a", **JOB}]}
KEY = {"Idempotency-Key": "once"}

Call = tuple[str, Any, dict[str, str]]


async def submits(_: Api) -> Call:
    return "/v1/jobs", JOB, {}


async def submits_with_a_key(_: Api) -> Call:
    return "/v1/jobs", JOB, KEY


async def submits_a_workflow(_: Api) -> Call:
    return "/v1/workflows", WORKFLOW, {}


async def cancels(api: Api) -> Call:
    return f"/v1/jobs/{await api.submit(**JOB)}/cancel", None, {}


async def pauses(_: Api) -> Call:
    return "/v1/queues/mail/pause", None, {}


_STORED = "SELECT EXISTS (SELECT 1 FROM jobs)"
_CANCELLED = "SELECT EXISTS (SELECT 1 FROM job_ended)"
_PAUSED = "SELECT coalesce(bool_or(paused), false) FROM queues"


@pytest.mark.parametrize(
    ("point", "call", "is_there", "is_done"),
    [
        ("before_commit", submits, _STORED, False),
        ("after_commit", submits, _STORED, True),
        ("after_commit_keyed", submits_with_a_key, _STORED, True),
        ("before_commit_graph", submits_a_workflow, _STORED, False),
        ("after_commit_graph", submits_a_workflow, _STORED, True),
        ("after_cancel", cancels, _CANCELLED, True),
        ("before_change", pauses, _PAUSED, False),
        ("after_change", pauses, _PAUSED, True),
    ],
)
async def test_a_death_leaves_both_or_neither(
    dsn: str,
    redis_url: str,
    workplace: Path,
    point: str,
    call: Callable[[Api], Awaitable[Call]],
    is_there: str,
    is_done: bool,
) -> None:
    armed = {"PENSTOCK_CHAOS": f"{point}:#1:exit"}
    replica = ReplicaProcess(dsn, redis_url, workplace, armed)
    replica.start()
    try:
        await replica.ready()
        async with Api(replica.url) as api:
            path, body, headers = await call(api)
            with pytest.raises(aiohttp.ClientError):
                await api.call("POST", path, body, {**headers, "X-Request-Id": "this"})

        async def ended() -> bool:
            return replica.ended

        await eventually(ended, "the replica has died")
    finally:
        replica.kill()
    con = await asyncpg.connect(dsn)
    entries = await con.fetchval("SELECT count(*) FROM audit_log WHERE request_id = 'this'")
    assert await con.fetchval(is_there) is is_done
    assert entries == int(is_done)
    await con.close()
