"""What becomes of a job: a table over outcomes, and rules that hold for all of them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.attempt import CANCELLED, LOST, RELEASED, Ending, Failure, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import OnLost, Started, State
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.domain.verdict import Patience, Verdict, decide

AT = datetime(2026, 11, 21, tzinfo=UTC)
FAILED = Ending(Outcome.FAILED, failure=Failure("ValueError", "no"))
FATAL = Ending(Outcome.FAILED, failure=Failure("ValueError", "no"), retryable=False)
TIMED_OUT = Ending(Outcome.TIMED_OUT, failure=Failure("timeout", "too long"))
SUCCEEDED = Ending(Outcome.SUCCEEDED, result="1")
CRASHED = Ending(Outcome.CRASHED, failure=Failure("crashed", "ended by SIGSEGV"))
PAUSED = Ending(Outcome.RELEASED, retry_after_s=5)
PATIENCE = Patience(losses_max=20, crashes_max=3)


def job(
    failures: int = 0, losses: int = 0, crashes: int = 0, on_lost: OnLost = OnLost.RETRY
) -> Started:
    return Started(
        id=JobId(bytes(16)),
        attempt=failures + losses + crashes + 1,
        worker=bytes(16),
        queue="default",
        kind="echo",
        priority=5,
        payload="null",
        failures=failures,
        losses=losses,
        crashes=crashes,
        max_attempts=3,
        backoff=Backoff(Curve.FIXED, base_s=10, jitter=Jitter.NONE),
        timeout_s=60,
        on_lost=on_lost,
        ready_at=AT,
        started_at=AT,
    )


@pytest.mark.parametrize(
    ("started", "ending", "cancel_requested", "expected"),
    [
        (job(), SUCCEEDED, False, Verdict(State.SUCCEEDED, 0, 0, 0)),
        (job(2, 3), SUCCEEDED, False, Verdict(State.SUCCEEDED, 2, 3, 0)),
        (job(), SUCCEEDED, True, Verdict(State.SUCCEEDED, 0, 0, 0)),
        (job(), FAILED, False, Verdict(None, 1, 0, 0, delay_s=10)),
        (job(1), FAILED, False, Verdict(None, 2, 0, 0, delay_s=10)),
        (job(2), FAILED, False, Verdict(State.DEAD, 3, 0, 0, reason="attempts-exhausted")),
        (job(), FATAL, False, Verdict(State.DEAD, 1, 0, 0, reason="failed-for-good")),
        (job(), FAILED, True, Verdict(State.CANCELLED, 0, 0, 0, reason="requested")),
        (job(), TIMED_OUT, False, Verdict(None, 1, 0, 0, delay_s=10)),
        (job(2), TIMED_OUT, False, Verdict(State.DEAD, 3, 0, 0, reason="attempts-exhausted")),
        (job(2, 4), RELEASED, False, Verdict(None, 2, 4, 0)),
        (job(), RELEASED, True, Verdict(State.CANCELLED, 0, 0, 0, reason="requested")),
        (job(), CANCELLED, False, Verdict(State.CANCELLED, 0, 0, 0, reason="requested")),
        (job(2, 4), LOST, False, Verdict(None, 2, 5, 0)),
        (job(0, 19), LOST, False, Verdict(State.DEAD, 0, 20, 0, reason="lost")),
        (job(on_lost=OnLost.DEAD), LOST, False, Verdict(State.DEAD, 0, 1, 0, reason="lost")),
        (job(), LOST, True, Verdict(State.CANCELLED, 0, 0, 0, reason="requested")),
        (job(1, 2), PAUSED, False, Verdict(None, 1, 2, 0, delay_s=5)),
        (job(1, 2), CRASHED, False, Verdict(None, 1, 2, 1, delay_s=1)),
        (job(1, 2, 1), CRASHED, False, Verdict(None, 1, 2, 2, delay_s=5)),
        (job(1, 2, 2), CRASHED, False, Verdict(State.DEAD, 1, 2, 3, reason="poison")),
        (job(0, 2, 2), CRASHED, True, Verdict(State.CANCELLED, 0, 2, 2, reason="requested")),
        (job(on_lost=OnLost.DEAD), CRASHED, False, Verdict(State.DEAD, 0, 0, 1, reason="lost")),
        (job(0, 2, 2), LOST, False, Verdict(None, 0, 3, 2)),
        (job(0, 2, 2), SUCCEEDED, False, Verdict(State.SUCCEEDED, 0, 2, 2)),
        (job(0, 2, 1), FAILED, False, Verdict(None, 1, 2, 1, delay_s=10)),
    ],
)
def test_the_verdict_on_each_outcome(
    started: Started, ending: Ending, cancel_requested: bool, expected: Verdict
) -> None:
    verdict = decide(
        started, ending, chance=0.5, cancel_requested=cancel_requested, patience=PATIENCE
    )
    assert verdict == expected


def test_a_handler_may_ask_for_a_longer_wait_but_not_for_a_shorter_one() -> None:
    def wait(asked: float) -> float | None:
        ending = Ending(Outcome.FAILED, failure=Failure("x", "y"), retry_after_s=asked)
        return decide(job(), ending, chance=0, cancel_requested=False, patience=PATIENCE).delay_s

    assert (wait(60), wait(1)) == (60, 10)


def test_the_pause_after_a_crash_grows_to_25_s() -> None:
    patience = Patience(crashes_max=10)

    def wait(crashes: int) -> float | None:
        started = job(0, 2, crashes)
        return decide(started, CRASHED, chance=0, cancel_requested=False, patience=patience).delay_s

    assert [wait(crashes) for crashes in range(5)] == [1, 5, 25, 25, 25]


endings = st.sampled_from(
    [SUCCEEDED, FAILED, FATAL, TIMED_OUT, RELEASED, PAUSED, CANCELLED, LOST, CRASHED]
)


@given(
    st.builds(
        job, st.integers(0, 2), st.integers(0, 19), st.integers(0, 2), st.sampled_from(OnLost)
    ),
    endings,
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
)
def test_what_is_spent_never_shrinks_and_is_spent_one_at_a_time(
    started: Started, ending: Ending, cancel: bool, chance: float
) -> None:
    failures, losses, crashes = started.failures, started.losses, started.crashes
    verdict = decide(started, ending, chance=chance, cancel_requested=cancel, patience=PATIENCE)
    spent = (verdict.failures - failures, verdict.losses - losses, verdict.crashes - crashes)
    assert spent in {(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)}
    assert spent != (0, 0, 1) or ending is CRASHED
    if ending in (RELEASED, PAUSED, LOST, CRASHED):
        assert verdict.failures == failures
    if verdict.state is None:
        assert verdict.failures < started.max_attempts
        assert verdict.losses < PATIENCE.losses_max
        assert verdict.crashes < PATIENCE.crashes_max
        assert not cancel
