"""The door and the run agree about payloads, and pointers lead somewhere."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from penstock.handlers import BadPayload, Registry
from penstock.handlers.payloads import faults_at_door
from tests.handlers.factory import context

REGISTRY = Registry.load(["penstock.handlers.samples", "penstock.examples"])

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    # Lone surrogates are no JSON.
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["url", "method", "headers", "body", "expect_status", "~/", "text"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)


def _leads_somewhere(pointer: str, payload: Any) -> bool:
    """Whether `pointer` names a value in `payload`, or a member that one of its objects lacks."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(payload, list):
            payload = payload[int(name)]
        elif name in payload:
            payload = payload[name]
        else:
            return pointer.endswith("/" + step)
    return True


@given(JSON, st.sampled_from(REGISTRY.kinds))
def test_the_door_refuses_exactly_what_the_run_would_refuse(payload: Any, kind: str) -> None:
    at_door = REGISTRY.payload_errors(kind, payload)
    handler = REGISTRY.get(kind)
    assert handler is not None
    try:
        handler.arguments(orjson.dumps(payload).decode(), context())
        at_run = []
    except BadPayload as exc:
        at_run = [(fault["pointer"], fault["detail"]) for fault in exc.details]
    assert at_door == at_run
    assert all(_leads_somewhere(pointer, payload) for pointer, _ in at_door)


class _Buggy(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int

    @field_validator("n")
    @classmethod
    def _bug(cls, n: int) -> int:
        return {1: 2}[n]


def test_a_bug_in_a_users_validator_is_left_for_the_run_to_show() -> None:
    adapter = TypeAdapter(_Buggy)
    assert faults_at_door(adapter, {"n": 1}) == []
    assert faults_at_door(adapter, {"n": 5}) == []
    with pytest.raises(KeyError):
        adapter.validate_json('{"n": 5}')


def test_a_payload_that_is_too_deep_to_be_read_is_a_fault() -> None:
    deep: Any = None
    for _ in range(300):
        deep = [deep]
    assert faults_at_door(TypeAdapter(list[Any]), deep) == [("", "is nested too deeply")]


def test_what_a_message_shows_of_the_payload_is_nothing() -> None:
    secret = "s3cret-" * 20
    for kind in REGISTRY.kinds:
        for payload in (secret, {"url": secret, "text": 1, "seconds": secret, "type": [secret]}):
            told = REGISTRY.payload_errors(kind, payload)
            assert not any("s3cret" in detail for _, detail in told)


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int
    text: str = Field("x", min_length=1)


@pytest.mark.parametrize(
    ("payload", "faults"),
    [
        (None, [("", "must be an object")]),
        ({}, [("/n", "is required")]),
        ({"n": "x"}, [("/n", "must be a valid integer, unable to parse string as an integer")]),
        ({"n": 1, "text": ""}, [("/text", "must have at least 1 character")]),
        ({"n": 1, "m": 1}, [("/m", "is not a known field")]),
    ],
)
def test_faults_are_told_in_the_voice_of_the_door(
    payload: Any, faults: list[tuple[str, str]]
) -> None:
    assert faults_at_door(TypeAdapter(_Form), payload) == faults
