"""What the door needs from behind it: the collaborators, and the limits of what it lets in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.api.auth import Verifier
from penstock.api.pace import Pace
from penstock.api.peers import Peers
from penstock.commands.backlog import Backlog
from penstock.commands.change import Changes
from penstock.commands.letters import DeadLetters
from penstock.commands.rate_limiter import RateLimiter
from penstock.commands.refusals import Refusals
from penstock.commands.submit import Submitter
from penstock.commands.workflows import Workflows
from penstock.domain.autoscale import Rule
from penstock.domain.effect import Channel
from penstock.domain.ids import Minter
from penstock.domain.readiness import Readiness
from penstock.domain.terms import Current, Terms
from penstock.loops.reloader import Reloader
from penstock.loops.waiters import Waiters
from penstock.store.audit_log import AuditLog
from penstock.store.deliveries import Deliveries
from penstock.store.letters import Letters
from penstock.store.lists import Lists
from penstock.store.reads import Reads
from penstock.store.workflow_reads import WorkflowReads
from penstock.telemetry.metrics import Metrics

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the door takes in, and how long it waits for it."""

    body_max_bytes: int = MIB
    batch_body_max_bytes: int = 16 * MIB
    bodies_max_bytes: int = 128 * MIB  # of all requests that are under way
    answers_max_bytes: int = 128 * MIB  # of all large answers that aren't taken off yet
    batch_jobs_max: int = 10_000
    containers_max: int = 50_000  # objects and lists in a job of a large body
    body_timeout_s: float = 15.0  # for a whole body, and to take an answer off
    head_timeout_s: float = 10.0  # for the head of a request, once it has begun
    keepalive_s: float = 75.0
    connections_max: int = 2000
    submissions_in_flight_max: int = 256  # requests that are under way
    changes_in_flight_max: int = 256
    reads_in_flight_max: int = 256
    waits_max: int = 1000  # those with `Prefer: wait`, which hold nothing but memory
    jobs_waiting_max: int = 20_000  # for their commit
    submission_wait_max_s: float = 0.05  # from a submission to its answer, while there are many


PayloadErrors = Callable[[str, Any], Sequence[tuple[str, str]]]  # of a kind: pointer, detail
Reach = Callable[[Channel, str], str | None]  # why an endpoint can't be told of ends, or None


def no_reach(_channel: Channel, _endpoint: str) -> str | None:
    """Of a door that nobody told whom the server can reach."""
    return "can't be served here"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a body needs to become a job: what counts for its kind and queue, an id, what is known
    of kinds and of those who may be told. One request is taken in by one recipe."""

    terms: Terms
    mint: Callable[[], bytes]
    payload_errors: PayloadErrors
    reach: Reach = no_reach


@dataclass(frozen=True, slots=True)
class Door:
    """`server` builds one. `now_ms` is Postgres' clock as this replica guesses it."""

    submitter: Submitter
    changes: Changes
    reads: Reads
    lists: Lists
    workflows: Workflows
    workflow_reads: WorkflowReads
    letters: Letters
    dead_letters: DeadLetters
    deliveries: Deliveries
    audit_log: AuditLog
    refusals: Refusals
    waiters: Waiters
    reloader: Reloader
    minter: Minter
    verifier: Verifier
    now_ms: Callable[[], int]
    payload_errors: PayloadErrors
    readiness: Callable[[], Readiness]
    metrics: Metrics
    backlog: Backlog = field(default_factory=Backlog)  # of submissions
    serves_api: bool = True  # else only health and metrics
    limits: Limits = field(default_factory=Limits)
    current: Current = field(default_factory=Current)
    document: bytes = b"{}"  # /openapi.json; the porter, who has the routes, puts it here
    pace: Pace = field(default_factory=Pace)  # of large bodies
    reach: Reach = no_reach
    peers: Peers = field(default_factory=Peers)
    logs_submissions: bool = True  # in the audit log
    scaling: Rule = field(default_factory=Rule)
    limiter: RateLimiter | None = None

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.current.terms, self.minter.mint, self.payload_errors, self.reach)
