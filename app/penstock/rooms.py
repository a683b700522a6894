"""The opened doors that an engine works with: `server.py` opens them, `engine.py` wires them."""

from dataclasses import dataclass

from penstock.egress.client import Egress
from penstock.handlers.registry import Registry
from penstock.queue.redis import RedisDoor
from penstock.store.health import Health
from penstock.store.postgres import Limits, Postgres
from penstock.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Rooms:
    """Closed again by who opened them."""

    dsn: str
    limits: Limits
    postgres: Postgres
    health: Health
    redis: RedisDoor
    egress: Egress
    pinned: Egress  # to what the operator names in his settings
    hooks: Egress  # of webhooks: jobs that call out must not hold them up, nor they the jobs
    registry: Registry
    metrics: Metrics
