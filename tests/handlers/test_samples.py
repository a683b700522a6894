"""echo, sleep and fail, as api.md describes them."""

from typing import Any

import orjson
import pytest

from penstock.domain.attempt import Outcome
from penstock.handlers import Registry
from tests.handlers.factory import context, handler_of, run

SAMPLES = "penstock.handlers.samples"


@pytest.mark.parametrize("payload", [None, 0, "x", [1, {"a": None}], {"b": 2**53}])
async def test_echo_answers_its_payload(payload: Any) -> None:
    ending = await run(handler_of("echo", SAMPLES), payload, context())
    assert ending.outcome is Outcome.SUCCEEDED
    assert ending.result is not None
    assert orjson.loads(ending.result) == payload


async def test_sleep_tells_how_long() -> None:
    ending = await run(handler_of("sleep", SAMPLES), {"seconds": 0.01}, context())
    assert ending.result == '{"slept_s":0.01}'
    ending = await run(handler_of("sleep", SAMPLES), {"seconds": 0}, context())
    assert ending.result == '{"slept_s":0.0}'


async def test_fail_fails_as_asked() -> None:
    handler = handler_of("fail", SAMPLES)
    plain = await run(handler, None, context())
    asked = await run(handler, {"type": "t", "message": "m", "retryable": False}, context())
    assert plain.failure is not None
    assert asked.failure is not None
    assert (plain.outcome, plain.retryable) == (Outcome.FAILED, True)
    assert (asked.failure.type, asked.failure.message, asked.retryable) == ("t", "m", False)
    assert (await run(handler, {}, context())).failure == plain.failure


@pytest.mark.parametrize(
    ("kind", "payload", "pointer"),
    [
        ("sleep", {}, "/seconds"),
        ("sleep", {"seconds": -1}, "/seconds"),
        ("sleep", {"seconds": True}, "/seconds"),
        ("sleep", {"seconds": "1"}, "/seconds"),
        ("sleep", {"seconds": 1e9}, "/seconds"),
        ("sleep", {"seconds": 1, "more": 1}, "/more"),
        ("sleep", None, ""),
        ("fail", {"retryable": 1}, "/retryable"),
        ("fail", {"message": None}, "/message"),
        ("fail", [], ""),
    ],
)
def test_a_bad_payload_is_pointed_at(kind: str, payload: Any, pointer: str) -> None:
    assert [p for p, _ in Registry.load([SAMPLES]).payload_errors(kind, payload)] == [pointer]
