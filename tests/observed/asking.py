"""What a PromQL expression asks for, and which labels its answer has, without a Prometheus."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import promql_parser
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from penstock.telemetry.metrics import Metrics
from tests.observed.shipped import records

TARGET = frozenset({"job", "instance"})  # what Prometheus adds to all that it scrapes
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
_BARE = {"vector", "time", "scalar"}

Labels = frozenset[str]


class Unknown(Exception):
    """The expression asks for a metric or a label that there is not."""


@cache
def ours() -> Mapping[str, Labels]:
    """Each series that a replica exports, with its labels."""
    found: dict[str, Labels] = {"up": TARGET}
    metrics = Metrics()
    for collector in (*_collectors(metrics.registry), *_collectors(metrics._make.rest)):
        own = getattr(collector, "_labelnames", None) or getattr(collector, "_labels", ())
        for metric in getattr(collector, "describe", collector.collect)() or collector.collect():
            for suffix in _SUFFIXES.get(metric.type, ("",)):
                le = {"le"} if suffix == "_bucket" else set()
                found[metric.name + suffix] = TARGET | set(own) | le
    return found


def _collectors(registry: CollectorRegistry) -> Iterable[Collector]:
    return registry._collector_to_names


@cache
def known() -> Mapping[str, Labels]:
    """What rules and panels may ask for: our metrics, and what was recorded before."""
    found = dict(ours())
    for name, expr in records().items():
        found[name] = labels(expr, found)
    return found


def labels(expr: str, known: Mapping[str, Labels]) -> Labels:
    """The labels of its answer. Raises Unknown; what doesn't parse is a ValueError."""
    return _labels(promql_parser.parse(expr), known)


def _labels(node: Any, known: Mapping[str, Labels]) -> Labels:
    match type(node).__name__:
        case "VectorSelector":
            return _selected(node, known)
        case "MatrixSelector":
            return _selected(node.vector_selector, known)
        case "ParenExpr" | "UnaryExpr" | "SubqueryExpr":
            return _labels(node.expr, known)
        case "AggregateExpr":
            return _aggregated(node, known)
        case "BinaryExpr":
            return _combined(node, known)
        case "Call":
            return _called(node, known)
        case _:
            return frozenset()


def _selected(node: Any, known: Mapping[str, Labels]) -> Labels:
    if node.name not in known:
        raise Unknown(f"no metric {node.name}")
    asked = {matcher.name for matcher in node.matchers.matchers}
    if strange := asked - known[node.name]:
        raise Unknown(f"{node.name} has no label {strange}")
    return known[node.name]


def _aggregated(node: Any, known: Mapping[str, Labels]) -> Labels:
    inner = _labels(node.expr, known)
    wanted = frozenset(node.modifier.labels) if node.modifier else frozenset()
    if strange := wanted - inner:
        raise Unknown(f"{node.prettify()} groups by {strange}, of {set(inner)}")
    return wanted


def _combined(node: Any, known: Mapping[str, Labels]) -> Labels:
    """What has a label stays: a comparison with a number has the labels of the other side."""
    left, right = _labels(node.lhs, known), _labels(node.rhs, known)
    matching = node.modifier.matching if node.modifier else None
    on = frozenset(matching.labels) if matching else frozenset()
    if strange := on - (left & right):
        raise Unknown(f"{node.prettify()} matches on {strange}")
    return left or right


def _called(node: Any, known: Mapping[str, Labels]) -> Labels:
    if node.func.name in _BARE:
        return frozenset()
    inner = frozenset[str]().union(*(_labels(arg, known) for arg in node.args))
    if node.func.name == "histogram_quantile":
        if "le" not in inner:
            raise Unknown(f"{node.prettify()} has no le")
        return inner - {"le"}
    if node.func.name == "absent":
        return frozenset({"job"})
    return inner
