"""Who is next."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.score import ready_score

NOW_MS = 1_795_000_000_000
priorities = st.integers(0, 9)
instants = st.integers(NOW_MS - 10**9, NOW_MS + 10**9)


def test_a_step_of_priority_is_worth_so_much_waiting() -> None:
    assert ready_score(6, NOW_MS + 59_999, 60_000) < ready_score(5, NOW_MS, 60_000)
    assert ready_score(6, NOW_MS + 60_000, 60_000) == ready_score(5, NOW_MS, 60_000)
    assert ready_score(6, NOW_MS + 60_001, 60_000) > ready_score(5, NOW_MS, 60_000)


@given(priorities, priorities, instants, instants)
def test_strict_order_goes_by_priority_and_then_by_time(
    one: int, other: int, one_ms: int, other_ms: int
) -> None:
    first = ready_score(one, one_ms, 0) < ready_score(other, other_ms, 0)
    assert first == ((-one, one_ms) < (-other, other_ms))


@given(priorities, instants, st.floats(0, 86_400_000))
def test_scores_are_whole_and_exact_in_a_double(priority: int, at_ms: int, aging: float) -> None:
    score = ready_score(priority, at_ms, aging)
    assert score == int(score)
    assert abs(score) < 2**53
