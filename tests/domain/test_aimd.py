"""The learned limit: late ones lower it once, those in time raise it again."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.aimd import Aimd


def test_those_under_way_together_lower_it_once() -> None:
    aimd = Aimd(64, 512, 0.15)
    for _ in range(500):
        aimd.ended(500, 1, began=0.0, now=0.3)
    assert aimd.limit == 409
    aimd.ended(400, 1, began=0.3, now=0.6)
    assert aimd.limit == 327


def test_it_never_falls_below_the_least() -> None:
    aimd = Aimd(64, 512, 0.15)
    for second in range(100):
        aimd.ended(64, 1, began=float(second), now=second + 1.0)
    assert aimd.limit == 64


def test_it_rises_only_while_it_is_made_use_of() -> None:
    aimd = Aimd(64, 512, 0.15)
    for second in range(100):
        aimd.ended(64, 1, began=float(second), now=second + 1.0)
    for _ in range(1000):
        aimd.ended(10, 1, began=200.0, now=200.01)
    assert aimd.limit == 64
    for _ in range(10_000):
        aimd.ended(500, 1, began=200.0, now=200.01)
    assert aimd.limit == 512


def test_many_that_end_together_count_for_as_many() -> None:
    aimd = Aimd(4000, 20_000, 0.2, first=8000)
    assert aimd.limit == 8000
    aimd.ended(8000, 1000, began=0.0, now=0.1)
    assert aimd.limit == 8250
    assert Aimd(4000, 100, 0.2, first=8000).limit == 100


def test_a_most_below_the_least_holds() -> None:
    aimd = Aimd(64, 10, 0.15)
    aimd.ended(10, 1, began=0.0, now=9.0)
    assert aimd.limit == 10


@given(
    st.lists(st.tuples(st.integers(1, 600), st.integers(1, 2000), st.floats(0, 2)), max_size=200)
)
def test_it_stays_between_its_bounds(steps: list[tuple[int, int, float]]) -> None:
    aimd, now = Aimd(64, 512, 0.15), 0.0
    for under_way, count, took in steps:
        now += took
        aimd.ended(under_way, count, now - took, now)
        assert 64 <= aimd.limit <= 512
