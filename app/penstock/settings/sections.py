"""What can be set: one frozen model per section, each field with its default, unit and limit.

In: plain values merged by `sources`. Out: `Settings`, which everything else is built from.
Always holds: a value that is out of its limits never gets past these models, and a name that
is not written here is an error.
"""

from typing import Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from penstock.domain.defaults import Book, Defaults
from penstock.settings.auth import Auth
from penstock.settings.brokers import Alerts, Broker, Kafka, RabbitMq
from penstock.settings.kinds import Kinds, Queues
from penstock.settings.notifications import Notifications, Smtp, Webhook
from penstock.settings.rate_limits import RateLimits
from penstock.settings.section import Section
from penstock.settings.servers import Postgres, Redis
from penstock.settings.tracing import Tracing
from penstock.settings.values import (
    DAY_S,
    KEPT_MIN_S,
    KIB,
    MIB,
    Cidr,
    ImportName,
    Kept,
    KeptLong,
    Roles,
)
from penstock.settings.worker import Worker

_FIRST_RENEWAL_S = 1.0  # that it may be late


class Http(Section):
    """The front door."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 = any free one")
    body_max_bytes: int = Field(
        MIB, ge=KIB, le=64 * MIB, description="largest request body, but for batches"
    )
    batch_body_max_bytes: int = Field(
        16 * MIB, ge=KIB, le=256 * MIB, description="largest body of a batch of jobs"
    )
    batch_jobs_max: int = Field(10_000, ge=1, le=100_000, description="most jobs in one batch")
    containers_max: int = Field(
        50_000, ge=50_000, le=10_000_000, description="most objects and lists in one large job"
    )
    bodies_max_bytes: int = Field(
        128 * MIB,
        ge=MIB,
        le=4096 * MIB,
        description="most bytes of bodies taken in at once; half of them for one caller",
    )
    answers_max_bytes: int = Field(
        128 * MIB,
        ge=16 * MIB,
        le=4096 * MIB,
        description="most bytes of large answers not taken off yet; half of them for one caller",
    )
    connections_max: int = Field(
        2000, ge=10, le=100_000, description="most open connections; more are refused with 503"
    )
    submissions_in_flight_max: int = Field(
        256, ge=1, le=100_000, description="most submissions under way; more are refused with 503"
    )
    changes_in_flight_max: int = Field(
        256, ge=1, le=100_000, description="most cancels, retries and pauses under way"
    )
    reads_in_flight_max: int = Field(
        256, ge=1, le=100_000, description="most other requests under way, but for health"
    )
    waits_max: int = Field(
        1000, ge=0, le=100_000, description="most requests that wait for a job (Prefer: wait)"
    )
    jobs_waiting_max: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="jobs waiting for their commit, beyond which submissions are refused",
    )
    submission_wait_max_s: float = Field(
        0.05,
        ge=0.001,
        le=60,
        description="time to answer a submission beyond which fewer are let in, 64 at least; "
        "four times as long for a batch",
    )
    head_timeout_s: float = Field(
        10, ge=0.1, le=600, description="longest time from a request's first byte to its body"
    )
    body_timeout_s: float = Field(
        15, ge=0.1, le=3600, description="longest time to send a body, and to take an answer off"
    )
    keepalive_s: float = Field(75, ge=1, le=3600, description="idle time of a kept connection")
    trusted_proxies: tuple[Cidr, ...] = Field(
        (),
        max_length=100,
        description="networks of proxies whose X-Forwarded-For is believed (CIDRs)",
    )

    @property
    def caller_host(self) -> str:
        """What a caller on this machine would use for the address that we listen on."""
        if self.host in ("0.0.0.0", "::"):
            return "127.0.0.1"
        return f"[{self.host}]" if ":" in self.host else self.host

    @model_validator(mode="after")
    def _has_room_for_the_largest(self) -> Self:
        if self.bodies_max_bytes < 2 * self.batch_body_max_bytes:
            raise ValueError(
                f"http.bodies_max_bytes ({self.bodies_max_bytes}) must be at least twice "
                f"http.batch_body_max_bytes ({self.batch_body_max_bytes}): "
                "one caller gets half of it at most"
            )
        if self.answers_max_bytes < 8 * self.body_max_bytes:
            raise ValueError(
                f"http.answers_max_bytes ({self.answers_max_bytes}) must be at least eight times "
                f"http.body_max_bytes ({self.body_max_bytes}): a job with its result is told to "
                "one caller, who gets half of it at most"
            )
        return self


class Queue(Section):
    """Leases and order."""

    lease_s: float = Field(10, ge=0.2, le=3600, description="time a claimed job is held")
    renew_s: float = Field(3, ge=0.05, le=1200, description="time between renewals of a lease")
    count_max: int = Field(10_000, ge=1, le=1_000_000, description="most queues there may be")
    priority_aging_s: float = Field(
        60, ge=0, le=DAY_S, description="waiting time worth one step of priority; 0 = strict order"
    )

    @model_validator(mode="after")
    def _renews_in_time(self) -> Self:
        if self.lease_s <= self.renew_s:
            raise ValueError(
                f"queue.lease_s ({self.lease_s:g}) must be more than "
                f"queue.renew_s ({self.renew_s:g}), else every lease runs out"
            )
        return self

    @property
    def claim_s(self) -> float:
        """How long a claimed job is held until its first renewal. Short, for one who dies between
        claim and start leaves no row by which the reaper would find it."""
        return min(self.lease_s, self.renew_s + _FIRST_RENEWAL_S)


class Jobs(Section):
    """What a submission gets that does not say otherwise."""

    max_attempts: int = Field(5, ge=1, le=100, description="failures after which a job is dead")
    timeout_s: float = Field(300, ge=0.1, le=DAY_S, description="longest time of an attempt")
    priority: int = Field(5, ge=0, le=9, description="place in the queue; 9 goes first")
    strict_kinds: bool = Field(False, description="whether kinds that nobody knows are refused")


class Retention(Section):
    """How long what is over is kept; a job goes with its attempts, its log and its result.

    Jobs of a workflow go with the workflow, whatever their own state.
    """

    succeeded_s: Kept = Field(7 * DAY_S, description="age at which succeeded jobs go; 0 = never")
    dead_s: Kept = Field(30 * DAY_S, description="age at which dead jobs go; 0 = never")
    cancelled_s: Kept = Field(7 * DAY_S, description="age at which cancelled jobs go; 0 = never")
    skipped_s: Kept = Field(7 * DAY_S, description="age at which skipped jobs go; 0 = never")
    workflows_s: Kept = Field(
        30 * DAY_S, description="age at which ended workflows go, with all their jobs; 0 = never"
    )
    idempotency_s: float = Field(
        DAY_S, ge=KEPT_MIN_S, le=366 * DAY_S, description="time that an Idempotency-Key counts"
    )
    letters_s: Kept = Field(
        90 * DAY_S, description="age at which resolved dead letters go; 0 = never"
    )
    deliveries_s: Kept = Field(
        30 * DAY_S, description="age at which ended deliveries go; 0 = never"
    )
    audit_s: KeptLong = Field(
        400 * DAY_S, description="age at which entries of the audit log go; 0 = never"
    )
    step_max: int = Field(1000, ge=1, le=10_000, description="most jobs deleted at once")


class AuditLog(Section):
    """What is written down of who did what; see also retention.audit_s."""

    submissions: bool = Field(
        True, description="submissions have entries too, one a request; false = only other changes"
    )
    refusals_per_min: int = Field(
        60,
        ge=0,
        le=100_000,
        description="most entries a minute of calls refused with 403; 0 = none",
    )


class Audit(Section):
    """What a replica checks of its own accord: the jobs, not the callers."""

    every_s: float = Field(60, ge=0, le=DAY_S, description="time between two audits; 0 = none")


class Autoscale(Section):
    """What GET /v1/autoscale goes by."""

    target_age_s: float = Field(
        30, ge=0.1, le=DAY_S, description="for so long a job may wait until it is started"
    )
    slots_per_replica: int | None = Field(
        None, ge=1, le=100_000, description="slots of a replica; none = as those that live have"
    )
    replicas_min: int = Field(1, ge=0, le=10_000, description="fewest replicas to ask for")
    replicas_max: int = Field(10, ge=1, le=10_000, description="most replicas to ask for")

    @model_validator(mode="after")
    def _has_bounds_in_order(self) -> Self:
        if self.replicas_min > self.replicas_max:
            raise ValueError(
                f"autoscale.replicas_min ({self.replicas_min}) must be at most "
                f"autoscale.replicas_max ({self.replicas_max})"
            )
        return self


class Handlers(Section):
    """What jobs can do."""

    modules: tuple[ImportName, ...] = Field(
        (), max_length=100, description="modules to import that register handlers"
    )


class Egress(Section):
    """HTTP that goes out."""

    allow: tuple[Cidr, ...] = Field(
        (), max_length=100, description="networks to reach besides public addresses (CIDRs)"
    )
    connect_timeout_s: float = Field(5, ge=0.1, le=60, description="longest time to connect")
    response_max_bytes: int = Field(
        256 * KIB, ge=KIB, le=64 * MIB, description="most bytes kept of a response"
    )


class Log(Section):
    """What we say."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is written"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto = console on a terminal, else json"
    )
    burst: int = Field(
        100, ge=0, le=1_000_000, description="lines of one name written at once; 0 = any number"
    )
    per_s: float = Field(
        10, ge=0.01, le=1_000_000, description="lines of one name a second, after the burst"
    )
    waiting_max: int = Field(
        10_000, ge=1, le=1_000_000, description="most lines that wait to be written"
    )
    handlers: bool = Field(
        False, description="whether what handlers log by ctx.log is written here too"
    )


