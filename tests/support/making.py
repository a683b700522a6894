"""Jobs, attempts and endings that fit together; a test names only what it is about."""

import itertools
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.ids import JobId, Minter, WorkerId
from penstock.domain.job import Due, NewJob, OnLost, Started
from penstock.domain.retry import DEFAULT_BACKOFF

NOON_MS = 1_795_000_000_000  # 2026-11-18T11:06:40Z
NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)

SUCCESS = Ending(Outcome.SUCCEEDED, result='{"answer":42}')
FAILURE = Ending(Outcome.FAILED, failure=Failure("oops", "as asked"))
FINAL_FAILURE = replace(FAILURE, retryable=False)
CRASH = Ending(Outcome.CRASHED, failure=Failure("crashed", "ended by SIGSEGV"))
TIMEOUT = Ending(Outcome.TIMED_OUT, failure=Failure("timeout", "too long"))

_ticks = itertools.count(NOON_MS - 10 * 365 * 86_400_000)  # older than any clock that runs today
_minter = Minter(lambda: next(_ticks), secrets.randbits)


def job_id() -> JobId:
    """Ids grow from call to call."""
    return JobId(_minter.mint())


def job_ids(count: int) -> list[JobId]:
    return [job_id() for _ in range(count)]


def worker_id() -> WorkerId:
    return WorkerId(_minter.mint())


def new_job(**fields: Any) -> NewJob:
    return NewJob(**{"id": job_id(), "queue": "default", "kind": "echo", **fields})


def new_jobs(count: int, **fields: Any) -> list[NewJob]:
    return [new_job(**fields) for _ in range(count)]


def due(**fields: Any) -> Due:
    defaults = {"queue": "default", "kind": "echo", "priority": 5, "ready_ms": NOON_MS}
    return Due(**{"id": job_id(), **defaults, **fields})


def started(**fields: Any) -> Started:
    defaults: dict[str, Any] = {
        "attempt": 1,
        "worker": worker_id(),
        "queue": "default",
        "kind": "echo",
        "priority": 5,
        "payload": "null",
        "failures": 0,
        "losses": 0,
        "crashes": 0,
        "max_attempts": 5,
        "backoff": DEFAULT_BACKOFF,
        "timeout_s": 300.0,
        "on_lost": OnLost.RETRY,
        "ready_at": NOON,
        "started_at": NOON,
    }
    return Started(**{"id": job_id(), **defaults, **fields})
