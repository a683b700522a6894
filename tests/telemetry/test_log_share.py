"""A line that repeats is held back, takes nothing from others, and is told of."""

import pytest

from penstock import clock
from penstock.telemetry.log_share import Share


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    one = Time()
    monkeypatch.setattr(clock, "monotonic", one)
    return one


def test_a_burst_and_then_so_many_a_second(time: Time) -> None:
    share = Share(burst=5, per_s=2)
    assert [share.passes("a") for _ in range(7)] == [True] * 5 + [False] * 2
    assert share.passes("b"), "another name has its own"
    time.now += 1
    assert [share.passes("a") for _ in range(3)] == [True, True, False]
    time.now += 1000
    assert [share.passes("a") for _ in range(6)] == [True] * 5 + [False]
    assert share.held == 4


def test_what_was_held_back_is_told_once_and_not_too_often(time: Time) -> None:
    share = Share(burst=1, per_s=0.01)
    for name in ("a", "a", "a", "b", "b"):
        share.passes(name)
    assert share.take(every_s=10) == []
    time.now += 10
    assert share.take(every_s=10) == [("a", 2), ("b", 1)]
    time.now += 10
    assert share.take(every_s=10) == []


def test_other_limits_count_at_once(time: Time) -> None:
    share = Share(burst=1, per_s=1)
    assert [share.passes("a") for _ in range(2)] == [True, False]
    share.use(0, 1)
    assert all(share.passes("a") for _ in range(1000))


def test_names_are_bounded(time: Time) -> None:
    share = Share(burst=1, per_s=0.01)
    assert sum(share.passes(f"name {n}") for n in range(1500)) == 1001  # the rest share a bucket
