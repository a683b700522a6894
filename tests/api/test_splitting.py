"""Large bodies come apart into what the whole decoder would have made of them, and only they do."""

import asyncio
import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.api.bodies import decode
from penstock.api.pace import Pace
from penstock.api.problems import Problem
from penstock.api.splitting import Limits, Splitter, is_crowded

LIMITS = Limits(item_max_bytes=1000, containers_max=500, items_max=50)


def split(raw: bytes, limits: Limits = LIMITS) -> dict[str, Any]:
    """The members, with their parts decoded."""
    members = asyncio.run(Splitter(raw, limits, Pace()).members(lambda part: decode(part)[0]))
    return {name: _whole(value) for name, value in members.items()}


def _whole(value: Any) -> Any:
    return [decode(bytes(part))[0] for part in value] if isinstance(value, list) else value


def slug_of(raw: bytes, limits: Limits = LIMITS) -> tuple[str, str]:
    with pytest.raises(Problem) as refused:
        split(raw, limits)
    faults = refused.value.faults
    return refused.value.slug, faults[0].pointer if faults else ""


texts = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(
    body=st.dictionaries(texts | st.just("jobs"), values, max_size=4),
    indent=st.none() | st.integers(0, 2),
    ascii_=st.booleans(),
)
def test_any_object_comes_apart_into_what_it_says(
    body: dict[str, Any], indent: int | None, ascii_: bool
) -> None:
    raw = json.dumps(body, indent=indent, ensure_ascii=ascii_).encode()
    assert split(raw) == orjson.loads(raw) == body


@given(
    body=st.dictionaries(texts | st.just("jobs"), values, max_size=4), seed=st.integers(0, 2**32)
)
def test_a_wrecked_object_is_taken_only_where_it_is_json_still(
    body: dict[str, Any], seed: int
) -> None:
    rand = random.Random(seed)
    raw = bytearray(json.dumps(body).encode())
    for _ in range(rand.randint(1, 3)):
        at = rand.randrange(len(raw)) if raw else 0
        raw[at : at + rand.randint(0, 2)] = rand.choice(
            [b'"', b"\\", b"[", b"}", b",", b"]", b"1", b" "]
        )
    try:
        expected: Any = orjson.loads(bytes(raw))
    except orjson.JSONDecodeError:
        expected = None
    try:
        found: Any = split(bytes(raw))
    except Problem:
        found = None
    assert found == (expected if isinstance(expected, dict) else None)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"x", b"{", b"}", b'{"a"}', b'{"a":}', b'{"a":1', b'{"a":1}}', b'{"a":1} x',
        b'{"a":1,}', b'{,"a":1}', b'{"a":[1,]}', b'{"a":[,1]}', b'{"a":[1 2]}', b'{"a":[}',
        b'{"a":["}', b'{"a":[1}', b"{a:1}", b'{"a":[tru]}', b'{"a":[{]}]}', b'{"a" 1}',
        b'\xef\xbb\xbf{}', b'{"a":[01]}', b'{"\xff":1}', b'{"a":[1]]}', b'{"a":nul}', b'{"a":[:]}',
    ],
)  # fmt: skip
def test_what_is_not_json_is_400(raw: bytes) -> None:
    assert slug_of(raw)[0] == "not-json"


@pytest.mark.parametrize("raw", [b"[]", b" [1", b'"a"', b"1", b"-1", b"null", b"true", b"false"])
def test_what_is_no_object_is_422(raw: bytes) -> None:
    assert slug_of(raw) == ("validation-failed", "")


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"a":[1,"%b"]}' % (b"x" * 2000), "/a/1"),
        (b'{"a":[1,[%b]]}' % (b"1," * 1000), "/a/1"),
        (b'{"a":[%b]}' % (b"1" * 2000), "/a/0"),
        (b'{"a":{"b":"%b"}}' % (b"x" * 2000), "/a"),
        (b'{"a":"%b"}' % (b"x" * 2000), "/a"),
    ],
)
def test_a_value_that_is_too_large_is_413_and_named(raw: bytes, pointer: str) -> None:
    assert slug_of(raw) == ("payload-too-large", pointer)


def test_too_many_items_and_too_many_containers_in_one_are_422() -> None:
    assert slug_of(b'{"a":[%b1]}' % (b"1," * 50)) == ("validation-failed", "/a")
    many = Limits(item_max_bytes=10_000, containers_max=500, items_max=50)
    assert slug_of(b'{"a":[1,[%b[]]]}' % (b"[]," * 600), many) == ("validation-failed", "/a/1")
    assert slug_of(b'{"a":%b}' % (b"[" * 5000), many) == ("validation-failed", "/a/0")


def test_of_very_many_names_only_the_first_are_looked_at() -> None:
    raw = b"{%b}" % b",".join(b'"%d":1' % i for i in range(100_000))
    assert len(split(raw)) == 102
    assert split(b'{%b"b":2}' % (b'"a":1,' * 50)) == {"a": 1, "b": 2}


def test_brackets_in_strings_are_no_containers() -> None:
    assert not is_crowded(b'{"a": "%b"}' % (b"[{" * 1000), 10)
    assert not is_crowded(b'{"a": "\\"%b"}' % (b"[{" * 1000), 10)
    assert not is_crowded(b"[[[[[[[[[[", 10)
    assert is_crowded(b"[[[[[[[[[[[", 10)
    assert is_crowded(b'{"a": [%b]}' % (b'{"b":"]"},' * 10), 10)
