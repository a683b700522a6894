"""What JSON may come in, and what is found in payloads."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import HttpVersion11, StreamReader
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from penstock.api.bodies import Terms, parse, payload_text, read_object
from penstock.api.pace import Pace
from penstock.api.problems import Problem
from penstock.api.room import Room


def nested(depth: int, kind: str = "list") -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def faults_in(payload_json: str) -> list[tuple[str, str]]:
    """What the door finds in a payload that is sent as this text."""
    try:
        body = parse(f'{{"payload": {payload_json}}}'.encode())
    except Problem as problem:
        return [(fault.pointer, fault.detail) for fault in problem.faults]
    found = payload_text(body.value["payload"], suspect=body.suspect)
    return [] if isinstance(found, str) else [(fault.pointer, fault.detail) for fault in found]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"{", b"{}{}", b"[1,]", b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}',
        b'{"a": 1e400}', b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b'{"a": "\xff"}',
        b'{"a": "\\ud800"}', b'{"a": "\x00"}', b'{"a": 01}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_json_is_400(raw: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse(raw)
    assert refused.value.slug == "not-json"


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"a"', b"null", b"true", b"[{}]"])
def test_json_that_is_no_object_is_422(raw: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse(raw)
    assert refused.value.slug == "validation-failed"
    assert refused.value.faults[0].pointer == ""


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_32_levels_are_allowed_and_33_are_not(kind: str) -> None:
    assert isinstance(payload_text(nested(32, kind), suspect=False), str)
    for depth in (33, 200, 255, 1000):
        found = payload_text(nested(depth, kind), suspect=False)
        assert [fault.pointer for fault in found if not isinstance(fault, str)] == [""]


def test_empty_containers_count_as_levels_too() -> None:
    value: Any = []
    for _ in range(32):
        value = [value]
    assert not isinstance(payload_text(value, suspect=False), str)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert isinstance(payload_text([{"a": [1]}] * 1000, suspect=False), str)
    assert isinstance(payload_text("[" * 1000, suspect=False), str)


@pytest.mark.parametrize(
    ("payload", "faults"),
    [
        ("9007199254740992", []),
        ("-9007199254740992", []),
        ("9007199254740993", [("", "is an integer beyond ±2^53")]),
        ("-9007199254740993", [("", "is an integer beyond ±2^53")]),
        ("1e300", []),
        ("1.0e30", []),
        ("0.12345678901234567890", []),
        ("100000000000000000000000000000", [("", "is an integer beyond ±2^53")]),
        ('{"a": [1, 18446744073709551616]}', [("/a/1", "is an integer beyond ±2^53")]),
        ('["12345678901234567890", 1e30]', []),
        ("1" * 5000, [("", "has an integer beyond ±2^53")]),
        ("1" * 400, [("", "has an integer beyond ±2^53")]),
    ],
)
def test_integers_that_others_would_round_are_refused(
    payload: str, faults: list[tuple[str, str]]
) -> None:
    assert faults_in(payload) == faults


@pytest.mark.parametrize(
    ("payload", "faults"),
    [
        (r'"a\u0000b"', [("", "has a NUL in it")]),
        (r'{"a/b": ["\u0000"]}', [("/a~1b/0", "has a NUL in it")]),
        (r'{"x": {"k\u0000": 1}}', [("/x", "has a name with a NUL in it")]),
        (r'"\\u0000"', []),
        (r'"\u0001"', []),
    ],
)
def test_nul_is_refused_wherever_it_is(payload: str, faults: list[tuple[str, str]]) -> None:
    assert faults_in(payload) == faults


def test_a_deep_body_with_a_long_number_is_refused_and_not_a_crash() -> None:
    found = faults_in("[" * 1000 + "1" * 30 + "]" * 1000)
    assert found
    assert found[0][1].startswith(("is nested", "is an integer"))


def test_faults_in_one_payload_are_bounded() -> None:
    assert len(faults_in(json.dumps(["\0"] * 5000))) == 100


def test_minus_zero_is_zero() -> None:
    assert payload_text(parse(b'{"a": -0}').value, suspect=False) == '{"a":0}'


texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
payloads = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(payload=payloads)
def test_good_payloads_are_kept_as_they_are(payload: Any) -> None:
    body = parse(json.dumps({"payload": payload}).encode())
    text = payload_text(body.value["payload"], suspect=body.suspect)
    assert isinstance(text, str)
    assert json.loads(text) == payload


@given(
    payload=payloads,
    evil=st.sampled_from(['"\\u0000"', str(2**53 + 1), str(-(10**40)), '{"\\u0000": 1}']),
)
def test_one_bad_value_is_found_anywhere(payload: Any, evil: str) -> None:
    marked = json.dumps({"x": [payload, {"deep": ["@evil@"]}, payload]})
    assert [pointer for pointer, _ in faults_in(marked.replace('"@evil@"', evil))] == [
        "/x/1/deep/0"
    ]


async def test_who_has_left_between_two_pieces_of_his_body_is_no_fault_of_ours() -> None:
    """aiohttp would raise RuntimeError; found by `python -m tests.fuzz --seed 7`."""
    protocol: Any = SimpleNamespace(connected=False, _reading_paused=False)
    gone: Any = SimpleNamespace(
        headers=CIMultiDict({"Content-Type": "application/json"}),
        version=HttpVersion11,
        content_length=None,
        content=StreamReader(protocol, 2**16, loop=asyncio.get_running_loop()),
        transport=None,
    )
    with pytest.raises(Problem) as refused:
        await read_object(
            gone, Terms(1000, 1.0, 50_000, Pace()), Room(1000).share("ada"), lambda _: None
        )
    assert refused.value.slug == "bad-request"
