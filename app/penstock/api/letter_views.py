"""Dead letters and deliveries as they are answered."""

from typing import Any

from penstock.api.problems import problem_of
from penstock.api.views import fragment, id_text, moment
from penstock.clock import rfc3339
from penstock.domain import ids
from penstock.domain.delivery import DeliveryView, EndpointView, endpoint_id, masked
from penstock.domain.effect import WaitsFor
from penstock.domain.errors import PenstockError
from penstock.domain.letter import GroupView, LetterView


def letter(view: LetterView) -> dict[str, Any]:
    return {
        "job_id": ids.text(view.job),
        "attempt": view.attempt,
        "queue": view.queue,
        "kind": view.kind,
        "error": fragment(view.error),
        "error_type": view.error_type,
        "fingerprint": view.fingerprint,
        "reason": view.reason,
        "died_at": rfc3339(view.died_at),
        "resolved_at": moment(view.resolved_at),
        "resolution": view.resolution,
        "resolved_by": view.resolved_by,
        "delivery": view.message,
    }


def group(view: GroupView) -> dict[str, Any]:
    sample = {
        "job_id": ids.text(view.job),
        "attempt": view.attempt,
        "queue": view.queue,
        "error": fragment(view.error),
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


def failure(id_: ids.JobId, error: PenstockError) -> dict[str, Any]:
    """A job that couldn't be replayed, with the problem that a replay of it alone would be."""
    problem = problem_of(error)
    assert problem is not None, error
    slug, detail = problem.slug, problem.detail
    return {"job_id": ids.text(id_), "type": f"/problems/{slug}", "detail": detail}


def delivery(view: DeliveryView) -> dict[str, Any]:
    return {
        "id": ids.text(view.id),
        "channel": view.channel,
        "endpoint": masked(view.endpoint),
        "endpoint_id": endpoint_id(view.endpoint),
        "message_id": view.dedupe,
        "event": view.event,
        "job_id": id_text(view.job),
        "workflow_id": id_text(view.workflow),
        "attempt": view.attempt,
        "state": view.state,
        "rule": view.rule,
        "created_at": rfc3339(view.at),
        "tries": view.tries,
        "outcome": view.outcome,
        "error": view.error,
        "next_try_at": moment(view.due_at),
        "waits_for": None if view.waits_for is WaitsFor.ASKED else view.waits_for,
        "part_of": id_text(view.part_of),
        "finished_at": moment(view.finished_at),
    }


def endpoint(view: EndpointView) -> dict[str, Any]:
    return {
        **enabled(view.endpoint, view.channel),
        "failing_since": rfc3339(view.failing_since),
        "failures": view.failures,
        "disabled_at": moment(view.disabled_at),
        "error": view.error,
    }


def enabled(endpoint: str, channel: str) -> dict[str, Any]:
    return {"id": endpoint_id(endpoint), "endpoint": masked(endpoint), "channel": channel}


def endpoint_key(view: EndpointView) -> bytes:
    """Where it stands in the list: cursors hold no URLs."""
    return bytes.fromhex(endpoint_id(view.endpoint))
