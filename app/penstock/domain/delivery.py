"""What is shown of effects and of the endpoints that they go to. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from penstock.domain.effect import EffectFields, WaitsFor


class Outcome(StrEnum):
    """Where an effect stands."""

    PENDING = "pending"  # to be tried, or tried again
    DELIVERED = "delivered"
    FAILED = "failed"  # given up
    DROPPED = "dropped"  # not tried: nothing to tell of any more, or its endpoint was given up


@dataclass(frozen=True, slots=True)
class DeliveryView(EffectFields):
    """An effect, pending or over, as readers see it. `part_of`: the effect whose message tells of
    it, if not its own."""

    outcome: Outcome
    error: str | None
    due_at: datetime | None
    finished_at: datetime | None
    waits_for: WaitsFor | None = None
    part_of: bytes | None = None


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint that fails, or was given up."""

    endpoint: str
    channel: str
    failing_since: datetime
    failures: int
    disabled_at: datetime | None
    error: str


def endpoint_id(endpoint: str) -> str:
    """Names an endpoint to those who mayn't see all of it: 16 hexadecimal digits."""
    return hashlib.sha256(endpoint.encode()).hexdigest()[:16]


def masked(endpoint: str) -> str:
    """An endpoint as it is shown: of a URL only where it leads, the rest may be a secret."""
    if "://" not in endpoint:
        return endpoint
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"
