"""What we count, for Prometheus: each metric once, with its help and its unit.

`Metrics()` makes them in a registry of their own, so a test or a second server in one process
starts at zero. What there is stands in the files of its areas, `of_….py`.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from penstock.telemetry.drops import Drops
from penstock.telemetry.families import Maker
from penstock.telemetry.of_cluster import OfCluster
from penstock.telemetry.of_effects import OfEffects
from penstock.telemetry.of_jobs import OfJobs
from penstock.telemetry.of_replica import OfReplica
from penstock.telemetry.of_requests import OfRequests

Counted = Counter  # one child of a family, for those who keep it at hand


class Metrics(OfJobs, OfEffects, OfRequests, OfReplica, OfCluster):
    """All metrics of one server. A family is called with its labels: `attempts(kind, outcome)`."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a line more for each
        self.registry = CollectorRegistry()
        self._make = make = Maker(self.registry)
        OfJobs.__init__(self, make)
        OfEffects.__init__(self, make)
        OfRequests.__init__(self, make)
        OfReplica.__init__(self, make)
        OfCluster.__init__(self, make)
        for registry in (self.registry, make.rest):  # one is read, the other written out
            registry.register(Drops())
        ProcessCollector(registry=make.rest)
        PlatformCollector(registry=make.rest)

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        text = "".join(one.written() for one in self._make.writes)
        return text.encode() + generate_latest(self._make.rest), CONTENT_TYPE_PLAIN_0_0_4
