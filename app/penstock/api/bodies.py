"""What was sent: from bytes on the wire to a JSON object that is safe to keep.

In: a request. Out: the object, and whether its payloads need a closer look. Always holds: nothing
is read beyond the limit, beyond the room that there is or after the time is up; what Postgres
can't keep (NUL) or what JSON readers disagree on (integers beyond 2^53, deep nesting) doesn't get
past `payload_text`; a large body holds nobody up (decision 0008).

Most bodies are harmless, so the raw bytes are searched first, which costs nanoseconds, and a
payload is walked only when that found something.
"""

import asyncio
import gc
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import orjson
from aiohttp import HttpVersion11, web

from penstock.api.pace import Pace
from penstock.api.problems import ERRORS_MAX, Fault, Problem, invalid
from penstock.api.room import Share
from penstock.api.splitting import Limits, Splitter, crowded, is_crowded
from penstock.domain.pointer import step

DEPTH_MAX = 32
INT_MAX = 2**53
PACED_BYTES = 8 * 1024  # what is worked on one at a time: some 0.3 ms at most
LARGE_BYTES = 64 * 1024  # a job that may take more than a few ms, and is looked at in a thread
_TINY_BYTES = 1024  # what may come in crowds
_SPLIT_BYTES = 128 * 1024  # a batch that isn't decoded in one go; below, splitting costs more
_CHARSETS = frozenset({"utf-8", "utf8"})

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 16  # the shortest run of digits that may be more than 2^53
_HUGE = b"0" * 19  # the shortest that orjson may have made a float of
_GC_BYTES = 16 * 1024  # what makes too little garbage to think of it
_BEYOND = b"0" * 300  # orjson calls an integer of so many digits infinite
_NUL = b"\\u0000"
_KIND = b'"kind"'  # which every job has
_TOO_DEEP = Fault("", f"is nested more than {DEPTH_MAX} levels deep")
_TOO_LONG = Fault("", "has an integer beyond ±2^53")

_CONTAINERS = frozenset({dict, list})

_Place = tuple[Any, str | int] | None  # the place of what holds it, and the step from there


@dataclass(frozen=True, slots=True)
class Terms:
    """What bodies of one call are held to: bytes, seconds, objects and lists. With `items` a large
    body is split into the items of its lists."""

    max_bytes: int
    timeout_s: float
    containers_max: int
    pace: Pace
    items: Limits | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A decoded body. `suspect`: a payload in it may hold a NUL or a large integer.

    Lists in a body that was split have `memoryview`s as items, see `splitting`: `decode` them.
    `raw`: the bytes, kept of a job over `LARGE_BYTES` only.
    """

    value: dict[str, Any]
    suspect: bool
    size: int = 0
    raw: bytes | None = None

    def drop(self) -> None:
        """Lets go of what was decoded, once it has become jobs: while they are stored it would be
        looked through by the garbage collector, with that of all others who wait."""
        for value in self.value.values():
            if isinstance(value, (dict, list)):
                value.clear()
        self.value.clear()


NOTHING = Body({}, suspect=False)


# Told of a body that has come, before any of it is decoded; may refuse it.
Enter = Callable[[bytes], None]


async def read_object(request: web.BaseRequest, terms: Terms, share: Share, enter: Enter) -> Body:
    """The JSON object in the request's body."""
    _check_type(request)
    raw = await _read(request, terms, share)
    enter(raw)
    return await _parsed(raw, terms)


async def read_optional(request: web.BaseRequest, terms: Terms, share: Share, enter: Enter) -> Body:
    """The JSON object in the request's body; an empty body stands for an empty one."""
    raw = await _read(request, terms, share)
    enter(raw)
    if not raw:
        return NOTHING
    _check_type(request)
    return await _parsed(raw, terms)


async def expect_nothing(
    request: web.BaseRequest, terms: Terms, share: Share, enter: Enter
) -> Body:
    """Lets only an empty body or `{}` pass, for calls that take no fields."""
    raw = await _read(request, terms, share)
    enter(raw)
    if raw:
        _check_type(request)
        value = parse(raw).value
        if value:
            raise invalid(*unknown_names(value))
    return NOTHING


async def _parsed(raw: bytes, terms: Terms) -> Body:
    if len(raw) <= PACED_BYTES:
        if len(raw) > _TINY_BYTES:
            await terms.pace.breathe()
        return parse(raw)
    async with terms.pace as pace:
        if len(raw) <= (LARGE_BYTES if terms.items is None else _SPLIT_BYTES):
            return parse(raw)
        if terms.items is not None:
            members = await Splitter(raw, terms.items, pace).members(_decoded)
            return Body(members, suspect=False, size=len(raw))
        if await asyncio.to_thread(is_crowded, raw, terms.containers_max):
            raise crowded("", terms.containers_max)
        return replace(await asyncio.to_thread(parse, raw), raw=raw)


