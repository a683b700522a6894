"""What is answered: jobs, attempts, log lines, queues and workers as the JSON of api.md.

In: what the store read, or what was just submitted. Out: dicts for orjson. JSON that we keep as
text (payload, result, error) goes out as that text, without being decoded.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from penstock.clock import rfc3339
from penstock.domain import ids
from penstock.domain.delivery import masked
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL, NewJob, State
from penstock.domain.retry import Backoff
from penstock.domain.trace import parent_of
from penstock.domain.view import (
    AttemptView,
    DeadJobView,
    JobView,
    LogView,
    MemberView,
    ProgressView,
    QueueView,
    WorkerView,
    WorkflowView,
)

_JSON = {"Content-Type": "application/json"}

# Fields of the contract that nothing sets yet.
_UNSET: dict[str, Any] = {"concurrency_key": None}


def answer(body: Any, status: int = 200) -> web.Response:
    """A JSON response, with a line end for those who read it in a terminal."""
    text = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=text, status=status, headers=_JSON)


def page(
    items: Sequence[Any], cursor: str | None = None, more: Mapping[str, Any] | None = None
) -> web.Response:
    """A list in the envelope of pages; `cursor` is that of the next page, if there is one."""
    return answer({"items": items, "next_cursor": cursor, **(more or {})})


def job(view: JobView) -> dict[str, Any]:
    return {
        "id": ids.text(view.id),
        "kind": view.kind,
        "queue": view.queue,
        "state": view.state,
        "priority": view.priority,
        "payload": orjson.Fragment(view.payload),
        "result": fragment(view.result),
        "error": fragment(view.error),
        "attempt": view.attempt,
        "failures": view.failures,
        "crashes": view.crashes,
        "max_attempts": view.max_attempts,
        "on_lost": view.on_lost,
        "backoff": _backoff(view.backoff),
        "timeout_s": float(view.timeout_s),
        "run_at": rfc3339(view.run_at),
        "created_at": rfc3339(view.created_at),
        "started_at": moment(view.started_at),
        "finished_at": moment(view.finished_at),
        "tags": view.tags,
        "cancel_reason": view.reason if view.state is State.CANCELLED else None,
        "worker": id_text(view.worker),
        "traceparent": parent_of(view.traceparent),
        "created_by": view.created_by,
        "unique_key": view.unique_key,
        "expires_at": moment(view.expires_at),
        "progress": _progress(view.progress),
        "workflow_id": id_text(view.workflow_id),
        "name": view.name,
        "depends_on": view.depends_on,
        "run_if": view.run_if,
        "notify": _notify(view.notify),
        **_UNSET,
    }


def listed_job(view: JobView, included: Collection[str]) -> dict[str, Any]:
    """A job in a list: its payload and result only where they are asked for."""
    shown = job(view)
    for name in ("payload", "result"):
        if name not in included:
            del shown[name]
    return shown


def standing(new: NewJob, at: datetime) -> tuple[State, datetime]:
    """Where a job stands that was committed `at`, and when it runs first; as if its parents had
    had no end by then."""
    run_at = at + timedelta(seconds=new.delay_s) if new.delay_s is not None else new.run_at
    if new.depends_on:
        return State.BLOCKED, at if run_at is None else max(run_at, at)
    return (State.READY, at) if run_at is None or run_at <= at else (State.SCHEDULED, run_at)


def submitted(new: NewJob, at: datetime, stands: State | None = None) -> dict[str, Any]:
    """A job that was committed `at`, without reading it back. `stands`: where its parents' ends
    have put it already."""
    state, run_at = standing(new, at)
    state = stands or state
    created_at = datetime.fromtimestamp(ids.created_ms(new.id) / 1000, UTC)
    return job(
        JobView(
            id=new.id,
            queue=new.queue,
            kind=new.kind,
            state=state,
            priority=new.priority,
            payload=new.payload,
            result=None,
            error=None,
            attempt=0,
            failures=0,
            crashes=0,
            max_attempts=new.max_attempts,
            on_lost=new.on_lost,
            backoff=new.backoff,
            timeout_s=new.timeout_s,
            run_at=run_at,
            created_at=created_at,
            started_at=None,
            finished_at=at if state in TERMINAL else None,
            reason=None,
            worker=None,
            tags=new.tags,
            traceparent=new.traceparent,
            created_by=new.created_by,
            unique_key=new.unique_key,
            expires_at=_expires_at(new, at),
            workflow_id=new.workflow_id,
            name=new.name,
            depends_on=new.depends_on,
            run_if=new.run_if if new.depends_on else None,
            notify=new.notify,
        )
    )


def _expires_at(new: NewJob, at: datetime) -> datetime | None:
    """As submit_jobs has it."""
    if new.ttl_s is None:
        return new.expires_at
    expires_at = at + timedelta(seconds=new.ttl_s)
    return expires_at if new.expires_at is None else max(new.expires_at, expires_at)


def workflow(view: WorkflowView) -> dict[str, Any]:
    """A workflow without its jobs."""
    created_at = datetime.fromtimestamp(ids.created_ms(view.id) / 1000, UTC)
    return {
        "id": ids.text(view.id),
        "name": view.name,
        "state": view.state,
        "on_failure": view.on_failure,
        "halt": view.halt,
        "counts": {state.value: view.counts.get(state, 0) for state in State},
        "created_at": rfc3339(created_at),
        "finished_at": moment(view.finished_at),
        "held_by": id_text(view.held_by),
        "notify": _notify(view.notify),
        "traceparent": parent_of(view.traceparent),
        "created_by": view.created_by,
    }


def member(view: MemberView) -> dict[str, Any]:
    """A job as its workflow shows it."""
    created_at = datetime.fromtimestamp(ids.created_ms(view.id) / 1000, UTC)
    return {
        "id": ids.text(view.id),
        "name": view.name,
        "kind": view.kind,
        "queue": view.queue,
        "state": view.state,
        "depends_on": view.depends_on,
        "run_if": view.run_if,
        "attempt": view.attempt,
        "created_at": rfc3339(created_at),
        "started_at": moment(view.started_at),
        "finished_at": moment(view.finished_at),
    }


def dead_job(view: DeadJobView) -> dict[str, Any]:
    """A dead job as its workflow names it."""
    error = None
    if view.error_type is not None:
        error = {"type": view.error_type, "message": view.message}
    return {"id": ids.text(view.id), "name": view.name, "kind": view.kind, "error": error}


def brief(id_: JobId, state: State) -> dict[str, str]:
    """A job of a batch."""
    return {"id": ids.text(id_), "state": state}


def attempt(view: AttemptView) -> dict[str, Any]:
    return {
        "attempt": view.attempt,
        "worker": ids.text(view.worker),
        "started_at": rfc3339(view.started_at),
        "finished_at": moment(view.finished_at),
        "outcome": view.outcome,
        "error": fragment(view.error),
        "next_run_at": moment(view.next_run_at),
    }


def log_line(view: LogView) -> dict[str, Any]:
    return {
        "time": rfc3339(view.at),
        "attempt": view.attempt,
        "level": view.level,
        "message": view.message,
    }


def queue(view: QueueView) -> dict[str, Any]:
    return {
        "name": view.name,
        "paused": view.paused,
        "counts": {state.value: view.counts.get(state, 0) for state in State},
        "oldest_ready_age_s": view.oldest_ready_age_s,
        "throughput": {
            "succeeded_per_s": round(view.succeeded_per_s, 3),
            "dead_per_s": round(view.dead_per_s, 3),
        },
        "settings": {"priority_aging_s": view.priority_aging_s},
    }


def worker(view: WorkerView, queues: Sequence[str]) -> dict[str, Any]:
    """`queues`: those of its globs that the caller may read."""
    return {
        "id": ids.text(view.id),
        "host": view.host,
        "version": view.version,
        "queues": queues,
        "kinds": view.kinds,
        "slots": view.slots,
        "running": view.running,
        "started_at": rfc3339(view.started_at),
        "last_heartbeat_at": rfc3339(view.last_heartbeat_at),
        "state": "condemned" if view.condemned else "live",
    }


def _backoff(backoff: Backoff) -> dict[str, Any]:
    return {
        "kind": backoff.kind,
        "base_s": backoff.base_s,
        "factor": backoff.factor,
        "max_s": backoff.max_s,
        "jitter": backoff.jitter,
    }


def _progress(view: ProgressView | None) -> dict[str, Any] | None:
    return None if view is None else {"percent": view.percent, "message": view.message}


def _notify(text: str | None) -> list[dict[str, Any]]:
    """Of URLs only where they lead, as with deliveries: the rest may be secret."""
    wishes: list[dict[str, Any]] = [] if text is None else orjson.loads(text)
    for wish in wishes:
        if "webhook" in wish:
            wish["webhook"] = masked(wish["webhook"])
    return wishes


def fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def id_text(id_: bytes | None) -> str | None:
    return None if id_ is None else ids.text(id_)


def moment(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
