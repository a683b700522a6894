"""What a handler returned, as the JSON that is stored.

In: any value. Out: an ending that succeeded with JSON text, or failed for good because the value
can't be kept: running the job again would give the same. Always holds: what is stored keeps the
rules of the door (api.md, "Conventions"), so whatever we store we can show. Every job passes
here, so the encoded bytes are searched first, and only what looks suspicious is walked.
"""

import dataclasses
import json
import re
from typing import Any

import orjson
from pydantic import BaseModel

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.handlers.text import cut, storable

DEPTH_MAX = 32
INT_MAX = 2**53

_NOTHING = Ending(Outcome.SUCCEEDED, result="null")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LONG = re.compile(rb"(?<![.\d])\d{16}")
_INT = re.compile(rb"(?<![.\d])\d{16,}(?![\d.eE])")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_ONE_BRACKET = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def ending_of(result: Any, bytes_max: int) -> Ending:
    """The ending of an attempt whose handler returned `result`; its JSON has `bytes_max` at most.

    Taken are JSON's own types, tuples, pydantic models, dataclasses, datetimes, enums and UUIDs.
    """
    if result is None:
        return _NOTHING
    try:
        encoded = orjson.dumps(result, default=_plain)
        fault = json_fault(encoded) or _nan_fault(result, encoded)
    except Exception as exc:  # foreign objects may raise anything while they are encoded
        return _failed("result-unserialisable", f"the handler's result is not JSON: {exc}")
    if fault:
        return _failed("result-unserialisable", f"the handler's result contains {fault}")
    if len(encoded) > bytes_max:
        size = f"{len(encoded)} bytes, more than {bytes_max}"
        return _failed("result-too-large", f"the handler's result has {size}")
    return Ending(Outcome.SUCCEEDED, result=encoded.decode())


def _failed(kind: str, message: str) -> Ending:
    failure = Failure(kind, cut(storable(message), 500))
    return Ending(Outcome.FAILED, failure=failure, retryable=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"it contains a {type(value).__name__}")


def json_fault(encoded: bytes, depth_max: int = DEPTH_MAX) -> str | None:
    """What valid JSON contains that we don't store, or None."""
    if encoded.count(b"[") + encoded.count(b"{") > depth_max and _is_deeper(encoded, depth_max):
        return f"more than {depth_max} levels of nesting"
    if b"\\u0000" in encoded and _NUL.search(encoded):
        return "a NUL character"
    if _LONG.search(encoded) and any(map(_is_big, _INT.findall(_STRING.sub(b"", encoded)))):
        return "an integer beyond 2^53, which JSON's readers round; make it a string"
    return None


def _is_deeper(encoded: bytes, depth_max: int) -> bool:
    """Peels the innermost brackets off, once a level; all in C, for results may be large."""
    brackets = _STRING.sub(b"", encoded).translate(_ONE_BRACKET, _NO_BRACKET)
    for _ in range(depth_max):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _is_big(digits: bytes) -> bool:
    return len(digits) > 16 or int(digits) > INT_MAX


def _nan_fault(result: Any, encoded: bytes) -> str | None:
    """orjson writes null for NaN and the infinities; the standard library says no to them."""
    if b"null" not in encoded:
        return None
    try:
        json.dumps(result, allow_nan=False, default=_loosely)
    except ValueError:
        return "NaN or an infinity, which JSON does not have"
    return None


def _loosely(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _plain(value) if isinstance(value, BaseModel) else str(value)
