"""Results: all that is JSON is kept exactly, and nothing else is kept at all."""

import asyncio
import dataclasses
import enum
import math
import uuid
from collections import namedtuple
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, model_serializer

from penstock.domain.attempt import Ending, Outcome
from penstock.handlers import ending_of
from penstock.handlers.results import Unstorable, encode

MIB = 1024 * 1024

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_TEXT, inner, max_size=5),
    max_leaves=60,
)


class Model(BaseModel):
    x: float
    at: datetime | None = None


@dataclasses.dataclass
class Row:
    x: float
    model: Model | None = None


class Colour(enum.Enum):
    RED = "red"


Pair = namedtuple("Pair", "a b")


def nested(levels: int, inner: Any = None) -> Any:
    for level in range(levels):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def _failure(ending: Ending) -> tuple[str, str]:
    assert ending.outcome is Outcome.FAILED
    assert not ending.retryable
    assert ending.failure is not None
    assert ending.result is None
    return ending.failure.type, ending.failure.message


@given(JSON)
def test_json_is_kept_as_it_is(value: Any) -> None:
    ending = ending_of(value, MIB)
    assert ending.outcome is Outcome.SUCCEEDED
    assert orjson.loads(cast(str, ending.result)) == value


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        ("", '""'),
        ((1, 2), "[1,2]"),
        (2**53, "9007199254740992"),
        (-(2**53), "-9007199254740992"),
        ([2**53, {"a": None}], '[9007199254740992,{"a":null}]'),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e300, "1e+300"),
        ("1234567890123456789012", '"1234567890123456789012"'),
        ("\\u0000", '"\\\\u0000"'),
        ("NaN", '"NaN"'),
        (["NaN", None, "Infinity"], '["NaN",null,"Infinity"]'),
        ("[" * 100, '"' + "[" * 100 + '"'),
        (["[{" * 50, '"[' * 50], '["' + "[{" * 50 + '","' + '\\"[' * 50 + '"]'),
        ([[]] * 40, "[" + ",".join(["[]"] * 40) + "]"),
        (datetime(2026, 11, 21, tzinfo=UTC), '"2026-11-21T00:00:00+00:00"'),
        (uuid.UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
        (Colour.RED, '"red"'),
        (Row(1.5, Model(x=2)), '{"x":1.5,"model":{"x":2.0,"at":null}}'),
        (
            [Model(x=1, at=datetime(2026, 1, 2, tzinfo=UTC))],
            '[{"x":1.0,"at":"2026-01-02T00:00:00Z"}]',
        ),
    ],
)
def test_a_value_is_stored_in_this_form(value: Any, wanted: str) -> None:
    assert ending_of(value, MIB).result == wanted


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (1j, "complex"),
        ({1: 2}, "key must be str"),
        (Pair(1, 2), "Pair"),
        ((x for x in "a"), "generator"),
        ("\ud800", "surrogates"),
        ("a\0b", "NUL"),
        ("\\\0", "NUL"),
        ({"a\0": 1}, "NUL"),
        ({"a": ["\0"]}, "NUL"),
        (2**53 + 1, "2^53"),
        (-(2**53) - 1, "2^53"),
        ([{"a": 2**60}], "2^53"),
        (2**64, "64-bit"),
        (10**4000, "64-bit"),
        (math.nan, "NaN"),
        ([1, -math.inf], "NaN"),
        ({"a": [None, math.nan]}, "NaN"),
        (Row(math.nan), "NaN"),
        (Model(x=math.inf), "NaN"),
        (Row(1, Model(x=math.nan)), "NaN"),
        ([[Model(x=math.nan)]], "NaN"),
        (nested(33), "32 levels"),
        (nested(40, "]" * 40), "32 levels"),
        (nested(250), "32 levels"),
        (nested(300), "Recursion"),
    ],
)
def test_what_is_not_storable_json_fails_for_good(value: Any, told: str) -> None:
    kind, message = _failure(ending_of(value, MIB))
    assert kind == "result-unserialisable"
    assert told in message


def test_thirty_two_levels_are_allowed() -> None:
    assert ending_of(nested(32), MIB).outcome is Outcome.SUCCEEDED
    assert ending_of([nested(31), [[]] * 50], MIB).outcome is Outcome.SUCCEEDED


def test_a_value_that_contains_itself_fails_for_good() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert _failure(ending_of(loop, MIB))[0] == "result-unserialisable"


@pytest.mark.parametrize("value", ["xxxxxxxx", ["xxxxxx"], "ßßßß"])
def test_the_limit_counts_bytes_of_json(value: Any) -> None:
    size = len(orjson.dumps(value))
    assert ending_of(value, size).outcome is Outcome.SUCCEEDED
    assert _failure(ending_of(value, size - 1))[0] == "result-too-large"


def test_an_object_that_breaks_when_it_is_looked_at_fails_for_good() -> None:
    class Broken(BaseModel):
        x: Any

        def model_dump(self, **options: Any) -> dict[str, Any]:
            raise RuntimeError("broken")

    assert _failure(ending_of(Broken(x=1), MIB))[0] == "result-unserialisable"


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_depth_is_counted_exactly(left: int, right: int, depth_max: int) -> None:
    value = [nested(left), "[[[[{", [[]] * depth_max, nested(right, "}}]]")]
    deepest = 1 + max(left, right, 2)
    if deepest <= depth_max:
        assert orjson.loads(encode(value, depth_max)) == value
    else:
        with pytest.raises(Unstorable):
            encode(value, depth_max)


@given(JSON, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_nan_slips_in_beside_anything(value: Any, odd: float) -> None:
    for hidden in ([value, odd], {"a": {"b": (odd,)}, "c": value}, [Row(odd), value]):
        with pytest.raises(Unstorable):
            encode(hidden)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_result_that_exits_when_it_is_looked_at_fails_and_ends_nobody(
    raised: type[BaseException],
) -> None:
    class Exits(BaseModel):
        @model_serializer
        def serialise(self) -> int:
            raise raised

    assert _failure(ending_of(Exits(), MIB))[0] == "result-unserialisable"


def test_a_result_of_which_nothing_can_be_said_fails_too() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit

    class Broken(BaseModel):
        @model_serializer
        def serialise(self) -> int:
            raise Mute

    assert _failure(ending_of(Broken(), MIB))[0] == "result-unserialisable"
