"""A door without rooms behind it: what it refuses by itself needs no store."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import jwt
import pytest

from penstock.api.app import serve
from penstock.api.auth import TokenRules, Verifier, key_set
from penstock.api.door import Door, Limits
from penstock.commands.refusals import Refusals
from penstock.domain.autoscale import Cluster
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import Minter
from penstock.domain.readiness import Readiness
from penstock.telemetry.metrics import Metrics

SECRET = "a-secret-of-the-tests-with-32-bytes-and-more"
NOW_MS = 1_795_000_000_000  # 2026-11-18T11:06:40Z


def payload_errors(kind: str, payload: Any) -> list[tuple[str, str]]:
    """One kind is known here, `picky`, and it wants {"url": …}."""
    if kind != "picky" or (isinstance(payload, dict) and "url" in payload):
        return []
    return [("/url", "is required")]


class Away:
    """Reads of a PostgreSQL that doesn't answer."""

    async def cluster(self) -> Cluster:
        raise StoreUnavailable("it is away")


@pytest.fixture
def door() -> Door:
    nothing = cast(Any, None)
    return Door(
        submitter=nothing,
        changes=nothing,
        reads=cast(Any, Away()),
        lists=nothing,
        workflows=nothing,
        workflow_reads=nothing,
        letters=nothing,
        dead_letters=nothing,
        deliveries=nothing,
        audit_log=nothing,
        refusals=Refusals(nothing, 0, Metrics()),
        waiters=nothing,
        reloader=nothing,
        minter=Minter(lambda: NOW_MS, secrets.randbits),
        verifier=Verifier(key_set(SECRET), TokenRules()),
        now_ms=lambda: NOW_MS,
        payload_errors=payload_errors,
        readiness=lambda: Readiness(ready=True),
        metrics=Metrics(),
        limits=Limits(
            body_max_bytes=2000,
            batch_body_max_bytes=200_000,
            batch_jobs_max=500,
            body_timeout_s=0.3,
            head_timeout_s=0.3,
        ),
    )


@pytest.fixture
def token() -> Callable[..., str]:
    """Makes a good token; claims given replace those of it, None leaves one out."""

    def make(**claims: Any) -> str:
        whole = {"sub": "ada", "exp": int(time.time()) + 60, "roles": ["admin"], **claims}
        kept = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(kept, SECRET, "HS256")

    return make


Served = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture
def served(door: Door) -> Served:
    """Opens the door on a free port, with some of its parts replaced."""

    @asynccontextmanager
    async def opened(**parts: Any) -> AsyncIterator[int]:
        async with serve(replace(door, **parts), "127.0.0.1", 0, shutdown_s=0.1) as front:
            yield front.port

    return opened
