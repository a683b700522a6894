"""What a replica and a child process of it say to each other: frames of JSON over a socket.

A frame is its length (4 bytes, big-endian) and so many bytes of JSON: nothing in it is ever run. To
the child: a `Setup`, an `Order`, perhaps a cancel. Back: `ready` (or `unfit`), lines and progress
as they are told, and one ending. Always holds: a frame that is larger than it may be, or isn't what
it should be, raises ValueError: who has sent it is not to be trusted any more.
"""

import asyncio
import os
import threading
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, get_args

import orjson

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import OnLost, Started
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.handlers.context import (
    LINE_MAX_BYTES,
    PROGRESS_MESSAGE_MAX,
    Level,
    LogLine,
    Progress,
)
from penstock.handlers.errors import AFTER_MAX_S
from penstock.handlers.text import cut, one_line, shortened

HEAD_BYTES = 4
SLACK_BYTES = 1024 * 1024  # for what stands around a payload or a result

_TOLD = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)
_LEVELS = get_args(Level)
_LATEST_S = 32_503_680_000  # the year 3000

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a child needs before it knows its job. None of it is secret. `path`: where to import
    from; `memory_max_bytes`: of address space, 0 for no limit."""

    modules: tuple[str, ...]
    path: tuple[str, ...] = ()
    egress_allow: tuple[str, ...] = ()
    connect_timeout_s: float = 5.0
    response_max_bytes: int = 256 * 1024
    result_max_bytes: int = 1024 * 1024
    log_lines_max: int = 1000
    log_bytes_max: int = 64 * 1024
    log_level: str = "info"
    log_format: str = "auto"
    memory_max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """The job, and how long it may take from now on."""

    job: Started
    within_s: float


def packed(message: Message) -> bytes:
    """A frame."""
    body = orjson.dumps(message)
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def unpacked(body: bytes) -> Message:
    message = orjson.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a frame must hold an object")
    return message


async def received(reader: asyncio.StreamReader, bytes_max: int) -> Message | None:
    """The next message; None when the other side has gone, be it amid a frame."""
    try:
        size = int.from_bytes(await reader.readexactly(HEAD_BYTES), "big")
        if size > bytes_max:
            raise ValueError(f"a frame of {size} bytes is more than {bytes_max}")
        return unpacked(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Wire:
    """The child's end of its socket: blocking, and safe from any thread."""

    def __init__(self, file: int) -> None:
        os.set_blocking(file, True)
        self._file = file
        self._lock = threading.Lock()

    def receive(self) -> Message | None:
        """The next message; None when the parent has gone."""
        head = self._read(HEAD_BYTES)
        body = self._read(int.from_bytes(head, "big")) if head else None
        return unpacked(body) if body else None

    def send(self, message: Message) -> None:
        """Returns when the kernel has all of it: a crash right after doesn't take it along."""
        left = memoryview(packed(message))
        with self._lock:
            while left:
                left = left[os.write(self._file, left) :]

    def _read(self, count: int) -> bytes | None:
        parts: list[bytes] = []
        while count:
            part = os.read(self._file, min(count, 1 << 20))
            if not part:
                return None
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def order_message(order: Order) -> Message:
    job = asdict(order.job)
    return {
        "job": {**job, "id": job["id"].hex(), "worker": job["worker"].hex()},
        "s": order.within_s,
    }


def order_of(message: Message) -> Order:
    raw = message["job"]
    backoff = {**raw["backoff"], "kind": Curve(raw["backoff"]["kind"])}
    job = {
        **raw,
        "id": JobId(bytes.fromhex(raw["id"])),
        "worker": bytes.fromhex(raw["worker"]),
        "backoff": Backoff(**{**backoff, "jitter": Jitter(backoff["jitter"])}),
        "on_lost": OnLost(raw["on_lost"]),
        "ready_at": datetime.fromisoformat(raw["ready_at"]),
        "started_at": datetime.fromisoformat(raw["started_at"]),
        "tags": tuple(raw["tags"]),
    }
    return Order(Started(**job), message["s"])


def setup_of(message: Message) -> Setup:
    lists = {name: tuple(message[name]) for name in ("modules", "path", "egress_allow")}
    return Setup(**{**message, **lists})


def ending_message(ending: Ending) -> Message:
    return {"ending": asdict(ending)}


def ending_of(message: Message) -> Ending:
    """Raises ValueError or another of its kind when it is none that a child may tell."""
    raw = message["ending"]
    failure = None if raw["failure"] is None else Failure(**raw["failure"])
    ending = Ending(**{**raw, "outcome": Outcome(raw["outcome"]), "failure": failure})
    if ending.outcome not in _TOLD:
        raise ValueError(f"a child does not tell that it was {ending.outcome}")
    _check(ending.result, str | None)
    _check(ending.retryable, bool)
    if ending.retry_after_s is not None:
        _within(ending.retry_after_s, AFTER_MAX_S)
    if failure is not None:
        _check(failure.type, str)
        _check(failure.message, str)
    return ending


def line_of(message: Message) -> LogLine:
    """The same of a line of its log."""
    at_s, level, text, seq = message["line"]
    _check(text, str)
    _check(seq, int)
    if level not in _LEVELS:
        raise ValueError("a level that there isn't")
    line = cut(one_line(text), LINE_MAX_BYTES)
    return LogLine(_within(at_s, _LATEST_S), level, line, seq)


def progress_of(message: Message) -> Progress:
    """The same of a report of progress."""
    percent, text, at_s = message["progress"]
    _check(text, str | None)
    shown = None if text is None else shortened(text, PROGRESS_MESSAGE_MAX)
    return Progress(_within(percent, 100), shown, _within(at_s, _LATEST_S))


def _check(value: object, sort: Any) -> None:
    if not isinstance(value, sort):
        raise TypeError(f"a {type(value).__name__} stands where none may")


def _within(value: Any, most: float) -> float:
    _check(value, float | int)
    if not 0 <= value <= most:
        raise ValueError(f"{value} is beyond 0 to {most}")
    return float(value)
