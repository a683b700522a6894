"""How metrics are made: families with bounded labels, and histograms that are cheap to add to.

Always holds: the number of children is bounded, for a caller chooses the names of queues and kinds;
those beyond the 200th are counted as `other`. Label values that are known ahead are there at 0 from
the start, and those of a queue or kind from its first count on: else `rate()` misses the first.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, product
from typing import Generic, Protocol, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.telemetry.writing import Lines, Values

NAMES_MAX = 200
OTHER = "other"
_MANY = 32  # values from which on sorting them is cheaper than looking each one up

M = TypeVar("M", bound=Counter | Gauge)
C = TypeVar("C", bound=Counter | Gauge | Histogram)
W = TypeVar("W", bound="Writes")


class Names:
    """The label values seen so far: up to 200 keep their name, later ones become `other`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) < NAMES_MAX:
            self._known.add(name)
            return name
        return OTHER


class Pairs:
    """The same for two labels that go together: 200 queues with 200 kinds would be 40,000."""

    def __init__(self, *names: Names) -> None:
        self._names = names
        self._known: set[tuple[str, ...]] = set()

    def __call__(self, *values: str) -> tuple[str, ...]:
        pair = tuple(names(value) for names, value in zip(self._names, values, strict=True))
        if pair in self._known:
            return pair
        if len(self._known) < NAMES_MAX:
            self._known.add(pair)
            return pair
        return (OTHER,) * len(pair)


Label = Names | Sequence[str] | None
"""What a label may be: any of so many names, one of those that are known, or what our code says."""


class Bounds:
    """What the label values of one metric may be. `pairs` bounds the first two together."""

    def __init__(self, labels: Sequence[Label], pairs: Pairs | None = None) -> None:
        self._labels = labels
        self._pairs = pairs

    def bound(self, values: Sequence[str]) -> tuple[str, ...]:
        kept = tuple(
            label(value) if isinstance(label, Names) else value
            for label, value in zip(self._labels, values, strict=True)
        )
        return (*self._pairs(*kept[:2]), *kept[2:]) if self._pairs else kept

    def beside(self, values: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """These values, and those that are there at 0 as soon as these are."""
        yield tuple(values)
        yield from product(
            *(
                (value,) if label is None or isinstance(label, Names) else label
                for label, value in zip(self._labels, values, strict=True)
            )
        )

    def known(self) -> Iterable[tuple[str, ...]]:
        """All values, where they are known ahead."""
        known = [label for label in self._labels if label and not isinstance(label, Names)]
        return product(*known) if len(known) == len(self._labels) else ()


class Family(Generic[M]):
    """One metric with labels. Call it with the label values, in order, for the bound child."""

    def __init__(self, metric: M, bounds: Bounds, lines: Lines) -> None:
        self._metric = metric
        self._bounds = bounds
        self._lines = lines
        self._children: dict[tuple[str, ...], M] = {}
        for values in bounds.known():
            self._make(values)

    def __call__(self, *values: str) -> M:
        child = self._children.get(values)
        return child if child is not None else self._bind(values)

    def written(self) -> str:
        """Its lines of a scrape."""
        samples = [(values, (one._value.get(),)) for values, one in list(self._children.items())]
        return self._lines.written(samples, keep=True)

    def _bind(self, values: tuple[str, ...]) -> M:
        values = self._bounds.bound(values)
        if values not in self._children:
            for one in self._bounds.beside(values):
                self._make(one)
        return self._children[values]

    def _make(self, values: tuple[str, ...]) -> None:
        self._children.setdefault(values, cast(M, self._metric.labels(*values)))


class Bins:
    """One child of a histogram: counts by bucket, and the sum. Only the event loop adds to it."""

    __slots__ = ("_uppers", "counts", "sum")

    def __init__(self, uppers: Sequence[float]) -> None:
        self._uppers = uppers
        self.counts = [0] * (len(uppers) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._uppers, value)] += 1
        self.sum += value

    def observe_all(self, values: list[float]) -> None:
        """Those of a batch: sorted once, each bucket is one search. The list is sorted by it."""
        if len(values) < _MANY:
            for value in values:
                self.observe(value)
            return
        values.sort()
        below = 0
        for i, upper in enumerate(self._uppers):
            upto = bisect_right(values, upper, below)
            self.counts[i] += upto - below
            below = upto
        self.counts[-1] += len(values) - below
        self.sum += sum(values)


