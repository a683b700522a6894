"""Where our spans go: OTLP over HTTP, by OpenTelemetry's SDK (the extra [otel]).

In: spans that ended. Out: batches, sent by a thread of the SDK's. Always holds: nobody waits for
the collector; so many spans may be on their way, what ends meanwhile is dropped and counted, and so
is what the collector doesn't take. What isn't set here, the SDK takes from `OTEL_…` variables. If
we die, spans on their way are lost. Imported only where tracing is on.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import unquote

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import get_current_span

from penstock import VERSION
from penstock.telemetry import scope, tracing
from penstock.telemetry.bucket import Budget
from penstock.telemetry.tracing import Export, losses

_PATH = "/v1/traces"
_AT_ONCE = 512
_DELAY_MS = 1000.0
_LAST_S = 3.0  # for what is on its way at the end


class Exported:
    """Spans are made from now on, until `close`."""

    def __init__(self, export: Export, exporter: SpanExporter | None = None) -> None:
        """`exporter`: another than OTLP, for tests."""
        budget: Budget | None = None
        root: Sampler | None = None  # by OTEL_TRACES_SAMPLER, else all
        if export.sample_ratio is not None:
            root = TraceIdRatioBased(export.sample_ratio)
        elif export.per_s is not None:
            budget = Budget(export.per_s)
            root = _PerSecond(budget)
        sampler = None if root is None else ParentBased(root)
        self._exporter = exporter or _otlp(export)
        self._provider = TracerProvider(sampler, _resource(), shutdown_on_exit=False)
        self._provider.sampler = _AsItsJob(self._provider.sampler)
        self._provider.add_span_processor(_Bounded(self._exporter, export.waiting_max))
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self._provider)  # handlers' own spans
        tracing.use(self._provider, budget)

    def close(self, within_s: float = _LAST_S) -> None:
        """Sends what is on its way, and gives up when the time is over."""
        tracing.use(None)
        last = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        last.start()
        last.join(within_s)
        if last.is_alive():
            with suppress(Exception):  # it is being shut down by two at once
                self._exporter.shutdown()


class _PerSecond(Sampler):
    """Of the traces that begin here so many a second are kept: all while there is little to do, and
    under load what its spans cost stays the same. A ratio would show nearly nothing of the one, or
    cost a multiple of the other's jobs."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def should_sample(self, *asked: Any, **more: Any) -> SamplingResult:
        return (ALWAYS_ON if self._budget.take(1) else ALWAYS_OFF).should_sample(*asked, **more)

    def get_description(self) -> str:
        return f"PerSecond{{{self._budget.per_s:g}}}"


class _AsItsJob(Sampler):
    """A job without a trace is in none that is kept: so are the spans that its handler makes, which
    would begin traces of their own."""

    def __init__(self, others: Sampler) -> None:
        self._others = others

    def should_sample(
        self, parent_context: Context | None, *asked: Any, **more: Any
    ) -> SamplingResult:
        others = self._others
        if not get_current_span(parent_context).get_span_context().is_valid:
            about = scope.fields()
            if "job_id" in about and "trace_id" not in about:
                others = ALWAYS_OFF
        return others.should_sample(parent_context, *asked, **more)

    def get_description(self) -> str:
        return self._others.get_description()


class _Bounded(SpanProcessor):
    """Passes on so many spans that the SDK's own queue is never full: then we know what is lost."""

    def __init__(self, exporter: SpanExporter, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._waiting = 0
        self._lock = threading.RLock()  # finalisers of handlers' may end spans, whatever they break
        self._next = BatchSpanProcessor(
            _Counting(exporter, self._sent),
            max_queue_size=waiting_max,
            schedule_delay_millis=_DELAY_MS,
            max_export_batch_size=min(_AT_ONCE, waiting_max),
        )

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            if self._waiting >= self._waiting_max:
                losses.full += 1
                return
            self._waiting += 1
        self._next.on_end(span)

    def shutdown(self) -> None:
        self._next.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._next.force_flush(timeout_millis)

    def _sent(self, count: int, taken: bool) -> None:
        with self._lock:
            self._waiting -= count
            losses.refused += 0 if taken else count


class _Counting(SpanExporter):
    """Tells how many spans have gone, and whether the collector took them."""

    def __init__(self, exporter: SpanExporter, sent: "tracing.Sent") -> None:
        self._exporter = exporter
        self._sent = sent

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._sent(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _otlp(export: Export) -> SpanExporter:
    endpoint = export.endpoint
    if endpoint is not None and not endpoint.endswith(_PATH):
        endpoint = endpoint.rstrip("/") + _PATH
    return OTLPSpanExporter(
        endpoint=endpoint, headers=_headers(export.headers), timeout=export.timeout_s
    )


def _headers(text: str | None) -> dict[str, str] | None:
    """As OTEL_EXPORTER_OTLP_HEADERS has them: name=value,name=value, percent-encoded."""
    if text is None:
        return None
    pairs = (one.partition("=") for one in text.split(","))
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}


def _resource() -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, else our name."""
    found = Resource.create({"service.version": VERSION})
    name = cast(str, found.attributes.get(SERVICE_NAME, ""))
    is_named = bool(name) and not name.startswith("unknown_service")
    return found if is_named else found.merge(Resource({SERVICE_NAME: "penstock"}))
