"""The spans of attempts and of deliveries, and the trace that goes on from each.

Only while tracing is on. An attempt is a CONSUMER span in the trace that its job was submitted in,
a child of the submission and linked to it (decision 0032); what its handler calls and submits is
its child. A delivery is a PRODUCER span in that trace, CLIENT where it is a call of a URL.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.domain import ids
from penstock.domain.attempt import Ending, Outcome
from penstock.domain.effect import Channel, Delivery, Fate, Message
from penstock.domain.errors import WrongSetting
from penstock.domain.job import Started
from penstock.domain.trace import is_kept, sound
from penstock.domain.workflow import LOOSE
from penstock.handlers.context import Context
from penstock.settings import environment
from penstock.settings.tracing import Tracing
from penstock.telemetry import tracing
from penstock.telemetry.tracing import CLIENT, CONSUMER, PRODUCER, Begun, Export, Within

if TYPE_CHECKING:
    from penstock.telemetry.spans import Exported

_SAMPLER = "OTEL_TRACES_SAMPLER"  # who sets it goes by it
_SYSTEM = {"messaging.system": "penstock"}
_FAILED = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.LOST)


def begun(context: Context) -> Begun | None:
    """An attempt begins here; what its handler sends on from now on is this span. A job without a
    trace has none: nobody keeps it, so it costs nothing."""
    job = context.job
    trace = sound(job.traceparent)
    if trace is None:
        return None
    if not is_kept(trace):
        return tracing.passed_through(trace)
    within = Within(trace, is_linked=True, enters=True)
    span = tracing.begin(f"process {job.kind}", CONSUMER, _attributes(job), within)
    context.job = replace(job, traceparent=span.trace)
    return span


def ended(span: Begun, ending: Ending | None) -> None:
    """The type of a failure is told, and its text: as the API does. None: we end amid it."""
    if ending is None:
        span.give_up()
        return
    if not span.is_kept:
        span.end()
        return
    span.told({"penstock.job.outcome": ending.outcome.value})
    failure = ending.failure
    if failure is not None:
        span.end(failure.type, failure.message)
    else:
        span.end(ending.outcome.value if ending.outcome in _FAILED else None)


def deliveries(
    channel: Channel, messages: Sequence[Message]
) -> tuple[list[Begun | None], list[Message]]:
    """Their spans, and the messages with these in the place of the submissions' traces. What tells
    of a job without a trace has none either."""
    spans = [_delivery(channel, one) for one in messages]
    told = [
        one if span is None else replace(one, traceparent=span.trace)
        for one, span in zip(messages, spans, strict=True)
    ]
    return spans, told


def delivered(spans: Sequence[Begun | None], fates: Sequence[Delivery]) -> None:
    for span, one in zip(spans, fates, strict=True):
        if span is not None:
            span.told({"penstock.delivery.outcome": one.fate.value})
            span.end(None if one.fate is Fate.DELIVERED else one.fate.value, one.error or "")


def export_of(settings: Tracing) -> Export | None:
    """Where spans go; None while tracing is off."""
    if not settings.enabled:
        return None
    secret = settings.headers
    return Export(
        settings.endpoint,
        None if secret is None else secret.get_secret_value(),
        settings.sample_ratio,
        None if environment().get(_SAMPLER) else settings.per_s,
        settings.timeout_s,
        settings.waiting_max,
    )


@asynccontextmanager
async def spans(settings: Tracing) -> AsyncIterator[None]:
    """Spans are made meanwhile, if they are to be, and the last ones sent. Raises WrongSetting."""
    made = exported(export_of(settings))
    try:
        yield
    finally:
        if made is not None:
            await asyncio.to_thread(made.close)


def exported(export: Export | None) -> "Exported | None":
    """Spans are made from now on, if they are to be. Raises WrongSetting."""
    if export is None:
        return None
    try:
        from penstock.telemetry.spans import Exported  # noqa: PLC0415 - the extra [otel]
    except ImportError as error:
        raise WrongSetting(
            f"tracing.enabled needs the extra [otel] ({error}): pip install 'penstock[otel]', or "
            "set it to false"
        ) from None
    return Exported(export)


def _attributes(job: Started) -> dict[str, str | int]:
    told: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": job.queue,
        "messaging.message.id": ids.text(job.id),
        "penstock.job.kind": job.kind,
        "penstock.job.attempt": job.attempt,
    }
    if job.graph_id not in (None, LOOSE):
        told["penstock.workflow.id"] = ids.text(job.graph_id)
    return told


def _delivery(channel: Channel, message: Message) -> Begun | None:
    effect, trace = message.effect, sound(message.traceparent)
    if trace is None and (effect.job is not None or effect.workflow is not None):
        return None
    attributes: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": channel.value,
        "messaging.message.id": effect.dedupe,
        "penstock.event": effect.event,
    }
    if effect.job is not None:
        attributes["penstock.job.id"] = ids.text(effect.job)
    kind = CLIENT if channel is Channel.WEBHOOK else PRODUCER
    within = Within(trace, is_linked=True)
    return tracing.begin(f"send {channel.value}", kind, attributes, within)
