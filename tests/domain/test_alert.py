"""When dead letters are an alarm."""

from datetime import datetime, timedelta
from typing import Any

from penstock.domain.alert import Alert, AlertRule, By, DeadLetter, Watch
from tests.support.making import NOON


def letter(number: int, at_s: float = 0, **fields: Any) -> DeadLetter:
    made = {"queue": "billing", "kind": "charge", "error_type": "timeout", **fields}
    return DeadLetter(f"job-{number}:1", f"job-{number}", at=_at(at_s), **made)


def raised(rule: AlertRule, *letters: DeadLetter) -> list[Alert]:
    return list(Watch([rule]).take(letters))


def _at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_so_many_within_the_window_are_an_alarm_and_one_less_is_none() -> None:
    rule = AlertRule("many", count=3, within_s=60)
    assert raised(rule, letter(1), letter(2, 30)) == []
    (alert,) = raised(rule, letter(1), letter(2, 30), letter(3, 60))
    assert (alert.count, alert.first_at, alert.last_at) == (3, NOON, _at(60))
    assert alert.jobs == ("job-1", "job-2", "job-3")


def test_what_lies_further_apart_is_no_alarm() -> None:
    rule = AlertRule("many", count=3, within_s=60)
    assert raised(rule, letter(1), letter(2, 30), letter(3, 61)) == []


def test_a_rule_that_has_told_rests_for_its_window_and_tells_again() -> None:
    rule = AlertRule("each", count=2, within_s=60)
    letters = [letter(number, number) for number in range(100)]
    first, second = raised(rule, *letters)
    assert first.last_at == _at(1)
    assert second.last_at == _at(61)


def test_a_repetition_counts_once() -> None:
    assert raised(AlertRule("two", count=2), letter(1), letter(1), letter(1)) == []


def test_globs_pick_queues_kinds_and_types_of_error() -> None:
    rule = AlertRule("bills", queue="bill*", kind="charge", error_type="time*")
    assert raised(rule, letter(1))
    assert not raised(rule, letter(1, queue="mail"))
    assert not raised(rule, letter(1, kind="refund"))
    assert not raised(rule, letter(1, error_type="refused"))


def test_each_group_is_counted_apart() -> None:
    by: tuple[By, ...] = ("queue", "error_type")
    rule = AlertRule("apart", by=by, count=2)
    mixed = [letter(1), letter(2, queue="mail"), letter(3, error_type="refused")]
    assert raised(rule, *mixed) == []
    (alert,) = raised(rule, *mixed, letter(4))
    assert alert.group == {"queue": "billing", "error_type": "timeout"}


def test_what_is_kept_in_mind_is_bounded() -> None:
    watch = Watch([AlertRule("each", by=("queue",), count=2)])
    for number in range(120_000):
        assert not list(watch.take([letter(number, queue=f"q{number}")]))
    assert len(watch._groups) == 10_000
    assert len(watch._seen) == 100_000
