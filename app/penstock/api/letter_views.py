"""Dead letters and deliveries as they are answered."""

from datetime import datetime
from typing import Any

import orjson

from penstock.clock import rfc3339
from penstock.domain import ids
from penstock.domain.letter import GroupView, LetterView


def letter(view: LetterView) -> dict[str, Any]:
    return {
        "job_id": ids.text(view.job),
        "attempt": view.attempt,
        "queue": view.queue,
        "kind": view.kind,
        "error": _fragment(view.error),
        "error_type": view.error_type,
        "fingerprint": view.fingerprint,
        "reason": view.reason,
        "died_at": rfc3339(view.died_at),
        "resolved_at": _time(view.resolved_at),
        "resolution": view.resolution,
        "resolved_by": view.resolved_by,
        "delivery": view.message,
    }


def group(view: GroupView) -> dict[str, Any]:
    sample = {
        "job_id": ids.text(view.job),
        "attempt": view.attempt,
        "queue": view.queue,
        "error": _fragment(view.error),
    }
    return {
        "fingerprint": view.fingerprint,
        "kind": view.kind,
        "error_type": view.error_type,
        "count": view.count,
        "first_at": rfc3339(view.first),
        "last_at": rfc3339(view.last),
        "sample": sample,
    }


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
