"""Fields that bodies, queries and answers share, and what they say of a bad value."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticCustomError

from penstock.domain.job import NAME_PATTERN

_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)

ID_PATTERN = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Printable = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
JobRef = Annotated[str, Field(pattern=ID_PATTERN)]
Tag = Annotated[Printable, Field(max_length=64)]
ErrorType = Annotated[Printable, Field(max_length=200)]
MARK_PATTERN = r"^[0-9a-f]{16}$"
Fingerprint = Annotated[str, Field(pattern=MARK_PATTERN)]


def says(description: str, *examples: Any) -> Any:
    """What the document tells of a field: what it means, and what it may be."""
    return Field(description=description, examples=list(examples) or None)


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


def whole(value: object) -> object:
    """JSON has one kind of number: 4.0 is as good as 4 (libraries.md, trap 4)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# pydantic's names of what can be wrong, in the words of the house.
_DETAILS = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} item",
    "too_long": "must have at most {max_length} items",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "finite_number": "must be a finite number",
}


_FORMS = {NAME_PATTERN: f"must match {NAME_PATTERN}", ID_PATTERN: "must be an id"}
_FORMS[MARK_PATTERN] = "must be 16 hexadecimal digits"


def said_of(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, of one of the errors that pydantic lists."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        form = context["pattern"]
        return _FORMS.get(form, "must have no control characters")
    values = {name: whole(value) for name, value in context.items()}
    return _DETAILS[kind].format(**values) if kind in _DETAILS else str(error["msg"])
