"""The settings of kinds and of queues: what jobs get that don't say it themselves.

A job's own field counts, else what its kind says, else its queue, else `jobs.*`; each field by
itself (`domain/defaults.py`). None: nothing is said.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from penstock.domain.defaults import Layer
from penstock.domain.effect import NOTIFY_ON, On
from penstock.domain.job import NAME_PATTERN, OnLost, State
from penstock.domain.retry import Curve, Jitter
from penstock.settings.notifications import Addressed
from penstock.settings.section import Section
from penstock.settings.values import DAY_S, KEPT_MIN_S

NOTICES_MAX = 10  # as a job may ask for
NAMED_MAX = 1000  # kinds, and queues, that something is said of
AHEAD_MAX_S = 1827 * DAY_S  # five years, as at the door


KeptLess = Annotated[float, Field(ge=KEPT_MIN_S, le=36_500 * DAY_S)]


class Backoff(Section):
    """How long to wait after a failure."""

    kind: Curve | None = Field(None, description="how the wait grows with the failures")
    base_s: float | None = Field(None, ge=0, le=DAY_S, description="first wait")
    factor: float | None = Field(None, ge=1, le=100, description="what exponential multiplies by")
    max_s: float | None = Field(None, ge=0, le=30 * DAY_S, description="longest wait")
    jitter: Jitter | None = Field(None, description="how much of the wait is left to chance")


class KeptEnds(Section):
    """How long ended jobs are kept, at most as long as `retention` says of all. Jobs of workflows
    and with `depends_on` go by that alone."""

    succeeded_s: KeptLess | None = Field(None, description="age at which succeeded jobs go")
    dead_s: KeptLess | None = Field(None, description="age at which dead jobs go")
    cancelled_s: KeptLess | None = Field(None, description="age at which cancelled jobs go")
    skipped_s: KeptLess | None = Field(None, description="age at which skipped jobs go")


class Notice(Addressed):
    """Who is told of which ends, as a job may ask for it."""

    @field_validator("on")
    @classmethod
    def _of_jobs(cls, ends: tuple[On, ...]) -> tuple[On, ...]:
        if not set(ends) <= set(NOTIFY_ON):
            raise ValueError(f"may be {', '.join(NOTIFY_ON)}: others are for notifications.rules")
        if len(set(ends)) < len(ends):
            raise ValueError("names an end twice")
        return ends


def _told_once(notices: tuple[Notice, ...]) -> tuple[Notice, ...]:
    endpoints = [notice.webhook or notice.email for notice in notices]
    if len(set(endpoints)) < len(endpoints):
        raise ValueError("names an endpoint twice: name it once, with all its ends")
    return notices


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
QueueName = Annotated[str, Field(pattern=r"^[a-z0-9_.*?\[\]!-]+$", max_length=100)]
Notices = Annotated[tuple[Notice, ...], AfterValidator(_told_once)]


class _Said(Section):
    """What both kinds and queues may say."""

    priority: int | None = Field(None, ge=0, le=9, description="place in the queue; 9 goes first")
    max_attempts: int | None = Field(
        None, ge=1, le=100, description="failures after which a job is dead"
    )
    backoff: Backoff = Backoff()
    timeout_s: float | None = Field(
        None, ge=0.1, le=DAY_S, description="longest time of an attempt"
    )
    notify: Notices | None = Field(
        None,
        max_length=NOTICES_MAX,
        repr=False,
        description="who is told of the end: {on, webhook or email}",
    )
    retention: KeptEnds = KeptEnds()

    def as_layer(self) -> Layer:
        """As `domain/defaults.py` wants it: what is said, and nothing else."""
        fields = {
            name: value
            for name in type(self).model_fields
            if name not in ("backoff", "retention", "notify")
            and (value := getattr(self, name)) is not None
        }
        if self.notify is not None:
            fields["notify"] = tuple(notice.as_wish() for notice in self.notify)
        kept = _given(self.retention)
        states = {State(name.removesuffix("_s")): seconds for name, seconds in kept.items()}
        return Layer(fields, _given(self.backoff), states)


class Kind(_Said):
    """What jobs of a kind get."""

    queue: Name | None = Field(None, description="line to stand in")
    on_lost: OnLost | None = Field(None, description="what a lost worker means: retry or dead")
    ttl_s: float | None = Field(
        None, gt=0, le=AHEAD_MAX_S, description="time within which it must have started"
    )


class QueueRules(_Said):
    """What jobs of a queue get, by its name or a glob of names; the longer one goes first."""

    strict: bool | None = Field(None, description="whether kinds that nobody knows are refused")


Kinds = Annotated[dict[Name, Kind], Field(max_length=NAMED_MAX)]
Queues = Annotated[dict[QueueName, QueueRules], Field(max_length=NAMED_MAX)]


def _given(section: Section) -> Mapping[str, Any]:
    values = {name: getattr(section, name) for name in type(section).model_fields}
    return {name: value for name, value in values.items() if value is not None}
