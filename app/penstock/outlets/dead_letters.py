"""How a dead letter looks on a broker: CloudEvents 1.0 in binary mode, the value is the job itself.

In: a message of the relay. Out: its headers, and a reference in its place where it is too large.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from penstock.domain import ids
from penstock.domain.effect import Delivery, Fate, Message
from penstock.outlets.events import attributes

_ERROR_MAX = 1000  # characters of an error's text in a reference
_TOLD_MAX = 500  # of our own errors
_OF_TRACES = ("traceparent", "tracestate")  # as all other parts of a system read them
_KEPT = ("id", "kind", "queue", "state", "workflow_id", "name", "created_at", "finished_at")


def key_of(message: Message) -> str:
    """The id of the job, so that all deaths of one job stay in their order."""
    job = message.effect.job
    assert job is not None, "a dead letter tells of a job"
    return ids.text(job)


def headers_of(message: Message) -> dict[str, str]:
    """Context attributes as `ce_…` (CloudEvents Kafka binding, 3.2); `ce_id` is the same at each
    try, and another when a replayed job dies again."""
    headers = {"content-type": "application/json"}
    for name, value in attributes(message).items():
        headers[name if name in _OF_TRACES else f"ce_{name}"] = value
    return headers


def size_of(key: str, value: bytes, headers: Mapping[str, str]) -> int:
    """Bytes that it takes in a request, at most."""
    return len(key) + len(value) + sum(len(k) + len(v.encode()) + 10 for k, v in headers.items())


def reference_to(message: Message, whole_bytes: int) -> bytes:
    """What is sent where the whole is too large: which job, how it ended and where to get it."""
    job: dict[str, Any] = orjson.loads(message.data)
    kept = {name: job[name] for name in _KEPT if name in job}
    effect = message.effect
    return orjson.dumps(
        kept
        | {
            "id": key_of(message),
            "attempt": effect.attempt,
            "reason": effect.reason,
            "error": _error(job.get("error")),
            "reference": {"href": f"/v1/jobs/{key_of(message)}", "bytes": whole_bytes},
        }
    )


def later(error: BaseException | str) -> Delivery:
    """It may work another time; says why it didn't."""
    return Delivery(Fate.LATER, told(error))


def told(error: BaseException | str) -> str:
    """One line for an operator."""
    if isinstance(error, str):
        return error[:_TOLD_MAX]
    name, text = type(error).__name__, " ".join(str(error).split())
    return (text if text.startswith(name) else f"{name}: {text}" if text else name)[:_TOLD_MAX]


def _error(error: object) -> object:
    if not isinstance(error, dict):
        return None
    return {name: str(error.get(name, ""))[:_ERROR_MAX] for name in ("type", "message")}