class Tally(Collector):
    """A histogram, counted without locks and written out only when it is scraped: a settlement of
    500 jobs must not cost 500 locks. Call it with the label values for the bound child."""

    def __init__(
        self,
        names: tuple[str, str],
        labels: Sequence[str],
        uppers: Sequence[float],
        bounds: Bounds,
    ) -> None:
        self._name, self._help = names
        self._labels = labels
        self._uppers = tuple(float(upper) for upper in uppers)
        self._bounds = bounds
        shown = [*map(str, self._uppers), "+Inf"]
        buckets = [("_bucket", (("le", upper),)) for upper in shown]
        self._lines = Lines(
            self._name, self._help, "histogram", labels, [*buckets, ("_count", ()), ("_sum", ())]
        )
        self._children: dict[tuple[str, ...], Bins] = {}
        for values in bounds.known():
            self._children[values] = Bins(self._uppers)

    def __call__(self, *values: str) -> Bins:
        child = self._children.get(values)
        return child if child is not None else self._bind(values)

    def written(self) -> str:
        """Its lines of a scrape."""
        samples: list[tuple[Values, Sequence[float]]] = []
        for values, bins in list(self._children.items()):
            so_far = list(map(float, accumulate(bins.counts)))
            samples.append((values, (*so_far, so_far[-1], bins.sum)))
        return self._lines.written(samples, keep=True)

    def _bind(self, values: tuple[str, ...]) -> Bins:
        values = self._bounds.bound(values)
        if values not in self._children:
            for one in self._bounds.beside(values):
                self._children.setdefault(one, Bins(self._uppers))
        return self._children[values]

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._help, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        uppers = [*map(str, self._uppers), "+Inf"]
        for values, bins in list(self._children.items()):
            buckets, so_far = [], 0
            for upper, count in zip(uppers, list(bins.counts), strict=True):
                so_far += count
                buckets.append((upper, float(so_far)))
            family.add_metric(values, buckets, bins.sum)
        return [family]


class Told(Collector):
    """Gauges that stand as they were told last, or as `tell()` says when they are scraped: label
    values and a value each. What isn't told any more is gone."""

    def __init__(self, names: tuple[str, str], labels: Sequence[str]) -> None:
        self._name, self._help = names
        self._labels = labels
        self._lines = Lines(self._name, self._help, "gauge", labels)
        self.now: Iterable[tuple[tuple[str, ...], float]] = ()
        self.tell: Callable[[], Iterable[tuple[tuple[str, ...], float]]] = lambda: self.now

    def written(self) -> str:
        """Its lines of a scrape."""
        samples = [(values, (float(value),)) for values, value in self.tell()]
        return self._lines.written(samples, keep=False)

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self._name, self._help, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._help, labels=self._labels)
        for values, value in self.tell():
            family.add_metric(values, value)
        return [family]


class Writes(Protocol):
    """A metric that writes its own lines."""

    def written(self) -> str: ...


class Maker:
    """Makes the metrics of one registry; queues and kinds are the same names in all of them.

    `registry` has them all; `rest` are those that don't write themselves.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry, self.rest = registry, CollectorRegistry()
        self.writes: list[Writes] = []
        self.queues, self.kinds = Names(), Names()
        self.pairs = Pairs(self.queues, self.kinds)

    def counts(
        self, name: str, help_: str, *, pairs: Pairs | None = None, **labels: Label
    ) -> Family[Counter]:
        counter = Counter(name, help_, list(labels), registry=self.registry)
        lines = Lines(f"{name}_total", help_, "counter", list(labels))
        return self._written(Family(counter, Bounds(list(labels.values()), pairs), lines))

    def gauges(self, name: str, help_: str, **labels: Label) -> Family[Gauge]:
        gauge = Gauge(name, help_, list(labels), registry=self.registry)
        lines = Lines(name, help_, "gauge", list(labels))
        return self._written(Family(gauge, Bounds(list(labels.values())), lines))

    def tally(
        self,
        name: str,
        help_: str,
        uppers: Sequence[float],
        *,
        pairs: Pairs | None = None,
        **labels: Label,
    ) -> Tally:
        bounds = Bounds(list(labels.values()), pairs)
        made = Tally((name, help_), list(labels), uppers, bounds)
        self.registry.register(made)
        return self._written(made)

    def told(self, name: str, help_: str, *labels: str) -> Told:
        made = Told((name, help_), labels)
        self.registry.register(made)
        return self._written(made)

    def count(self, name: str, help_: str) -> Counter:
        return self._rest(Counter(name, help_, registry=self.registry))

    def gauge(self, name: str, help_: str) -> Gauge:
        return self._rest(Gauge(name, help_, registry=self.registry))

    def histogram(self, name: str, help_: str, uppers: Sequence[float]) -> Histogram:
        return self._rest(Histogram(name, help_, buckets=uppers, registry=self.registry))

    def _written(self, made: W) -> W:
        self.writes.append(made)
        return made

    def _rest(self, made: C) -> C:
        self.rest.register(made)
        return made
