"""echo, sleep and fail, as api.md describes them."""

import asyncio
from typing import Any

import orjson
import pytest

from penstock.domain.attempt import Outcome
from penstock.handlers import Registry, samples
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


async def test_a_long_sleep_tells_how_far_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_REPORT_S", 0.01)
    ctx, told = context(), []
    sleeping = asyncio.create_task(run(handler_of("sleep", SAMPLES), {"seconds": 0.1}, ctx))
    while not sleeping.done():
        await asyncio.sleep(0.005)
        told.append(ctx.take_progress())
    percents = [one.percent for one in told if one is not None]
    assert len(percents) > 3
    assert 0 <= percents[0] < percents[-1] < 100


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
