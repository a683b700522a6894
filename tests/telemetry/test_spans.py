"""Spans go to an exporter; one that hangs holds nobody up, and what is lost is counted."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from math import inf

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock import clock
from penstock.telemetry import scope, spans, tracing
from penstock.telemetry.spans import Exported
from penstock.telemetry.tracing import CLIENT, CONSUMER, Export, Within, losses
from tests.handlers.factory import context
from tests.support.collector import collector

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Stuck(SpanExporter):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.took = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(30)
        self.took += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.go.set()


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    tracing.use(None)


def make(count: int = 1, within: Within | None = None) -> None:
    for _ in range(count):
        tracing.begin("one", CONSUMER, {}, within or Within()).end()


def test_while_it_is_off_there_is_no_trace() -> None:
    assert not tracing.is_on()
    assert not tracing.is_in_trace()
    assert tracing.current() is None


def test_a_span_is_in_the_trace_it_was_asked_for_in_and_linked() -> None:
    taken = InMemorySpanExporter()
    made = Exported(Export(), taken)
    within = Within(f"{SAMPLED} congo=1", is_linked=True, enters=True)
    outer = tracing.begin("outer", CONSUMER, {"a": 1}, within)
    assert tracing.current() == outer.trace
    tracing.begin("inner", CLIENT, {}, Within()).end("timeout", "too late")
    outer.end()
    assert tracing.current() is None
    made.close()
    inner, whole = taken.get_finished_spans()
    assert whole.context is not None
    assert whole.parent is not None
    assert inner.parent is not None
    assert f"{whole.parent.trace_id:032x}" == SAMPLED[3:35]
    assert [f"{link.context.span_id:016x}" for link in whole.links] == [SAMPLED[36:52]]
    assert inner.parent.span_id == whole.context.span_id
    assert outer.trace.endswith(" congo=1")
    assert (inner.attributes or {})["error.type"] == "timeout"
    assert not inner.status.is_ok


@pytest.mark.parametrize(
    ("ratio", "trace", "count"),
    [(0.0, None, 0), (1.0, None, 1), (0.0, SAMPLED, 1), (1.0, SAMPLED[:-1] + "0", 0)],
)
def test_the_caller_samples_and_where_there_is_none_the_ratio(
    ratio: float, trace: str | None, count: int
) -> None:
    taken = InMemorySpanExporter()
    made = Exported(Export(sample_ratio=ratio), taken)
    make(within=Within(trace))
    made.close()
    assert len(taken.get_finished_spans()) == count


def test_of_traces_that_begin_here_so_many_a_second_are_kept_whatever_callers_ask_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    taken = InMemorySpanExporter()
    made = Exported(Export(per_s=3), taken)
    make(20)
    assert not tracing.has_room()
    make(5, Within(SAMPLED))
    now += 1
    assert tracing.has_room()
    assert tracing.room_for(1) == 1
    make(1)
    assert [tracing.room_for(100), tracing.room_for(100)] == [3, 1], "one came with its request"
    make(1)
    made.close()
    assert len(taken.get_finished_spans()) == 15 + 5 + 1
    assert tracing.room_for(100) == inf


def test_spans_of_a_handler_whose_job_is_in_no_trace_are_kept_as_little() -> None:
    taken = InMemorySpanExporter()
    made = Exported(Export(), taken)
    for about, count in ((context(traceparent=None), 0), (context(), 1), (None, 2)):
        entered = None if about is None else scope.enter(about)
        make()
        if entered is not None:
            scope.leave(entered)
        assert made._provider.force_flush()
        assert len(taken.get_finished_spans()) == count
    made.close()


def test_an_exporter_that_hangs_holds_nobody_up_and_what_finds_no_room_is_counted() -> None:
    stuck, before = Stuck(), losses.full
    made = Exported(Export(waiting_max=100), stuck)
    make(250)
    assert losses.full - before == 150
    stuck.go.set()
    made.close(within_s=10)
    assert stuck.took == 100


def test_the_end_does_not_wait_for_a_collector_that_hangs() -> None:
    stuck = Stuck()
    made = Exported(Export(), stuck)
    make(10)
    made.close(within_s=0.1)
    assert not tracing.is_on()
    assert stuck.go.is_set(), "it was told to give up"


async def test_what_a_collector_refuses_is_counted() -> None:
    before = losses.refused
    async with collector(status=400) as refusing:
        made = Exported(Export(refusing.url + "/", "x-key=a%20b"))
        make(3)
        await asyncio.to_thread(made.close)  # the collector answers on this event loop
        assert [seen.headers["X-Key"] for seen in refusing.receiver.seen] == ["a b"]
    assert losses.refused - before == 3


def test_headers_are_read_as_opentelemetry_has_them() -> None:
    assert spans._headers("a=1, B=x%2Cy=z") == {"a": "1", "b": "x,y=z"}
    assert spans._headers(None) is None
