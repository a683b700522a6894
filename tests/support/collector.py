"""A collector of spans: what OTLP over HTTP brings, decoded by OpenTelemetry's own schema."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.egress.receiver import Receiver, receiver, saying
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Told:
    """A span, with its ids in hexadecimal. `links`: (trace, span)."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: list[tuple[str, str]]
    attributes: dict[str, Any]
    is_error: bool
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.id}-01"


@dataclass
class Collector:
    receiver: Receiver

    @property
    def url(self) -> str:
        return self.receiver.url

    def spans(self) -> list[Told]:
        return [span for seen in self.receiver.seen for span in _spans(seen.headers, seen.body)]

    def resource(self) -> dict[str, Any]:
        first = self.receiver.seen[0]
        return _attributes(_request(first.headers, first.body).resource_spans[0].resource)

    async def named(self, name: str, count: int = 1) -> list[Told]:
        """The spans of that name, once there are so many."""

        async def look() -> list[Told]:
            found = [span for span in self.spans() if span.name == name]
            return found if len(found) >= count else []

        return await eventually(look, f"{count} spans named {name}", within_s=15)


@asynccontextmanager
async def collector(status: int = 200) -> AsyncIterator[Collector]:
    async with receiver(saying(status=status)) as one:
        yield Collector(one)


def _request(headers: Any, body: bytes) -> ExportTraceServiceRequest:
    raw = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
    decoded: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(raw)
    return decoded


def _spans(headers: Any, body: bytes) -> list[Told]:
    return [
        _told(span)
        for resource in _request(headers, body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _told(span: Span) -> Told:
    return Told(
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        [(one.trace_id.hex(), one.span_id.hex()) for one in span.links],
        _attributes(span),
        span.status.code == 2,
        [_attributes(event) for event in span.events],
    )


def _attributes(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}
