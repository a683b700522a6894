"""Exceptions to endings: every kind of exception, and exceptions that misbehave."""

import asyncio
import decimal
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.attempt import Outcome
from penstock.egress import EgressError, EgressRefused
from penstock.egress.client import Egress
from penstock.handlers import (
    AttemptFailed,
    BadPayload,
    Cancelled,
    PermanentError,
    RetryLater,
    failure_of,
)
from penstock.handlers.context import Context, LogLimits, Services
from penstock.handlers.registry import Registry
from penstock.loops.run import run_handler
from tests.support import making


class CardDeclined(PermanentError):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class NoText(Exception):
    def __str__(self) -> str:
        return cast(str, 5)


class _Sly(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no")


class Disguised(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit(9)


class Hidden(Exception, metaclass=_Sly):
    pass


@pytest.mark.parametrize(
    ("exc", "wanted"),
    [
        (ValueError("bad"), ("ValueError", "bad", True)),
        (KeyError("k"), ("KeyError", "'k'", True)),
        (TimeoutError(), ("TimeoutError", "TimeoutError", True)),
        (decimal.InvalidOperation("x"), ("decimal.InvalidOperation", "x", True)),
        (asyncio.CancelledError(), ("asyncio.exceptions.CancelledError", "CancelledError", True)),
        (SystemExit(3), ("SystemExit", "3", True)),
        (AttemptFailed("a"), ("attempt-failed", "a", True)),
        (AttemptFailed("a", "own"), ("own", "a", True)),
        (PermanentError("p"), ("permanent-error", "p", False)),
        (PermanentError("p", type="card"), ("card", "p", False)),
        (CardDeclined("c"), (f"{__name__}.CardDeclined", "c", False)),
        (RetryLater("r", after_s=5), ("retry-later", "r", True)),
        (EgressRefused("no"), ("egress-refused", "no", False)),
        (EgressError("later"), ("egress-failed", "later", True)),
        (Mute(), (f"{__name__}.Mute", "Mute, whose message can't be shown", True)),
        (NoText(), (f"{__name__}.NoText", "NoText, whose message can't be shown", True)),
        (ExceptionGroup("two", [ValueError()]), ("ExceptionGroup", "two (1 sub-exception)", True)),
    ],
)
def test_an_exception_becomes_a_failure(exc: BaseException, wanted: tuple[str, str, bool]) -> None:
    ending = failure_of(exc)
    assert ending.failure is not None
    assert ending.outcome is Outcome.FAILED
    assert (ending.failure.type, ending.failure.message, ending.retryable) == wanted


@pytest.mark.parametrize("sort", [Hidden, Disguised])
def test_an_exception_that_hides_its_class_is_a_failure_too(sort: type[Exception]) -> None:
    ending = failure_of(sort("x"))
    assert ending.outcome is Outcome.FAILED
    assert ending.failure is not None


def test_being_cancelled_is_no_failure() -> None:
    assert failure_of(Cancelled("requested")).outcome is Outcome.CANCELLED


def test_a_wish_for_time_is_kept_and_bounded() -> None:
    assert failure_of(RetryLater("r", 90)).retry_after_s == 90
    assert failure_of(RetryLater("r", math.inf)).retry_after_s == 5 * 366 * 24 * 3600
    assert failure_of(AttemptFailed("a")).retry_after_s is None
    for nonsense in (-1, math.nan):
        with pytest.raises(ValueError, match="after_s"):
            RetryLater("r", nonsense)


def test_the_details_of_a_bad_payload_are_its_faults() -> None:
    failure = failure_of(BadPayload("k", [("/a", "missing")])).failure
    assert failure is not None
    assert failure.type == "bad-payload"
    assert failure.details == [{"pointer": "/a", "detail": "missing"}]


def _deep(levels: int) -> None:
    if levels:
        _deep(levels - 1)
    raise ValueError("at the bottom")


def test_the_traceback_has_the_innermost_frames() -> None:
    with pytest.raises(ValueError, match="bottom") as caught:
        _deep(50)
    failure = failure_of(caught.value).failure
    assert failure is not None
    frames = failure.details["traceback"]
    assert len(frames) == 20
    assert frames[-1].startswith(f"{__name__}:")
    assert frames[-1].endswith(" in _deep")


def test_an_exception_that_was_never_raised_has_an_empty_traceback() -> None:
    failure = failure_of(ValueError("x")).failure
    assert failure is not None
    assert failure.details == {"traceback": []}


@pytest.mark.parametrize(
    "details",
    [{1, 2}, math.nan, 2**60, "a\0b", "x" * 20_000, object(), {1: 2}, [math.inf]],
)
def test_details_that_can_not_be_kept_are_left_out(details: Any) -> None:
    failure = failure_of(PermanentError("p", details=details)).failure
    assert failure is not None
    assert list(failure.details) == ["left_out"]


def test_details_that_can_be_kept_are() -> None:
    failure = failure_of(PermanentError("p", details={"line": 3, "of": [None, 1.5]})).failure
    assert failure is not None
    assert failure.details == {"line": 3, "of": [None, 1.5]}


@given(st.text(max_size=3000), st.text(max_size=300))
def test_any_message_and_type_can_be_stored(message: str, kind: str) -> None:
    for exc in (ValueError(message), PermanentError(message, kind), AttemptFailed(message, kind)):
        failure = failure_of(exc).failure
        assert failure is not None
        stored = orjson.dumps(failure.as_json())
        assert b"\\u0000" not in stored.replace(b"\\\\", b"")
        assert len(failure.message.encode()) <= 2048
        assert len(failure.type.encode()) <= 200


@pytest.mark.parametrize("exit_", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exception_that_exits_when_it_is_shown_is_still_only_a_failure(
    exit_: type[BaseException],
) -> None:
    class Exiting(Exception):
        def __str__(self) -> str:
            raise exit_

    ending = failure_of(Exiting())
    assert ending.outcome is Outcome.FAILED
    assert ending.failure is not None
    assert "can't be shown" in ending.failure.message


async def test_the_traceback_begins_with_the_handler() -> None:
    registry = Registry.load(("penstock.handlers.samples",))
    handler = registry.get("fail")
    assert handler is not None
    context = Context(making.started(kind="fail"), math.inf, Services(http=Egress()), LogLimits())
    with ThreadPoolExecutor(1) as threads:
        ending = await run_handler(handler, context, threads, 1000)
    assert ending.failure is not None
    frames = ending.failure.details["traceback"]
    assert [frame.partition(":")[0] for frame in frames] == ["penstock.handlers.samples"]
