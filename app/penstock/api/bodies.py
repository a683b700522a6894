"""What was sent: from bytes on the wire to a JSON object that is safe to keep.

In: a request. Out: the object, and whether its payloads need a closer look. Always holds: nothing
is read beyond the limit or after the time is up; what Postgres can't keep (NUL) or what JSON
readers disagree on (integers beyond 2^53, deep nesting) doesn't get past `payload_text`.

Most bodies are harmless, so the raw bytes are searched first, which costs nanoseconds, and a
payload is walked only when that found something.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import HttpVersion11, web

from penstock.api.problems import ERRORS_MAX, Fault, Problem, invalid, step

DEPTH_MAX = 32
INT_MAX = 2**53
_CHARSETS = frozenset({"utf-8", "utf8"})

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 16  # the shortest run of digits that may be more than 2^53
_HUGE = b"0" * 19  # the shortest that orjson may have made a float of
_BEYOND = b"0" * 300  # orjson calls an integer of so many digits infinite
_NUL = b"\\u0000"
_TOO_DEEP = Fault("", f"is nested more than {DEPTH_MAX} levels deep")
_TOO_LONG = Fault("", "has an integer beyond ±2^53")


@dataclass(frozen=True, slots=True)
class Body:
    """A decoded body. `suspect`: a payload in it may hold a NUL or a large integer."""

    value: dict[str, Any]
    suspect: bool


NOTHING = Body({}, suspect=False)


async def read_object(request: web.BaseRequest, limit: int, timeout_s: float) -> Body:
    """The JSON object in the request's body, of at most `limit` bytes."""
    _check_type(request)
    return parse(await _read(request, limit, timeout_s))


async def expect_nothing(request: web.BaseRequest, limit: int, timeout_s: float) -> Body:
    """Lets only an empty body or `{}` pass, for calls that take no fields."""
    raw = await _read(request, limit, timeout_s)
    if raw:
        _check_type(request)
        value = parse(raw).value
        if value:
            raise invalid(*(Fault(step(name), "is not a known field") for name in value))
    return NOTHING


def size_of(request: web.BaseRequest, limit: int) -> int:
    """The bytes that the body may come to, as far as they will be read."""
    declared = request.content_length
    if declared is None:
        return 0 if request.content.is_eof() else limit
    return min(declared, limit)


def parse(raw: bytes) -> Body:
    """Decodes a body. Raises 400 for what isn't JSON, 422 for what isn't an object."""
    digits = raw.translate(_DIGITS)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if _BEYOND in digits and "infinity" in error.msg:
            raise invalid(_TOO_LONG) from None
        raise Problem("not-json", f"the body isn't JSON: {error}") from None
    if _HUGE in digits:
        value = _exactly(raw)
    if not isinstance(value, dict):
        raise invalid(Fault("", "must be a JSON object"))
    return Body(value, suspect=_LONG in digits or _NUL in raw)


def payload_text(payload: Any, *, suspect: bool) -> str | list[Fault]:
    """The payload as JSON text, or what is wrong in it (pointers into the payload)."""
    if suspect:
        faults = list(_flaws(payload))
        if faults:
            return faults
    try:
        text = orjson.dumps(payload)
    except TypeError:  # orjson gives up at 254 levels
        return [_TOO_DEEP]
    if text.count(b"{") + text.count(b"[") > DEPTH_MAX and _is_deep(payload):
        return [_TOO_DEEP]
    return text.decode()


def _check_type(request: web.BaseRequest) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "send the body without Content-Encoding")
    # The plain spelling, which nearly all clients use, needs no parsing.
    if request.headers.get("Content-Type") == "application/json":
        return
    charset = request.charset or "utf-8"
    if request.content_type != "application/json" or charset.lower() not in _CHARSETS:
        raise Problem("unsupported-media-type", "send the body as application/json in UTF-8")


async def _read(request: web.BaseRequest, limit: int, timeout_s: float) -> bytes:
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    try:
        if request.content.is_eof():  # it came with the headers
            raw = request.content.read_nowait()
        else:
            async with asyncio.timeout(timeout_s):
                await _invite(request)
                raw = await _gather(request, limit)
    except TimeoutError:
        raise Problem("request-timeout", f"the body took more than {timeout_s:g} s") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem("bad-request", "the body is not framed as HTTP/1.1 asks") from None
    if len(raw) > limit:
        raise _too_large(limit)
    return raw


async def _gather(request: web.BaseRequest, limit: int) -> bytes:
    chunks, size = [], 0
    while chunk := await request.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
    return b"".join(chunks)


async def _invite(request: web.BaseRequest) -> None:
    """Answers `Expect: 100-continue` (RFC 9110, 10.1.1): only now is the body wanted."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.lower() != "100-continue":
        raise Problem("expectation-failed", "the only expectation known is 100-continue")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer proper has not begun


def _too_large(limit: int) -> Problem:
    return Problem("payload-too-large", f"the body may have {limit} bytes at most")


def _exactly(raw: bytes) -> Any:
    """Decodes with integers of any length, where orjson would have made floats of them."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise invalid(_TOO_DEEP) from None
    except ValueError:  # more digits than Python converts
        raise invalid(_TOO_LONG) from None


def _is_deep(payload: Any) -> bool:
    level = [payload]
    for _ in range(DEPTH_MAX):
        inside = [value.values() if isinstance(value, dict) else value for value in level]
        level = [child for all_ in inside for child in all_ if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _flaws(payload: Any) -> Iterator[Fault]:
    """Walks the payload for NULs and large integers; names at most 100."""
    todo: list[tuple[str, Any]] = [("", payload)]
    found = 0
    while todo and found < ERRORS_MAX:
        at, value = todo.pop()
        match value:
            case dict():
                todo.extend((at + step(name), item) for name, item in value.items())
                flaw = "has a name with a NUL in it" if any("\0" in n for n in value) else None
            case list():
                todo.extend((f"{at}/{i}", item) for i, item in enumerate(value))
                flaw = None
            case str():
                flaw = "has a NUL in it" if "\0" in value else None
            case int():
                flaw = "is an integer beyond ±2^53" if abs(value) > INT_MAX else None
            case _:
                flaw = None
        if flaw is not None:
            found += 1
            yield Fault(at, flaw)
