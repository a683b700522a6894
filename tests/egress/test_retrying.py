"""Retry-After in both its forms, and what servers write instead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.egress import is_transient, retry_after_s

NOW_S = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("3600", 3600.0),
        ("86400", 3600.0),
        ("9" * 5000, 3600.0),
        ("Wed, 18 Nov 2026 11:07:40 GMT", 60.0),
        ("Wed, 18 Nov 2026 11:00:00 GMT", 0.0),
        ("Thu, 19 Nov 2026 11:06:40 GMT", 3600.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Wed, 99 Nov 2026 11:07:40 GMT", None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(value: str, wanted: float | None) -> None:
    assert retry_after_s({"retry-after": value}, NOW_S) == wanted


def test_a_date_is_measured_by_the_servers_own_clock() -> None:
    headers = {
        "retry-after": "Sat, 01 Jan 2000 00:01:00 GMT",
        "date": "Sat, 01 Jan 2000 00:00:00 GMT",
    }
    assert retry_after_s(headers, NOW_S) == 60.0


def test_no_header_is_no_wish() -> None:
    assert retry_after_s({}, NOW_S) is None


@given(st.text(max_size=100), st.text(max_size=100))
def test_any_text_gives_a_bounded_wait_or_none(value: str, date: str) -> None:
    wait = retry_after_s({"retry-after": value, "date": date}, NOW_S)
    assert wait is None or 0 <= wait <= 3600


def test_only_what_may_change_is_transient() -> None:
    transient = {status for status in range(100, 600) if is_transient(status)}
    assert transient == {408, 425, 429, *range(500, 600)}