def jobs_about(raw: bytes) -> int:
    """How many jobs a batch has, by a look at its beginning: one at least."""
    seen = raw[:LARGE_BYTES]
    return max(seen.count(_KIND) * len(raw) // max(len(seen), 1), 1)


def unknown_names(value: dict[str, Any], known: frozenset[str] = frozenset()) -> list[Fault]:
    """A fault for each name that isn't known, as many as make an answer full."""
    unknown = (name for name in value if name not in known)
    return [Fault(step(n), "is not a known field") for n in islice(unknown, ERRORS_MAX + 1)]


def parse(raw: bytes) -> Body:
    """Decodes a body. Raises 400 for what isn't JSON, 422 for what isn't an object."""
    value, suspect = decode(raw)
    if not isinstance(value, dict):
        raise invalid(Fault("", "must be a JSON object"))
    return Body(value, suspect, len(raw))


def decode(raw: bytes) -> tuple[Any, bool]:
    """Decodes a value; and whether it may hold a NUL or a large integer. Raises 400.

    Without the garbage collector: JSON has no cycles, and what is made of it would be looked
    through again and again while it grows, which takes three times as long as to make it.
    """
    if len(raw) <= _GC_BYTES:
        return _decode(raw)
    gc.disable()
    try:
        return _decode(raw)
    finally:
        gc.enable()


def _decode(raw: bytes) -> tuple[Any, bool]:
    digits = raw.translate(_DIGITS)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if _BEYOND in digits and "infinity" in error.msg:
            raise invalid(_TOO_LONG) from None
        raise Problem("not-json", f"the body isn't JSON: {error}") from None
    if _HUGE in digits:
        value = _exactly(raw)
    return value, _LONG in digits or _NUL in raw


def payload_text(payload: Any, *, suspect: bool) -> str | list[Fault]:
    """The payload as JSON text, or what is wrong in it (pointers into the payload)."""
    if suspect:
        faults = _flaws(payload)
        if faults:
            return faults
    try:
        text = orjson.dumps(payload)
    except TypeError:  # orjson gives up at 254 levels
        return [_TOO_DEEP]
    if text.count(b"{") + text.count(b"[") > DEPTH_MAX and _is_deep(payload):
        return [_TOO_DEEP]
    return text.decode()


def _decoded(raw: bytes) -> Any:
    return decode(raw)[0]


def _check_type(request: web.BaseRequest) -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "send the body without Content-Encoding")
    # The plain spelling, which nearly all clients use, needs no parsing.
    if request.headers.get("Content-Type") == "application/json":
        return
    charset = request.charset or "utf-8"
    if request.content_type != "application/json" or charset.lower() not in _CHARSETS:
        raise Problem("unsupported-media-type", "send the body as application/json in UTF-8")


async def _read(request: web.BaseRequest, terms: Terms, share: Share) -> bytes:
    if (request.content_length or 0) > terms.max_bytes:
        raise _too_large(terms.max_bytes)
    try:
        if request.content.is_eof():  # it came with the headers
            raw = request.content.read_nowait()
            share.take(len(raw))
        else:
            async with asyncio.timeout(terms.timeout_s):
                await _invite(request)
                chunks = await _gather(request, terms.max_bytes, share)
            raw = await _joined(chunks, share.taken, terms.pace)
    except TimeoutError:
        why = f"the body took more than {terms.timeout_s:g} s"
        raise Problem("request-timeout", why) from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem("bad-request", "the body is not framed as HTTP/1.1 asks") from None
    if len(raw) > terms.max_bytes:
        raise _too_large(terms.max_bytes)
    return raw


async def _gather(request: web.BaseRequest, limit: int, share: Share) -> list[bytes]:
    chunks: list[bytes] = []
    while chunk := await _next(request):
        if share.taken + len(chunk) > limit:
            raise _too_large(limit)
        share.take(len(chunk))
        if chunks:  # what has come already is read without a pause: tiny chunks take long
            await asyncio.sleep(0)
        chunks.append(chunk)
    return chunks


async def _next(request: web.BaseRequest) -> bytes:
    if request.transport is None:  # which aiohttp would call a fault of ours
        raise ConnectionResetError("the caller has left")
    return await request.content.readany()


async def _joined(chunks: list[bytes], size: int, pace: Pace) -> bytes:
    if size <= LARGE_BYTES:
        return b"".join(chunks)
    async with pace:  # 16 MiB take 8 ms
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
    for _ in range(DEPTH_MAX - 1):  # what is empty leads no deeper
        level = [child for child in _inside(level) if child and type(child) in _CONTAINERS]
        if not level:
            return False
    return any(type(child) in _CONTAINERS for child in _inside(level))


def _inside(level: list[Any]) -> Iterable[Any]:
    return chain.from_iterable(
        [value.values() if type(value) is dict else value for value in level]
    )


def _flaws(payload: Any) -> list[Fault]:
    """Walks the payload for NULs and large integers; names at most 100.

    Pointers are made for flaws only, from the chain of steps that led to each.
    """
    found: list[Fault] = []
    todo: list[tuple[Any, _Place]] = [([payload], None)]
    while todo and len(found) < ERRORS_MAX:
        value, at = todo.pop()
        if type(value) is dict and "\0" in "".join(value):
            found.append(Fault(_pointer(at), "has a name with a NUL in it"))
        for name, item in value.items() if type(value) is dict else enumerate(value):
            kind = type(item)
            if kind is dict or kind is list:
                todo.append((item, (at, name)))
            elif kind is str and "\0" in item:
                found.append(Fault(_pointer((at, name)), "has a NUL in it"))
            elif kind is int and abs(item) > INT_MAX:
                found.append(Fault(_pointer((at, name)), "is an integer beyond ±2^53"))
            else:
                continue
            if len(found) >= ERRORS_MAX:
                break
    return found


def _pointer(place: _Place) -> str:
    """The first step is left out: it leads into the list that the payload was put in."""
    steps = []
    while place is not None:
        place, name = place
        steps.append(step(name))
    return "".join(reversed(steps[:-1]))
