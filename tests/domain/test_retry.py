"""How long a failed job waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.retry import Backoff, Curve, Jitter, delay_s

backoffs = st.builds(
    Backoff,
    kind=st.sampled_from(Curve),
    base_s=st.floats(0, 86_400),
    factor=st.floats(1, 100),
    max_s=st.floats(0, 30 * 86_400),
    jitter=st.sampled_from(Jitter),
)
chances = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("kind", "failures", "expected"),
    [
        (Curve.FIXED, 1, 2),
        (Curve.FIXED, 9, 2),
        (Curve.LINEAR, 1, 2),
        (Curve.LINEAR, 3, 6),
        (Curve.EXPONENTIAL, 1, 2),
        (Curve.EXPONENTIAL, 2, 6),
        (Curve.EXPONENTIAL, 3, 18),
        (Curve.EXPONENTIAL, 100, 50),
        (Curve.EXPONENTIAL, 100_000, 50),
    ],
)
def test_the_curves_are_those_of_the_contract(kind: Curve, failures: int, expected: float) -> None:
    backoff = Backoff(kind, base_s=2, factor=3, max_s=50, jitter=Jitter.NONE)
    assert delay_s(backoff, failures, 0.5) == expected


@pytest.mark.parametrize(
    ("jitter", "chance", "expected"),
    [
        (Jitter.NONE, 0.25, 8),
        (Jitter.FULL, 0, 0),
        (Jitter.FULL, 0.25, 2),
        (Jitter.EQUAL, 0, 4),
        (Jitter.EQUAL, 0.25, 5),
    ],
)
def test_jitter_is_that_of_the_contract(jitter: Jitter, chance: float, expected: float) -> None:
    assert delay_s(Backoff(Curve.FIXED, base_s=8, jitter=jitter), 1, chance) == expected


@given(backoffs, st.integers(1, 10_000), chances)
def test_a_wait_is_never_negative_and_never_over_its_maximum(
    backoff: Backoff, failures: int, chance: float
) -> None:
    assert 0 <= delay_s(backoff, failures, chance) <= backoff.max_s


@given(backoffs, st.integers(1, 50))
def test_without_jitter_waits_never_shrink(backoff: Backoff, failures: int) -> None:
    plain = Backoff(backoff.kind, backoff.base_s, backoff.factor, backoff.max_s, Jitter.NONE)
    assert delay_s(plain, failures, 0) <= delay_s(plain, failures + 1, 0)
