"""What becomes of a job when an attempt has ended. Pure; the random number comes in."""

from dataclasses import dataclass, replace
from typing import assert_never

from penstock.domain.attempt import Ending, Outcome
from penstock.domain.job import OnLost, Started, State
from penstock.domain.retry import delay_s

CRASH_DELAYS_S = (1.0, 5.0, 25.0)  # after the first crash, the second, all later ones

SUSPECT_LOSSES = 2  # once may happen to anybody


def is_suspect(job: Started) -> bool:
    """Whether an attempt runs in a child process of its own: it may be what ends replicas."""
    return job.losses >= SUSPECT_LOSSES


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the job goes: to `state` for good, or, when that is None, back in line.

    `delay_s` counts from the settling commit; None keeps the old place in line (a job that was
    handed back or lost waited its turn already). `reason` is kept on ended jobs.
    """

    state: State | None
    failures: int
    losses: int
    crashes: int
    delay_s: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """Where patience ends that has nothing to do with the job's own `max_attempts`."""

    losses_max: int = 20
    crashes_max: int = 3


def decide(
    job: Started, ending: Ending, *, chance: float, cancel_requested: bool, patience: Patience
) -> Verdict:
    """The verdict on one ended attempt. `chance` in [0, 1) is for the back-off's jitter."""
    if ending.outcome is Outcome.SUCCEEDED:
        return _verdict(job, State.SUCCEEDED)
    if cancel_requested or ending.outcome is Outcome.CANCELLED:
        return _verdict(job, State.CANCELLED, reason="requested")
    match ending.outcome:
        case Outcome.RELEASED:
            return replace(_verdict(job, None), delay_s=ending.retry_after_s)
        case Outcome.LOST:
            return _lost(job, patience.losses_max)
        case Outcome.CRASHED:
            return _crashed(job, patience.crashes_max)
        case Outcome.FAILED | Outcome.TIMED_OUT:
            return _failed(job, ending, chance)
        case _:
            assert_never(ending.outcome)


def _verdict(job: Started, state: State | None, reason: str | None = None) -> Verdict:
    """One that spends nothing."""
    return Verdict(state, job.failures, job.losses, job.crashes, reason=reason)


def _lost(job: Started, losses_max: int) -> Verdict:
    losses = job.losses + 1
    if job.on_lost is OnLost.DEAD or losses >= losses_max:
        return Verdict(State.DEAD, job.failures, losses, job.crashes, reason="lost")
    return Verdict(None, job.failures, losses, job.crashes)


def _crashed(job: Started, crashes_max: int) -> Verdict:
    """Its own budget: neither failures nor losses are spent."""
    crashes = job.crashes + 1
    if job.on_lost is OnLost.DEAD:  # nobody knows how far it came: never again
        return Verdict(State.DEAD, job.failures, job.losses, crashes, reason="lost")
    if crashes >= crashes_max:
        return Verdict(State.DEAD, job.failures, job.losses, crashes, reason="poison")
    wait = CRASH_DELAYS_S[min(crashes, len(CRASH_DELAYS_S)) - 1]
    return Verdict(None, job.failures, job.losses, crashes, delay_s=wait)


def _failed(job: Started, ending: Ending, chance: float) -> Verdict:
    failures = job.failures + 1
    if not ending.retryable:
        return Verdict(State.DEAD, failures, job.losses, job.crashes, reason="failed-for-good")
    if failures >= job.max_attempts:
        return Verdict(State.DEAD, failures, job.losses, job.crashes, reason="attempts-exhausted")
    wait = max(delay_s(job.backoff, failures, chance), ending.retry_after_s or 0.0)
    return Verdict(None, failures, job.losses, job.crashes, delay_s=wait)
