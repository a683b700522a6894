"""What the settings ask for of spans, and what a delivery's span leaves to its outlet."""

import sys
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from penstock.domain.effect import DELIVERED, Channel, Delivery, Fate
from penstock.domain.errors import WrongSetting
from penstock.loops import traced
from penstock.outlets.dead_letters import headers_of
from penstock.settings.tracing import Tracing
from penstock.telemetry import tracing
from penstock.telemetry.spans import Exported
from penstock.telemetry.tracing import Export, Within
from tests.handlers.factory import context
from tests.outlets.messages import message

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 congo=1"


def test_off_it_needs_nothing_and_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traced.exported(traced.export_of(Tracing())) is None
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "penstock.telemetry.spans", raising=False)
    with pytest.raises(WrongSetting, match=r"pip install 'penstock\[otel\]'"):
        traced.exported(traced.export_of(Tracing(enabled=True)))


def test_what_is_in_no_trace_has_no_span_and_sends_none_on() -> None:
    taken = InMemorySpanExporter()
    made = Exported(Export(), taken)
    assert traced.begun(context(traceparent=None)) is None
    one = replace(message(Channel.DEAD_LETTER, "topic"), traceparent=None)
    spans, told = traced.deliveries(Channel.DEAD_LETTER, [one])
    traced.delivered(spans, [DELIVERED])
    assert (one.effect.job is None, told) == (False, [one])
    made.close()
    assert taken.get_finished_spans() == ()


def test_opentelemetrys_own_variable_for_samplers_comes_before_our_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(ratio: float | None = None) -> tuple[float | None, float | None]:
        export = traced.export_of(Tracing(enabled=True, sample_ratio=ratio))
        assert export is not None
        return export.sample_ratio, export.per_s

    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)
    assert asked() == (None, 20)
    assert asked(0.5) == (0.5, 20)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert asked() == (None, None)
    taken = InMemorySpanExporter()
    made = Exported(Export(), taken)
    tracing.begin("one", SpanKind.CONSUMER, {}, Within()).end()
    made.close()
    assert taken.get_finished_spans() == ()


def test_each_delivery_has_a_span_in_the_trace_of_its_submission_and_sends_it_on() -> None:
    taken = InMemorySpanExporter()
    made = Exported(Export(), taken)
    one = replace(message(Channel.DEAD_LETTER, "topic"), traceparent=TRACE)
    asked = [one, one]
    spans, told = traced.deliveries(Channel.DEAD_LETTER, asked)
    traced.delivered(spans, [DELIVERED, Delivery(Fate.LATER, "it answered 503")])
    assert tracing.current() is None
    made.close()
    good, bad = taken.get_finished_spans()
    for span, sent in zip((good, bad), told, strict=True):
        assert span.kind is SpanKind.PRODUCER
        assert span.context is not None
        headers = headers_of(sent)
        assert headers["traceparent"] == (f"00-{TRACE[3:35]}-{span.context.span_id:016x}-01"), (
            "what goes out is its own span"
        )
        assert headers["tracestate"] == "congo=1"
        assert [f"{link.context.span_id:016x}" for link in span.links] == [TRACE[36:52]]
    assert good.status.is_unset
    assert not bad.status.is_ok
    assert bad.status.description == "it answered 503"
