"""What a handler returned, as the JSON that is stored.

In: any value. Out: an ending that succeeded with JSON text, or failed for good because the value
can't be kept: running the job again would give the same. Always holds: what is stored keeps the
rules of the door (api.md, "Conventions"), so whatever we store we can show. Every job passes
here, so the encoded bytes are looked at first, and only what is suspicious is walked.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic_core import to_json

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.handlers.text import cut, storable

DEPTH_MAX = 32
INT_MAX = 2**53

_NOTHING = Ending(Outcome.SUCCEEDED, result="null")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Unstorable(ValueError):
    """A value that can't be kept as JSON; the message says what is in it."""


def ending_of(result: Any, bytes_max: int) -> Ending:
    """The ending of an attempt whose handler returned `result`; its JSON has `bytes_max` at most.

    Taken are JSON's own types, tuples, pydantic models, dataclasses, datetimes, enums and UUIDs.
    """
    if result is None:
        return _NOTHING
    try:
        encoded = encode(result)
    except BaseException as exc:  # foreign objects may do anything when looked at, even exit
        return _failed("result-unserialisable", f"the handler's result can't be kept: {_said(exc)}")
    if len(encoded) > bytes_max:
        size = f"{len(encoded)} bytes, more than {bytes_max}"
        return _failed("result-too-large", f"the handler's result has {size}")
    return Ending(Outcome.SUCCEEDED, result=encoded.decode())


def _said(exc: BaseException) -> str:
    try:
        return str(exc) or type(exc).__name__
    except BaseException:  # that may be foreign too
        return "looking at it raised what can't be shown"


def _failed(kind: str, message: str) -> Ending:
    failure = Failure(kind, cut(storable(message), 500))
    return Ending(Outcome.FAILED, failure=failure, retryable=False)


def encode(value: Any, depth_max: int = DEPTH_MAX) -> bytes:
    """`value` as JSON with at most `depth_max` levels. Raises Unstorable."""
    try:
        # The option refuses from 2^53 on, where we take 2^53 itself: the slow road decides.
        encoded = orjson.dumps(value, default=_plain, option=orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        encoded = _encode_carefully(value)
    if b"null" in encoded and value is not None:
        _refuse_nan(value)
    if b"\\u0000" in encoded and _NUL.search(encoded):
        raise Unstorable("a NUL character is in it")
    if encoded.count(b"[") + encoded.count(b"{") > depth_max and _is_deeper(encoded, depth_max):
        raise Unstorable(f"it is nested deeper than {depth_max} levels")
    return encoded


def _encode_carefully(value: Any) -> bytes:
    """For values that strict encoding refused: what is wrong, or that all is well after all."""
    try:
        encoded = orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError as exc:
        told = exc.__cause__ if isinstance(exc.__cause__, Unstorable) else exc
        raise Unstorable(str(told)) from exc
    _refuse_big(orjson.loads(encoded))
    return encoded


def _refuse_big(value: Any) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, int) and abs(item) > INT_MAX:
            raise Unstorable("an integer beyond 2^53 is in it, which readers round: send a string")
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def _plain(value: Any) -> Any:
    """What orjson doesn't know, as something that it knows."""
    if not isinstance(value, BaseModel):
        raise Unstorable(f"a {type(value).__name__} is in it")
    dumped = value.model_dump(mode="json")
    _refuse_nan(dumped)
    return dumped


def _refuse_nan(value: Any) -> None:
    """orjson writes null for NaN and the infinities: pydantic's fast writer gives a hint, and
    the standard library's slow one the proof."""
    written = to_json(value, inf_nan_mode="constants")
    if b"NaN" not in written and b"Infinity" not in written:
        return
    try:
        json.dumps(value, allow_nan=False, default=_loosely)
    except ValueError:
        raise Unstorable("NaN or an infinity is in it, which JSON doesn't have") from None


def _loosely(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)  # a date or a model: holds no number, or was looked at before


def _is_deeper(encoded: bytes, depth_max: int) -> bool:
    level = _containers([orjson.loads(encoded)])
    for _ in range(depth_max):
        level = [
            inner
            for outer in level
            for inner in _containers(outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]
