"""What a replica and a child process of it say to each other: frames of JSON over a socket.

A frame is its length (4 bytes, big-endian) and so many bytes of JSON: nothing in it is ever run. To
the child: a `Setup`, an `Order`, perhaps a cancel. Back: `ready` (or `unfit`), lines and progress
as they are told, and one ending. Always holds: a frame that is larger than it may be, or isn't what
it should be, raises ValueError: who has sent it is not to be trusted any more.
"""

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, get_args

import orjson

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import OnLost, Started, State
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.domain.workflow import NO_KIN, Kin, Parent
from penstock.handlers.context import (
    LINE_MAX_BYTES,
    PROGRESS_MESSAGE_MAX,
    Level,
    LogLine,
    Progress,
)
from penstock.handlers.errors import AFTER_MAX_S
from penstock.handlers.gathered import Bounds
from penstock.handlers.text import cut, one_line, shortened
from penstock.telemetry.tracing import Export

HEAD_BYTES = 4
SLACK_BYTES = 1024 * 1024  # for what stands around a payload or a result

_TOLD = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)
_LEVELS = get_args(Level)
_LATEST_S = 32_503_680_000  # the year 3000

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a child needs before it knows its job. Nothing of it is secret but what the
    collector of spans asks for. `path`: where to import from; `memory_max_bytes`: of address space,
    0 for no limit."""

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
    bounds: Bounds = field(default_factory=Bounds)
    spans: Export | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """The job, how long it may take from now on, and its kin."""

    job: Started
    within_s: float
    kin: Kin = NO_KIN


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
    graph = None if job["graph_id"] is None else job["graph_id"].hex()
    return {
        "job": {**job, "id": job["id"].hex(), "worker": job["worker"].hex(), "graph_id": graph},
        "s": order.within_s,
        "kin": _kin_message(order.kin),
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
        "graph_id": None if raw["graph_id"] is None else JobId(bytes.fromhex(raw["graph_id"])),
    }
    return Order(Started(**job), message["s"], _kin_of(message["kin"]))


def _kin_message(kin: Kin) -> Message:
    return {
        "name": kin.name,
        "withheld": kin.withheld,
        "parents": [
            [one.id.hex(), one.name, one.state, one.result] for one in kin.parents.values()
        ],
    }


def _kin_of(raw: Message) -> Kin:
    parents = {
        name: Parent(JobId(bytes.fromhex(id_)), name, State(state), result)
        for id_, name, state, result in raw["parents"]
    }
    return Kin(raw["name"], parents, raw["withheld"])


def setup_of(message: Message) -> Setup:
    lists = {name: tuple(message[name]) for name in ("modules", "path", "egress_allow")}
    bounds, spans = Bounds(**message["bounds"]), message["spans"]
    export = None if spans is None else Export(**spans)
    return Setup(**{**message, **lists, "bounds": bounds, "spans": export})


def ending_message(ending: Ending, submitted: Sequence[bytes] = ()) -> Message:
    """`submitted`: the JSON texts of the jobs that it leaves to be stored."""
    return {"ending": asdict(ending), "jobs": [job.decode() for job in submitted]}


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


def submitted_of(message: Message) -> list[str]:
    """The jobs that came with an ending. How many there may be is for others to say."""
    jobs = message["jobs"]
    _check(jobs, list)
    for job in jobs:
        _check(job, str)
        _check(orjson.loads(job), dict)
    return list(jobs)


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
