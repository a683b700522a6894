"""What we count, for Prometheus: each metric once, with its help and its unit.

`Metrics()` makes them in a registry of their own, so a test or a second server in one process
starts at zero. Always holds: the number of children is bounded, for a caller chooses the names of
queues and kinds; those beyond the 200th are counted as `other`.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from penstock.telemetry.drops import Drops

NAMES_MAX = 200
OTHER = "other"

_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_JOB_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

Counted = Counter  # one child of a family, for those who keep it at hand

M = TypeVar("M", bound=Counter | Gauge | Histogram)


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


class Family(Generic[M]):
    """One metric with labels. Call it with the label values, in order, for the bound child."""

    def __init__(self, metric: M, bounds: Sequence[Names | None] = ()) -> None:
        self._metric = metric
        self._bounds = bounds
        self._children: dict[tuple[str, ...], M] = {}

    def __call__(self, *values: str) -> M:
        child = self._children.get(values)
        return child if child is not None else self._bind(values)

    def _bind(self, values: tuple[str, ...]) -> M:
        if self._bounds:
            pairs = zip(self._bounds, values, strict=True)
            values = tuple(names(value) if names else value for names, value in pairs)
        if values not in self._children:
            self._children[values] = cast(M, self._metric.labels(*values))
        return self._children[values]


class Metrics:
    """All metrics of one server. A family is called with its labels: `attempts(kind, outcome)`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Drops())
        self._count_jobs(self.registry)
        self._count_effects(self.registry)
        self._count_workflows(self.registry)
        self._count_mending(self.registry)
        self._count_requests(self.registry)
        self._measure_unruly_handlers(self.registry)
        self._measure_machine(self.registry)
        self._measure_settings(self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def _count_jobs(self, r: CollectorRegistry) -> None:
        queues, kinds = Names(), Names()
        self.jobs_submitted = Family(
            Counter("penstock_jobs_submitted", "Jobs accepted.", ["queue"], registry=r),
            (queues,),
        )
        self.attempts = Family(
            Counter("penstock_attempts", "Attempts ended.", ["kind", "outcome"], registry=r),
            (kinds, None),
        )
        self.jobs_ended = Family(
            Counter("penstock_jobs_ended", "Jobs ended.", ["queue", "state"], registry=r),
            (queues, None),
        )
        self.jobs_expired = Family(
            Counter("penstock_jobs_expired", "Jobs not started in time.", ["queue"], registry=r),
            (queues,),
        )
        self.submissions_keyed = Family(
            Counter(
                "penstock_submissions_keyed",
                "Submissions with an Idempotency-Key or a unique key, by what came of them.",
                ["outcome"],
                registry=r,
            )
        )
        self.refusals_logged = Family(
            Counter(
                "penstock_refusals_logged",
                "Calls that callers weren't let make (403), by what the audit log made of them.",
                ["outcome"],
                registry=r,
            )
        )
        self.answers_pruned = Counter(
            "penstock_answers_pruned", "Stored answers of Idempotency-Keys deleted.", registry=r
        )
        self.jobs_pruned = Family(
            Counter("penstock_jobs_pruned", "Ended jobs deleted by age.", ["state"], registry=r)
        )

        self.retries_delayed = Family(
            Counter(
                "penstock_retries_delayed",
                "Retries moved out because too many of their kind were due.",
                ["kind"],
                registry=r,
            ),
            (kinds,),
        )

    def _count_effects(self, r: CollectorRegistry) -> None:
        self.effects = Family(
            Counter(
                "penstock_effects",
                "Tries to deliver what leaves the house.",
                ["channel", "fate"],
                registry=r,
            )
        )
        self.delivery_seconds = Family(
            Histogram(
                "penstock_delivery_seconds",
                "From a claim of effects to what came of them.",
                ["channel"],
                buckets=(0.01, 0.05, 0.25, 1, 5, 15, 60),
                registry=r,
            )
        )
        self.effects_waiting = Family(
            Gauge(
                "penstock_effects_waiting",
                "What is to leave the house and has not yet.",
                ["channel"],
                registry=r,
            )
        )
        self.effects_oldest_age = Family(
            Gauge(
                "penstock_effects_oldest_age_seconds",
                "Age of the oldest that has not left the house and isn't held by its rule.",
                ["channel"],
                registry=r,
            )
        )
        self.effects_held = Family(
            Gauge(
                "penstock_effects_held",
                "What its rule holds: until quiet hours end, or for others of its group.",
                ["channel", "waits_for"],
                registry=r,
            )
        )

    def _count_workflows(self, r: CollectorRegistry) -> None:
        self.workflows_ended = Family(
            Counter("penstock_workflows_ended", "Workflows ended.", ["state"], registry=r)
        )
        self.workflows_pruned = Counter(
            "penstock_workflows_pruned", "Ended workflows deleted by age.", registry=r
        )
        self.jobs_unlocked = Counter(
            "penstock_jobs_unlocked", "Jobs whose parents let them run.", registry=r
        )

    def _count_mending(self, r: CollectorRegistry) -> None:
        self.stale_settlements = Counter(
            "penstock_stale_settlements", "Outcomes of attempts that were over.", registry=r
        )
        self.stale_claims = Counter(
            "penstock_stale_claims", "Claimed ids that were not due any more.", registry=r
        )
        self.unsettleable = Counter(
            "penstock_unsettleable", "Attempts that PostgreSQL lets nobody settle.", registry=r
        )
        self.reaped = Counter(
            "penstock_reaped", "Attempts settled as lost with their worker.", registry=r
        )
        self.adopted = Counter(
            "penstock_adopted", "Attempts of ours found in Postgres but not here.", registry=r
        )
        self.reconciled = Counter(
            "penstock_reconciled", "Due jobs put back on a shelf of Redis.", registry=r
        )

        self.audit_violations = Family(
            Gauge(
                "penstock_audit_violations",
                "What the last audit found wrong; 0 where another replica audits.",
                ["rule"],
                registry=r,
            )
        )
        self.audit_mended = Family(
            Counter("penstock_audit_mended", "What an audit set right.", ["rule"], registry=r)
        )
        self.audit_age = Gauge(
            "penstock_audit_age_seconds",
            "Since this replica's last whole audit; the least of all replicas counts.",
            registry=r,
        )

    def _count_requests(self, r: CollectorRegistry) -> None:
        self.http_requests = Family(
            Counter(
                "penstock_http_requests",
                "Requests answered, by route template.",
                ["route", "method", "status"],
                registry=r,
            )
        )
        self.refused = Family(
            Counter(
                "penstock_refused",
                "Requests refused because there was too much to do.",
                ["class", "reason"],
                registry=r,
            )
        )
        self.rate_limited = Family(
            Counter(
                "penstock_rate_limited",
                "Requests refused by a rate limit, by what it counts: jobs, changes, reads.",
                ["counts"],
                registry=r,
            )
        )
        self.rates_alone = Counter(
            "penstock_rate_limits_alone",
            "Times that a budget was not agreed on with other replicas, as Redis was away.",
            registry=r,
        )
        self.jwks_fetches = Family(
            Counter(
                "penstock_jwks_fetches",
                "Fetches of the key set: fetched, failed, unusable.",
                ["outcome"],
                registry=r,
            )
        )
        self.jwks_age = Gauge(
            "penstock_jwks_age_seconds",
            "Since the key set was fetched; NaN: never, or there is none.",
            registry=r,
        )
        self.jwks_keys = Gauge(
            "penstock_jwks_keys", "Keys of the key set that tokens are checked with.", registry=r
        )
        self.connections_refused = Counter(
            "penstock_connections_refused", "Connections beyond the limit.", registry=r
        )

    def _measure_unruly_handlers(self, r: CollectorRegistry) -> None:
        self.leaked_slots = Gauge(
            "penstock_leaked_slots", "Slots held by handlers that ignore their end.", registry=r
        )
        self.children = Family(
            Gauge(
                "penstock_children",
                "Jobs lost twice that run in a child process, or wait for one: busy, waiting.",
                ["state"],
                registry=r,
            )
        )
        self.child_start_failures = Counter(
            "penstock_child_start_failures",
            "Child processes that did not come to their job.",
            registry=r,
        )
        self.loop_stall = Histogram(
            "penstock_loop_stall_seconds",
            "How long the event loop stood still, each time that it did for more than a second.",
            buckets=(1, 2, 5, 10, 30, 60),
            registry=r,
        )

    def _measure_settings(self, r: CollectorRegistry) -> None:
        self.config_reloads = Family(
            Counter(
                "penstock_config_reloads",
                "Times that the settings were read again: changed, unchanged, refused.",
                ["outcome"],
                registry=r,
            )
        )
        self.config_loaded_at = Gauge(
            "penstock_config_loaded_at_seconds",
            "When the settings that count were read, in seconds since 1970.",
            registry=r,
        )
        self.config_refused = Gauge(
            "penstock_config_refused",
            "Whether the settings that were read last were refused, so that older ones count.",
            registry=r,
        )
        self.config_restart_needed = Gauge(
            "penstock_config_restart_needed",
            "Settings that were read and count only after a restart.",
            registry=r,
        )

    def _measure_machine(self, r: CollectorRegistry) -> None:
        self.slots = Family(
            Gauge("penstock_slots", "Worker slots by state: busy, free.", ["state"], registry=r)
        )
        self.tasks = Gauge("penstock_tasks", "Tasks of the event loop.", registry=r)
        self.batch_rows = Family(
            Histogram(
                "penstock_batch_rows",
                "Rows of one transaction: submit, start, settle.",
                ["batch"],
                buckets=_ROWS,
                registry=r,
            )
        )
        self.batch_seconds = Family(
            Histogram(
                "penstock_batch_seconds",
                "Time of one transaction: submit, start, settle.",
                ["batch"],
                buckets=_SHORT_S,
                registry=r,
            )
        )
        self.queue_wait = Histogram(
            "penstock_queue_wait_seconds", "From ready to started.", buckets=_JOB_S, registry=r
        )
        self.redis_breaker_open = Gauge(
            "penstock_redis_breaker_open", "1 while Redis is left alone.", registry=r
        )
        self.redis_faults = Family(
            Gauge(
                "penstock_redis_faults",
                "1 for each fault of Redis that stops a start: eviction, version, cluster.",
                ["fault"],
                registry=r,
            )
        )
        self.clock_ahead = Family(
            Gauge(
                "penstock_clock_ahead_seconds",
                "How far a server's clock is ahead of this machine's: postgres, redis.",
                ["server"],
                registry=r,
            )
        )
        self.loop_failures = Family(
            Counter("penstock_loop_failures", "Failed steps of a loop.", ["loop"], registry=r)
        )
        self.loop_lag = Histogram(
            "penstock_loop_lag_seconds", "Lateness of the event loop.", buckets=_SHORT_S, registry=r
        )

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
