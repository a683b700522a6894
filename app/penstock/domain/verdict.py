"""What becomes of a job when an attempt has ended. Pure; the random number comes in."""

from dataclasses import dataclass
from typing import assert_never

from penstock.domain.attempt import Ending, Outcome
from penstock.domain.job import OnLost, Started, State
from penstock.domain.retry import delay_s


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the job goes: to `state` for good, or, when that is None, back in line.

    `delay_s` counts from the settling commit; None keeps the old place in line (a job that was
    handed back or lost waited its turn already). `reason` is kept on ended jobs.
    """

    state: State | None
    failures: int
    losses: int
    delay_s: float | None = None
    reason: str | None = None


def decide(
    job: Started, ending: Ending, *, chance: float, cancel_requested: bool, losses_max: int
) -> Verdict:
    """The verdict on one ended attempt. `chance` in [0, 1) is for the back-off's jitter."""
    if ending.outcome is Outcome.SUCCEEDED:
        return Verdict(State.SUCCEEDED, job.failures, job.losses)
    if cancel_requested or ending.outcome is Outcome.CANCELLED:
        return Verdict(State.CANCELLED, job.failures, job.losses, reason="requested")
    match ending.outcome:
        case Outcome.RELEASED:
            return Verdict(None, job.failures, job.losses)
        case Outcome.LOST:
            return _lost(job, losses_max)
        case Outcome.FAILED | Outcome.TIMED_OUT:
            return _failed(job, ending, chance)
        case _:
            assert_never(ending.outcome)


def _lost(job: Started, losses_max: int) -> Verdict:
    losses = job.losses + 1
    if job.on_lost is OnLost.DEAD or losses >= losses_max:
        return Verdict(State.DEAD, job.failures, losses, reason="lost")
    return Verdict(None, job.failures, losses)


def _failed(job: Started, ending: Ending, chance: float) -> Verdict:
    failures = job.failures + 1
    if not ending.retryable:
        return Verdict(State.DEAD, failures, job.losses, reason="failed-for-good")
    if failures >= job.max_attempts:
        return Verdict(State.DEAD, failures, job.losses, reason="attempts-exhausted")
    wait = max(delay_s(job.backoff, failures, chance), ending.retry_after_s or 0.0)
    return Verdict(None, failures, job.losses, delay_s=wait)
