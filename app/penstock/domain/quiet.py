"""Quiet hours: when a rule's messages wait, by the wall clock of a zone. Pure.

A window belongs to the day that it begins on, and may end on the next. Where the clock is put back
and a time comes twice, quiet begins at the first and ends at the second; where it is put forward
and a time doesn't come, it begins or ends as the clock jumps. So a window is always one piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WHOLE_DAY = 24 * 60  # minutes
LONGEST = timedelta(days=8)  # windows that follow one another for longer never end

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Window:
    """From minute `begins` of each of `days` (0: Monday) until minute `ends` of that day, or of the
    next if that isn't later."""

    begins: int
    ends: int
    days: frozenset[int]
    zone: ZoneInfo


def quiet_until(windows: Sequence[Window], now: datetime) -> datetime | None:
    """When quiet that covers `now` ends, through windows that meet, `LONGEST` ahead at most; None:
    it isn't quiet."""
    until = now
    while until - now < LONGEST:
        end = max((end for one in windows if (end := _end(one, until))), default=None)
        if end is None:
            break
        until = end
    return until if until > now else None


def is_endless(windows: Sequence[Window], now: datetime) -> bool:
    """Whether it is never loud."""
    until = quiet_until(windows, now)
    return until is not None and until - now >= LONGEST


def _end(window: Window, at: datetime) -> datetime | None:
    """When the window that covers this instant ends."""
    today = at.astimezone(window.zone).date()
    for day in (today, today - timedelta(days=1)):
        if day.weekday() in window.days:
            ends = window.ends if window.ends > window.begins else window.ends + WHOLE_DAY
            end = _instant(day, ends, window.zone, fold=1)
            if _instant(day, window.begins, window.zone, fold=0) <= at < end:
                return end
    return None


def _instant(day: date, minute: int, zone: ZoneInfo, fold: int) -> datetime:
    """When that minute of a day comes; `fold`: the first (0) or the second time."""
    wall = datetime.combine(day, time()) + timedelta(minutes=minute)
    at = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) == wall:
        return at
    return _jump(wall, zone)


def _jump(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clock is put forward over a time that doesn't come."""
    before, after = sorted(wall.replace(tzinfo=zone, fold=n).astimezone(UTC) for n in (0, 1))
    was = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == was:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)
