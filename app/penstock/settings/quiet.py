"""When messages of a rule wait: quiet hours, and groups that become one message."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from penstock.domain.grouping import MEMBERS_MAX, By, Grouping
from penstock.domain.quiet import Window, is_endless
from penstock.settings.values import DAY_S

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])|(24):(00)")
_SOME_MONDAY = datetime(2026, 1, 5, tzinfo=UTC)

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _time(given: Any) -> Any:
    """YAML takes 22:00 without quotes for a number of base 60."""
    is_number = isinstance(given, int) and not isinstance(given, bool)
    return f"{given // 60:02}:{given % 60:02}" if is_number and given >= 0 else given


def _clock(text: str) -> str:
    if not _CLOCK.fullmatch(text):
        raise ValueError('must be a time of day from "00:00" to "24:00"')
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError("must be the name of a time zone, as Europe/Berlin or UTC") from None
    return name


TimeOfDay = Annotated[str, BeforeValidator(_time), AfterValidator(_clock)]


class QuietHours(BaseModel):
    """A window of each of `days`, by the wall clock of `timezone`; it may end on the next day."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    begins: TimeOfDay = Field("00:00", alias="from")
    until: TimeOfDay = "24:00"
    days: tuple[Day, ...] = Field(_DAYS, min_length=1, max_length=7)
    timezone: Annotated[str, Field(max_length=64), AfterValidator(_zone)] = "UTC"

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if _minute(self.begins) == _minute(self.until):
            raise ValueError("from and until are the same: a whole day is from 00:00 until 24:00")
        return self

    def as_window(self) -> Window:
        days = frozenset(_DAYS.index(day) for day in self.days)
        return Window(_minute(self.begins), _minute(self.until), days, ZoneInfo(self.timezone))


class Group(BaseModel):
    """What is told of in one message: what has all of `by` in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    by: tuple[By, ...] = Field((), max_length=len(By))
    wait_s: float = Field(30, ge=0, le=DAY_S, allow_inf_nan=False)
    every_s: float = Field(300, ge=0, le=DAY_S, allow_inf_nan=False)
    jobs_max: int = Field(MEMBERS_MAX, ge=1, le=MEMBERS_MAX)

    def as_grouping(self) -> Grouping:
        return Grouping(self.by, self.wait_s, self.every_s, self.jobs_max)


def _not_for_ever(quiet: tuple[QuietHours, ...]) -> tuple[QuietHours, ...]:
    if is_endless([one.as_window() for one in quiet], _SOME_MONDAY):
        raise ValueError("leaves no time to tell anything: together they never end")
    return quiet


Quiet = Annotated[tuple[QuietHours, ...], Field(max_length=20), AfterValidator(_not_for_ever)]


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)