class Config(Section):
    """The settings themselves."""

    poll_s: float = Field(
        30, ge=0.2, le=DAY_S, description="time between two looks for settings that changed"
    )


class Dev(Section):
    """The servers that `penstock dev` starts."""

    dir: str = Field(".penstock", min_length=1, description="directory of their data")
    postgres_port: int = Field(0, ge=0, le=65535, description="port; 0 = any free one")
    redis_port: int = Field(0, ge=0, le=65535, description="port; 0 = any free one")


class Settings(Section):
    """Everything that can be set."""

    env: str = Field("production", description="environment; picks config/<environment>.yaml")
    roles: Roles = Field(
        ("api", "scheduler", "worker", "relay"),
        min_length=1,
        description="which parts of the server run in this process",
    )
    broker: Broker = Field(
        "none", description="what takes dead letters; none = they stay in PostgreSQL"
    )
    http: Http = Http()
    postgres: Postgres
    redis: Redis
    auth: Auth
    rate_limits: RateLimits = RateLimits()
    worker: Worker = Worker()
    queue: Queue = Queue()
    jobs: Jobs = Jobs()
    kinds: Kinds = Field({}, description="what jobs of a kind get, by its name")
    queues: Queues = Field({}, description="what jobs of a queue get, by its name or a glob")
    retention: Retention = Retention()
    audit: Audit = Audit()
    autoscale: Autoscale = Autoscale()
    audit_log: AuditLog = AuditLog()
    handlers: Handlers = Handlers()
    egress: Egress = Egress()
    kafka: Kafka = Kafka()
    rabbitmq: RabbitMq = RabbitMq()
    alerts: Alerts = Alerts()
    webhook: Webhook = Webhook()
    smtp: Smtp = Smtp()
    notifications: Notifications = Notifications()
    log: Log = Log()
    tracing: Tracing = Tracing()
    config: Config = Config()
    dev: Dev = Dev()

    # Where each value came from, by dotted key; a key that is not in here has its default.
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def book(self) -> Book:
        """What jobs get that don't say it themselves."""
        jobs = Defaults(
            priority=self.jobs.priority,
            max_attempts=self.jobs.max_attempts,
            timeout_s=self.jobs.timeout_s,
            strict=self.jobs.strict_kinds,
        )
        kinds = {name: kind.as_layer() for name, kind in self.kinds.items()}
        return Book(jobs, kinds, {name: queue.as_layer() for name, queue in self.queues.items()})

    @model_validator(mode="after")
    def _keeps_nothing_longer_than_all(self) -> Self:
        """What is kept longer would be read over and over by whoever looks for what is old."""
        named = {f"kinds.{name}": kind.retention for name, kind in self.kinds.items()}
        named |= {f"queues.{name}": queue.retention for name, queue in self.queues.items()}
        for name, kept in named.items():
            for field in type(kept).model_fields:
                own, of_all = getattr(kept, field), getattr(self.retention, field)
                if own is not None and 0 < of_all < own:
                    raise ValueError(
                        f"{name}.retention.{field} ({own:g}) must be at most retention.{field} "
                        f"({of_all:g}), after which jobs of all kinds go: raise that"
                    )
        return self

    @model_validator(mode="after")
    def _fetches_keys_safely(self) -> Self:
        self.auth.demand_safe_url(self.env)
        return self

    @model_validator(mode="after")
    def _knows_its_broker(self) -> Self:
        if self.broker == "kafka" and self.kafka.bootstrap_servers is None:
            raise PydanticCustomError(
                "lacking",
                "kafka.bootstrap_servers is required as broker is kafka: "
                "set PENSTOCK_KAFKA__BOOTSTRAP_SERVERS",
            )
        if self.broker == "rabbitmq" and self.rabbitmq.url is None:
            raise PydanticCustomError(
                "lacking",
                "rabbitmq.url is required as broker is rabbitmq: set PENSTOCK_RABBITMQ__URL, "
                "or PENSTOCK_RABBITMQ__URL_FILE to a file that holds it",
            )
        return self
