"""How long a failed job waits before its next attempt. Pure: the random number comes in."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class Curve(StrEnum):
    EXPONENTIAL = "exponential"
    LINEAR = "linear"
    FIXED = "fixed"


class Jitter(StrEnum):
    FULL = "full"
    EQUAL = "equal"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waiting rule of a job. `base_s` and `max_s` are seconds, `factor` has no unit."""

    kind: Curve = Curve.EXPONENTIAL
    base_s: float = 2.0
    factor: float = 2.0
    max_s: float = 3600.0
    jitter: Jitter = Jitter.FULL


DEFAULT_BACKOFF = Backoff()


def delay_s(backoff: Backoff, failures: int, chance: float) -> float:
    """Seconds until the next attempt after the `failures`-th failure (1 or more).

    `chance` is uniform in [0, 1). `full` gives uniform(0, d), `equal` d/2 + uniform(0, d/2).
    Source: api.md, "Back-off"; AWS Architecture Blog, "Exponential Backoff And Jitter".
    """
    whole = min(_raw_s(backoff, failures), backoff.max_s)
    match backoff.jitter:
        case Jitter.FULL:
            return whole * chance
        case Jitter.EQUAL:
            return whole / 2 + whole / 2 * chance
        case Jitter.NONE:
            return whole
        case _:
            assert_never(backoff.jitter)


def _raw_s(backoff: Backoff, failures: int) -> float:
    match backoff.kind:
        case Curve.FIXED:
            return backoff.base_s
        case Curve.LINEAR:
            return backoff.base_s * failures
        case Curve.EXPONENTIAL:
            try:
                return float(backoff.base_s * backoff.factor ** (failures - 1))
            except OverflowError:
                return backoff.max_s
        case _:
            assert_never(backoff.kind)
