"""Figures and their targets; medians over runs."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class BenchError(Exception):
    """What was measured did not do what it should; the figure would be worth nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `others_pct`: the share of the machine that others used meanwhile."""

    measure: str
    name: str
    value: float
    unit: str
    others_pct: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    bound: float
    sign: str  # of ≥, ≤, <

    def met(self, value: float) -> bool:
        match self.sign:
            case "≥":
                return value >= self.bound
            case "≤":
                return value <= self.bound
            case _:
                return value < self.bound

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:,g}"


TARGETS = {
    ("bulk", "rate"): Target(25_000, "≥"),
    ("drain", "rate"): Target(12_000, "≥"),
    ("single", "rate"): Target(4_000, "≥"),
    ("start", "ready to started, p50"): Target(3, "≤"),
    ("start", "ready to started, p99"): Target(12, "≤"),
    ("late", "due to started, p99"): Target(50, "≤"),
    ("workflows", "a hop of a chain, p50"): Target(5, "≤"),
    ("workflows", "the largest, sent to answered"): Target(2000, "≤"),
    ("workflows", "out to 1,000 and in again"): Target(400, "≤"),
    ("idle", "CPU of the server"): Target(2, "<"),
    ("price", "on: drain lost"): Target(3, "≤"),
    ("lists", "worst p99 of a filter"): Target(30, "<"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A figure over all runs: the median counts."""

    measure: str
    name: str
    unit: str
    values: tuple[float, ...]
    others_pct: float

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def target(self) -> Target | None:
        return TARGETS.get((self.measure, self.name))


def lines(runs: Iterable[Sequence[Figure]]) -> list[Line]:
    """The runs' figures side by side, in the order in which they were first seen."""
    found: dict[tuple[str, str], list[Figure]] = {}
    for run in runs:
        for figure in run:
            found.setdefault((figure.measure, figure.name), []).append(figure)
    return [
        Line(
            measure,
            name,
            figures[0].unit,
            tuple(figure.value for figure in figures),
            statistics.median(figure.others_pct for figure in figures),
        )
        for (measure, name), figures in found.items()
    ]


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was really measured. Raises on no values."""
    ordered = sorted(values)
    if not ordered:
        raise BenchError("nothing was measured")
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]
