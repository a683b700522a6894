"""The context: what it shows of the job, its log with every limit, its deadline."""

import threading
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.clock import wall_s
from penstock.handlers import Cancelled, LogLimits
from penstock.handlers.context import PROGRESS_MESSAGE_MAX
from tests.handlers.factory import JOB_ID, context


def test_a_context_shows_its_job() -> None:
    ctx = context(kind="word-count", queue="mail")
    assert (ctx.job_id, ctx.kind, ctx.queue) == (JOB_ID, "word-count", "mail")
    assert (ctx.attempt, ctx.failures, ctx.max_attempts) == (3, 1, 5)
    assert (ctx.tags, ctx.created_by) == (("blue",), "ann")
    assert ctx.traceparent is not None


def test_log_lines_are_numbered_and_taken_once() -> None:
    ctx = context()
    assert ctx.take_logs() == []
    before = wall_s()
    ctx.log.debug("a")
    ctx.log.info("b", rows=3, name="x y", none=None)
    first = ctx.take_logs()
    ctx.log.warning("c", message="of fields", self=1)
    ctx.log.error("d")
    second = ctx.take_logs()
    assert [(line.seq, line.level, line.message) for line in first + second] == [
        (1, "debug", "a"),
        (2, "info", "b rows=3 name=x y none=None"),
        (3, "warning", "c message=of fields self=1"),
        (4, "error", "d"),
    ]
    assert before <= first[0].at_s <= wall_s()
    assert ctx.take_logs() == []


def test_after_the_last_line_that_fits_comes_one_that_says_so() -> None:
    ctx = context(limits=LogLimits(lines_max=3, bytes_max=1000))
    for n in range(10):
        ctx.log.info(f"line {n}")
    messages = [line.message for line in ctx.take_logs()]
    assert messages == ["line 0", "line 1", "line 2", "log limit reached"]
    ctx.log.info("more")
    assert ctx.take_logs() == []


def test_bytes_are_counted_as_stored() -> None:
    ctx = context(limits=LogLimits(lines_max=100, bytes_max=10))
    for _ in range(4):
        ctx.log.info("ßß")
    assert [line.message for line in ctx.take_logs()] == ["ßß", "ßß", "log limit reached"]


def test_no_lines_at_all_is_a_limit_too() -> None:
    ctx = context(limits=LogLimits(lines_max=0, bytes_max=0))
    ctx.log.info("x")
    assert [line.message for line in ctx.take_logs()] == ["log limit reached"]


def test_one_huge_line_is_cut() -> None:
    ctx = context()
    ctx.log.info("x" * 10_000_000, more="y")
    (line,) = ctx.take_logs()
    assert len(line.message.encode()) <= 8 * 1024


@given(st.text(), st.text())
def test_a_line_is_one_line_of_storable_text(message: str, value: str) -> None:
    ctx = context()
    ctx.log.info(message, key=value)
    (line,) = ctx.take_logs()
    line.message.encode()
    assert "\0" not in line.message
    assert len(line.message.splitlines()) <= 1
    assert "\x1b" not in line.message


def test_a_value_that_can_not_be_shown_does_no_harm() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    ctx = context()
    ctx.log.info("look", at=Bad())
    assert ctx.take_logs()[0].message == "look at=<Bad>"


def test_threads_of_one_handler_lose_no_line() -> None:
    ctx = context(limits=LogLimits(lines_max=100_000, bytes_max=100_000_000))
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(500):
            ctx.log.info("x")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    lines = []
    while any(thread.is_alive() for thread in threads):
        lines += ctx.take_logs()
    lines += ctx.take_logs()
    assert [line.seq for line in lines] == list(range(1, 4001))


def test_the_latest_progress_is_taken_once() -> None:
    ctx = context()
    assert ctx.take_progress() is None
    before = wall_s()
    ctx.progress(10, "begun")
    ctx.progress(12.5)
    told = ctx.take_progress()
    assert told is not None
    assert (told.percent, told.message) == (12.5, None)
    assert before <= told.at_s <= wall_s()
    assert ctx.take_progress() is None
    ctx.progress(12.5)
    again = ctx.take_progress()
    assert again is not None, "the same again is a sign of life"
    assert again.at_s >= told.at_s


@pytest.mark.parametrize("percent", [0, 100, 0.5, Fraction(1, 3)])
def test_percent_is_any_number_of_the_range(percent: Any) -> None:
    ctx = context()
    ctx.progress(percent)
    told = ctx.take_progress()
    assert told is not None
    assert (type(told.percent), told.percent) == (float, float(percent))


@pytest.mark.parametrize(
    ("percent", "message", "error", "words"),
    [
        (-0.1, None, ValueError, "percent must be 0 to 100, not -0.1"),
        (100.1, None, ValueError, "percent must be 0 to 100"),
        (float("nan"), None, ValueError, "percent must be 0 to 100, not nan"),
        (float("inf"), None, ValueError, "percent must be 0 to 100"),
        (10**400, None, ValueError, "percent must be 0 to 100"),
        ("50", None, TypeError, "percent must be a number, not a str"),
        (True, None, TypeError, "percent must be a number, not a bool"),
        (None, None, TypeError, "percent must be a number, not a NoneType"),
        (Decimal(5), None, TypeError, "percent must be a number, not a Decimal"),
        (5, 5, TypeError, "message must be a text, not a int"),
        (5, b"x", TypeError, "message must be a text, not a bytes"),
    ],
)
def test_what_is_no_progress_is_refused_and_changes_nothing(
    percent: Any, message: Any, error: type[Exception], words: str
) -> None:
    ctx = context()
    with pytest.raises(error, match=words):
        ctx.progress(percent, message)
    assert ctx.take_progress() is None


@given(st.text(max_size=600))
def test_a_message_is_one_short_line_of_storable_text(message: str) -> None:
    ctx = context()
    ctx.progress(1, message)
    told = ctx.take_progress()
    assert told is not None
    assert told.message is not None
    told.message.encode()
    assert len(told.message) <= PROGRESS_MESSAGE_MAX
    assert "\0" not in told.message
    assert len(told.message.splitlines()) <= 1


def test_a_long_message_shows_that_it_was_cut() -> None:
    ctx = context()
    for message, kept in (("x" * 256, "x" * 256), ("x" * 10_000_000, "x" * 255 + "…")):
        ctx.progress(1, message)
        told = ctx.take_progress()
        assert told is not None
        assert told.message == kept


def test_threads_may_report_while_reports_are_taken() -> None:
    ctx, taken = context(), []

    def work() -> None:
        for n in range(20_000):
            ctx.progress(n / 200)
        ctx.progress(100)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        taken.append(ctx.take_progress())
    thread.join()
    taken.append(ctx.take_progress())
    told = [one.percent for one in taken if one is not None]
    assert told == sorted(told), "none is taken after a later one"
    assert told[-1] == 100


def test_the_time_left_runs_out() -> None:
    assert 9 < context(remaining_s=10).remaining_s() <= 10
    assert context(remaining_s=-1).remaining_s() < 0


def test_a_cancelled_attempt_knows_and_the_first_reason_stands() -> None:
    fresh, ctx = context(), context()
    fresh.raise_if_cancelled()
    assert not fresh.cancelled
    ctx.cancel("requested")
    ctx.cancel("late")
    assert ctx.cancelled
    with pytest.raises(Cancelled, match="requested"):
        ctx.raise_if_cancelled()
