"""Fields that bodies, queries and answers share, and what they say of a bad value."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field
from pydantic_core import PydanticCustomError

from penstock.domain.job import NAME_PATTERN

_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Printable = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Tag = Annotated[Printable, Field(max_length=64)]


def instant(value: object, hint: str = "") -> datetime:
    """The instant in UTC that an RFC 3339 text names; `hint` is added where it has not its form.

    Beyond what can be told in UTC it is the first or the last one.
    """
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise PydanticCustomError("instant", f"must be an RFC 3339 time with its zone{hint}")
    try:
        at = datetime.fromisoformat(value.upper())
    except ValueError:
        raise PydanticCustomError("instant", "is not a time that exists") from None
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return _FIRST if at.year == 1 else _LAST
