"""The arithmetic of budgets."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain import rate
from penstock.domain.caller import Caller, Role
from penstock.domain.rate import Counts, RateRule, Standing

RULE = RateRule(Counts.JOBS, limit=10, period_s=100, burst=5)  # one in 10 s


def test_the_burst_is_there_at_once_and_then_one_by_one() -> None:
    whole_at = 0.0
    for _ in range(5):
        assert rate.wait_s(RULE, whole_at, 1, 1000.0) == 0
        whole_at = rate.spent(RULE, whole_at, 1, 1000.0)
    assert rate.wait_s(RULE, whole_at, 1, 1000.0) == 10
    assert rate.wait_s(RULE, whole_at, 1, 1007.0) == 3
    assert rate.wait_s(RULE, whole_at, 1, 1010.0) == 0
    assert rate.wait_s(RULE, whole_at, 2, 1010.0) == 10


def test_what_is_left_and_when_all_is_there_again() -> None:
    assert rate.standing(RULE, 0.0, 1000.0) == Standing(5, 0.0)
    assert rate.standing(RULE, 1025.0, 1000.0, 3.0) == Standing(2, 25.0, 3.0)
    assert rate.standing(RULE, 1500.0, 1000.0) == Standing(0, 500.0)  # in debt


def test_more_than_the_burst_is_let_in_when_all_is_there_and_paid_off_afterwards() -> None:
    assert rate.wait_s(RULE, 0.0, 500, 1000.0) == 0
    whole_at = rate.spent(RULE, 0.0, 500, 1000.0)
    assert rate.wait_s(RULE, whole_at, 1, 1000.0) == 5000 - 40
    assert rate.wait_s(RULE, 1001.0, 500, 1000.0) == 1


@given(
    st.integers(1, 1000),
    st.floats(0.1, 86_400),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20)), max_size=60),
)
def test_no_more_is_let_in_than_the_burst_and_what_has_come_since(
    limit: int, period_s: float, burst: int, asked: list[tuple[float, int]]
) -> None:
    rule = RateRule(Counts.JOBS, limit, period_s, burst)
    began, now, whole_at, let_in, last = 1000.0, 1000.0, 0.0, 0, 0
    for pause_s, units in asked:
        now += pause_s
        if not rate.wait_s(rule, whole_at, units, now):
            whole_at = rate.spent(rule, whole_at, units, now)
            let_in, last = let_in + units, units
    debt = max(last - burst, 0)
    assert let_in - debt <= burst + (now - began) / rule.unit_s + max(20, 1)
    if all(units <= burst for _, units in asked):
        assert let_in <= burst + (now - began) / rule.unit_s + 1e-3


@pytest.mark.parametrize(
    ("caller", "index"),
    [
        (Caller("ci-1", frozenset({Role.SUBMITTER})), 0),
        (Caller("ada", frozenset({Role.OPERATOR, Role.VIEWER})), 1),
        (Caller("ada", frozenset({Role.SUBMITTER})), 2),
        (Caller("", frozenset()), 2),
        (Caller("x-ci-1", frozenset()), 2),
    ],
)
def test_the_first_rule_that_fits_counts(caller: Caller, index: int) -> None:
    rules = [
        RateRule(Counts.JOBS, 1, 1, 1, re.compile(r"(?s:ci\-.*)\Z")),
        RateRule(Counts.JOBS, 2, 1, 1, roles=frozenset({Role.OPERATOR, Role.ADMIN})),
        RateRule(Counts.JOBS, 3, 1, 1),
    ]
    assert rate.rule_for(rules, Counts.JOBS, caller) is rules[index]
    assert rate.rule_for(rules, Counts.READS, caller) is None
