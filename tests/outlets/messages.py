"""Messages as the relay hands them to a way out."""

import secrets
from dataclasses import replace
from typing import Any

import orjson

from penstock.domain import ids
from penstock.domain.effect import Channel, Effect, Message
from tests.support.making import NOON, job_id

JOB: dict[str, Any] = {
    "id": "0",
    "kind": "report",
    "queue": "billing",
    "state": "dead",
    "attempt": 3,
    "failures": 3,
    "max_attempts": 3,
    "error": {"type": "oops", "message": "as asked", "details": None},
    "created_at": "2026-11-18T11:00:00.000Z",
    "created_by": "alice",
    "started_at": "2026-11-18T11:06:00.000Z",
    "finished_at": "2026-11-18T11:06:40.000Z",
    "tags": ["red", "blue"],
    "workflow_id": None,
    "name": None,
}


def effect(channel: Channel, endpoint: str, **fields: Any) -> Effect:
    job = job_id()
    made = Effect(
        id=secrets.token_bytes(16),
        channel=channel,
        endpoint=endpoint,
        dedupe=f"{ids.text(job)}:3:penstock.job.dead.v1:0123456789ab",
        event="penstock.job.dead.v1",
        job=job,
        workflow=None,
        attempt=3,
        state="dead",
        reason="attempts-exhausted",
        rule=None,
        at=NOON,
        tries=1,
    )
    return replace(made, **fields)


def message(channel: Channel, endpoint: str, **data: Any) -> Message:
    text = orjson.dumps({**JOB, **data}).decode()
    return Message(effect(channel, endpoint), text, "00-" + "1" * 32 + "-" + "2" * 16 + "-01")
