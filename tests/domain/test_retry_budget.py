"""The retry budget: few are never moved, many are spread evenly, nobody waits for ever."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.retry_budget import BudgetRules, RetryBudget

RULES = BudgetRules(share=0.2, min_per_s=100, burst=1000, spread_max_s=300)


def moved(budget: RetryBudget, count: int, now: float = 0.0) -> list[float]:
    return [budget.moves_s(now, 0.5) for _ in range(count)]


def test_a_hundred_at_once_retry_as_their_back_off_says_and_a_thousand_soon_after() -> None:
    found = moved(RetryBudget(RULES, 0.0), 1000)
    assert max(found[:101]) == pytest.approx(0.0)
    assert found[-1] == pytest.approx(899 / 500, abs=0.01)
    assert found == sorted(found)


def test_a_steady_rate_within_the_budget_is_never_moved() -> None:
    budget = RetryBudget(RULES, 0.0)
    assert {budget.moves_s(i / 99, 0.5) for i in range(20_000)} == {0.0}


def test_what_is_beyond_the_burst_follows_at_the_rate_of_the_budget() -> None:
    found = moved(RetryBudget(RULES, 0.0), 3000)
    assert found[1500:1503] == pytest.approx([5.01, 5.02, 5.03])
    assert found[-1] == pytest.approx(20.0)


def test_recent_starts_allow_more() -> None:
    budget = RetryBudget(RULES, 0.0)
    for second in range(60):
        budget.count(5000, float(second))
    assert budget.per_s == pytest.approx(1000, rel=0.1)
    budget.count(0, 600.0)
    assert budget.per_s == 100


def test_none_moves_further_than_the_spread_and_what_has_no_room_lies_anywhere_in_it() -> None:
    budget = RetryBudget(RULES, 0.0)
    chances = random.Random(1)
    found = [budget.moves_s(0.0, chances.random()) for _ in range(50_000)]
    assert max(found) <= 300
    a_second = [sum(1 for one in found if s <= one < s + 1) for s in range(3, 300)]
    assert max(a_second) < 250  # 100 by the budget, and what has no room on top


def test_a_storm_is_forgotten_when_its_spread_is_over() -> None:
    budget = RetryBudget(RULES, 0.0)
    moved(budget, 100_000)
    assert budget.moves_s(311.0, 0.5) == 0.0


def test_without_a_spread_nothing_is_moved() -> None:
    rules = BudgetRules(share=0.2, min_per_s=100, burst=1000, spread_max_s=0)
    assert set(moved(RetryBudget(rules, 0.0), 5000)) == {0.0}


@given(
    share=st.floats(0, 1),
    min_per_s=st.floats(0.1, 1e4),
    burst=st.integers(0, 2000),
    spread_max_s=st.floats(0, 3600),
    steps=st.lists(
        st.tuples(st.floats(0, 5), st.integers(0, 500), st.floats(0, 0.999)), max_size=60
    ),
)
def test_whatever_happens_a_retry_is_never_earlier_and_never_beyond_the_spread(
    share: float,
    min_per_s: float,
    burst: int,
    spread_max_s: float,
    steps: list[tuple[float, int, float]],
) -> None:
    budget, now = RetryBudget(BudgetRules(share, min_per_s, burst, spread_max_s), 0.0), 0.0
    for passed, starts, chance in steps:
        now += passed
        budget.count(starts, now)
        for _ in range(starts):
            assert 0.0 <= budget.moves_s(now, chance) <= spread_max_s
