"""When it is quiet, by the wall clock of a zone: over midnight, over changes of the clock."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.quiet import LONGEST, WHOLE_DAY, Window, is_endless, quiet_until

BERLIN, APIA = ZoneInfo("Europe/Berlin"), ZoneInfo("Pacific/Apia")
ALL_DAYS = frozenset(range(7))
FRIDAY, SATURDAY, SUNDAY = 4, 5, 6


def window(begins: str, ends: str, *days: int, zone: ZoneInfo = BERLIN) -> Window:
    return Window(minute(begins), minute(ends), frozenset(days) or ALL_DAYS, zone)


def minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def at(text: str) -> datetime:
    """`2026-03-29T00:30` in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NIGHT = window("22:00", "07:00")  # Berlin is UTC+2 in summer


@pytest.mark.parametrize(
    ("windows", "now", "until"),
    [
        pytest.param([], "2026-07-01T12:00", None, id="no window"),
        pytest.param([NIGHT], "2026-07-01T12:00", None, id="by day"),
        pytest.param([NIGHT], "2026-07-01T19:59", None, id="a minute before"),
        pytest.param([NIGHT], "2026-07-01T20:00", "2026-07-02T05:00", id="as it begins"),
        pytest.param([NIGHT], "2026-07-01T22:30", "2026-07-02T05:00", id="after midnight"),
        pytest.param([NIGHT], "2026-07-02T05:00", None, id="as it ends"),
        pytest.param(
            [window("22:00", "07:00", FRIDAY)],
            "2026-07-04T04:00",
            "2026-07-04T05:00",
            id="it belongs to the day that it begins on",
        ),
        pytest.param(
            [window("22:00", "07:00", FRIDAY)], "2026-07-03T04:00", None, id="not to the next"
        ),
        pytest.param(
            [window("00:00", "24:00", SATURDAY, SUNDAY)],
            "2026-07-04T10:00",
            "2026-07-05T22:00",
            id="two whole days are one",
        ),
        pytest.param(
            [NIGHT, window("00:00", "24:00", SATURDAY, SUNDAY)],
            "2026-07-03T21:00",
            "2026-07-06T05:00",
            id="windows that meet are one",
        ),
        pytest.param(
            [window("12:00", "13:00"), window("12:30", "14:00")],
            "2026-07-01T10:45",
            "2026-07-01T12:00",
            id="of two the one that ends last",
        ),
        # The clock is put forward at 01:00 UTC, from 02:00 to 03:00.
        pytest.param([NIGHT], "2026-03-28T21:00", "2026-03-29T05:00", id="an hour less"),
        pytest.param([window("02:30", "07:00")], "2026-03-29T00:59", None, id="before the gap"),
        pytest.param(
            [window("02:30", "07:00")],
            "2026-03-29T01:00",
            "2026-03-29T05:00",
            id="what begins in the gap begins behind it",
        ),
        pytest.param(
            [window("01:00", "02:30")],
            "2026-03-29T00:59",
            "2026-03-29T01:00",
            id="what ends in the gap ends before it",
        ),
        pytest.param(
            [window("02:10", "02:50")], "2026-03-29T01:00", None, id="what lies in it is not"
        ),
        # The clock is put back at 01:00 UTC, from 03:00 to 02:00.
        pytest.param([NIGHT], "2026-10-24T21:00", "2026-10-25T06:00", id="an hour more"),
        pytest.param(
            [window("02:30", "07:00")],
            "2026-10-25T00:30",
            "2026-10-25T06:00",
            id="what begins twice begins the first time",
        ),
        pytest.param(
            [window("02:30", "07:00")],
            "2026-10-25T01:10",
            "2026-10-25T06:00",
            id="and goes on though the clock is put back before it",
        ),
        pytest.param(
            [window("01:00", "02:30")],
            "2026-10-25T00:45",
            "2026-10-25T01:30",
            id="what ends twice ends the second time",
        ),
        # Samoa left out all of 30 December 2011.
        pytest.param(
            [window("22:00", "07:00", zone=APIA)],
            "2011-12-30T08:30",
            "2011-12-30T17:00",
            id="a day that never came",
        ),
    ],
)
def test_when_quiet_ends(windows: list[Window], now: str, until: str | None) -> None:
    assert quiet_until(windows, at(now)) == (None if until is None else at(until))


def test_what_never_ends_is_known() -> None:
    week = [window("00:00", "24:00")]
    assert is_endless(week, at("2026-01-05T00:00"))
    assert is_endless([window("07:00", "22:00"), NIGHT], at("2026-01-05T00:00"))
    assert not is_endless([window("07:00", "21:59"), NIGHT], at("2026-01-05T00:00"))
    assert not is_endless([window("00:00", "24:00", *range(6))], at("2026-01-05T00:00"))


@given(
    begins=st.integers(0, WHOLE_DAY - 1),
    ends=st.integers(1, WHOLE_DAY),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    zone=st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_quiet_ends_and_is_one_piece(
    begins: int, ends: int, days: frozenset[int], zone: str, now: datetime
) -> None:
    windows = [Window(begins, ends, days, ZoneInfo(zone))]
    until = quiet_until(windows, now)
    if until is None:
        return
    assert now < until <= now + LONGEST + timedelta(days=2)
    assert quiet_until(windows, now + (until - now) / 2) is not None
    if until - now < LONGEST:
        assert quiet_until(windows, until) is None
