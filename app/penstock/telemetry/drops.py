"""What was to be told and wasn't, for Prometheus: log lines and spans, of this process."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from penstock.telemetry import logs, tracing


class Drops(Collector):
    """Reads the counts when it is asked."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        lines, spans = logs.losses(), tracing.losses
        yield _family("penstock_log_lines_dropped", "Log lines that were not written.", lines)
        told = {"full": spans.full, "refused": spans.refused}
        yield _family("penstock_spans_dropped", "Spans that no collector has got.", told)


def _family(name: str, help_: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_, labels=["reason"])
    for reason, count in counts.items():
        family.add_metric([reason], count)
    return family
