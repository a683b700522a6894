"""What a handler gets besides its payload: its job, a log, progress, the time left, services.

One is made for every attempt, so it costs next to nothing until it is used. Always holds: what a
handler tells is bounded and safe to store and show, from whatever thread it comes. If we die, what
the worker has not taken yet is lost with the attempt.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

from penstock.clock import monotonic, wall_s
from penstock.domain.ids import nth_of, text
from penstock.domain.job import Started
from penstock.domain.trace import headers_of, id_of, parent_of, state_of
from penstock.domain.workflow import LOOSE, NO_KIN, Kin
from penstock.egress.client import Egress
from penstock.handlers.errors import Cancelled
from penstock.handlers.gathered import Bounds, Gathered
from penstock.handlers.parents import ParentJob, seen
from penstock.handlers.text import cut, one_line, shortened

Level = Literal["debug", "info", "warning", "error"]

LINE_MAX_BYTES = 8 * 1024
LIMIT_REACHED = "log limit reached"
PROGRESS_MESSAGE_MAX = 256  # characters
NAME_MAX = 255  # characters of a job's name in its workflow

_FIRST_USE = threading.Lock()  # several threads of one handler may be the first to use a thing


@dataclass(frozen=True, slots=True)
class Services:
    """What all handlers of a process share. `http` is for `async def` handlers only."""

    http: Egress
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much one attempt may log; what comes after is dropped."""

    lines_max: int = 1000
    bytes_max: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `at_s` is the host's time since 1970, `seq` counts from 1 in an attempt."""

    at_s: float
    level: Level
    message: str
    seq: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt has come. `at_s` is the host's time since 1970, and never goes back."""

    percent: float
    message: str | None
    at_s: float


class JobLog:
    """Lines kept with the job, until `take` hands them to the worker."""

    __slots__ = ("_bytes", "_full", "_limits", "_lines", "_lock", "_seq")

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self._lines: list[LogLine] = []
        self._lock = threading.Lock()
        self._seq = 0
        self._bytes = 0
        self._full = False

    def debug(self, message: str, /, **fields: object) -> None:
        """Keeps a line; `fields` are put behind the message as ` key=value`."""
        self._keep("debug", message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._keep("info", message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._keep("warning", message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._keep("error", message, fields)

    def hear(self, line: LogLine) -> None:
        """A line that was kept elsewhere: by a child process, which counts as we do."""
        with self._lock:
            if self._seq < line.seq <= self._limits.lines_max + 1:
                self._seq = line.seq
                self._lines.append(line)

    def take(self) -> list[LogLine]:
        """The lines since the last call."""
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def _keep(self, level: Level, message: str, fields: dict[str, object]) -> None:
        if self._full:
            return
        # Cut first: a message may be anything, and only what is kept is worth cleaning.
        whole = "".join((str(message), *(f" {key}={_shown(fields[key])}" for key in fields)))
        line = cut(one_line(whole[:LINE_MAX_BYTES]), LINE_MAX_BYTES)
        with self._lock:
            self._append(level, line, len(line.encode()))

    def _append(self, level: Level, line: str, size: int) -> None:
        if self._full:  # another thread was first
            return
        limits = self._limits
        if self._seq >= limits.lines_max or self._bytes + size > limits.bytes_max:
            self._full = True
            level, line = "warning", LIMIT_REACHED
        self._seq += 1
        self._bytes += size
        self._lines.append(LogLine(wall_s(), level, line, self._seq))


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # foreign code, and no log line is worth a job
        return f"<{type(value).__name__}>"


def _percent(value: Any) -> float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number:
        raise TypeError(f"percent must be a number, not a {type(value).__name__}")
    if not 0 <= value <= 100:  # NaN is neither
        raise ValueError(f"percent must be 0 to 100, not {value}")
    return float(value)


def _message(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"message must be a text, not a {type(value).__name__}")
    return shortened(value, PROGRESS_MESSAGE_MAX)


def named(job: Started) -> dict[str, object]:
    """How our own log names a job's attempt."""
    told: dict[str, object] = {"job_id": text(job.id), "attempt": job.attempt, "kind": job.kind}
    if job.graph_id is not None and job.graph_id != LOOSE:
        told["workflow_id"] = text(job.graph_id)
    if job.traceparent is not None:
        told["trace_id"] = id_of(job.traceparent)
    return told


_OVER = Gathered(Bounds())  # of all attempts that are over and have submitted nothing
_OVER.take()


class Context:
    """One attempt as its handler sees it."""

    __slots__ = (
        *("_cancel_reason", "_deadline", "_limits", "_log", "_progress", "_progress_taken"),
        *("_gathered", "_parents", "job", "kin", "services"),
    )

    def __init__(
        self, job: Started, deadline: float, services: Services, limits: LogLimits
    ) -> None:
        """`deadline` is a reading of the monotonic clock. `kin` is set by the worker before the
        handler runs, for jobs of graphs."""
        self.job = job
        self.services = services
        self.kin: Kin = NO_KIN
        self._parents: Mapping[str, ParentJob] | None = None
        self._gathered: Gathered | None = None
        self._deadline = deadline
        self._limits = limits
        self._log: JobLog | None = None
        self._cancel_reason: str | None = None
        self._progress: Progress | None = None
        self._progress_taken: Progress | None = None

    @property
    def job_id(self) -> str:
        return text(self.job.id)

    @property
    def kind(self) -> str:
        return self.job.kind

    @property
    def queue(self) -> str:
        return self.job.queue

    @property
    def attempt(self) -> int:
        """The number of this try; never reused, so with `job_id` it names it for ever."""
        return self.job.attempt

    @property
    def failures(self) -> int:
        """What is spent of `max_attempts` so far."""
        return self.job.failures

    @property
    def max_attempts(self) -> int:
        return self.job.max_attempts

    @property
    def tags(self) -> tuple[str, ...]:
        return self.job.tags

    @property
    def traceparent(self) -> str | None:
        return parent_of(self.job.traceparent)

    @property
    def tracestate(self) -> str | None:
        return state_of(self.job.traceparent)

    @property
    def trace_headers(self) -> dict[str, str]:
        """What to send along with a call, so that it is of the same trace."""
        return headers_of(self.job.traceparent)

    @property
    def created_by(self) -> str:
        return self.job.created_by

    @property
    def workflow_id(self) -> str | None:
        """The workflow that the job is part of, if it is part of one."""
        graph = self.job.graph_id
        return None if graph is None or graph == LOOSE else text(graph)

    @property
    def name(self) -> str | None:
        """The job's name in its workflow."""
        return self.kin.name

    @property
    def parents(self) -> Mapping[str, ParentJob]:
        """The jobs that this one depends on, by name; outside of workflows by id."""
        if self._parents is None:
            self._parents = seen(self.kin)
        return self._parents

    def submit(
        self,
        kind: str,
        payload: Any = None,
        *,
        name: str | None = None,
        depends_on: Iterable[str] = (),
        run_if: str | None = None,
        **fields: Any,
    ) -> str:
        """Submits a job, and answers its id. `fields` are those of POST /v1/jobs: queue, priority,
        delay_s, tags, and so on.

        It is stored with all others of this attempt once the handler has succeeded, and not at all
        if it doesn't. Whatever runs this job again submits the same jobs, by their order: the nth
        call gives the same id each time, and what is stored already is passed over.

        A job of a workflow adds to that workflow: `name` is then unique in it (by default this
        one's, `/`, the kind and the number of the call), and `depends_on` names jobs of it, older
        ones or those submitted here; elsewhere it holds ids of jobs. Safe from any thread.

        Raises ValueError for what is no JSON, PermanentError when there are too many of them.
        """
        asked: dict[str, Any] = {"kind": kind, **fields}
        if payload is not None:
            asked["payload"] = payload
        if name is not None:
            asked["name"] = name
        if isinstance(depends_on, str):
            raise TypeError("depends_on must be a list of names")
        if parents := list(depends_on):
            asked["depends_on"] = parents
        if run_if is not None:
            asked["run_if"] = run_if
        ordinal = self._gathering().add(asked, lambda number: self._name_of(kind, number))
        return text(nth_of(self.job.id, ordinal))

    def _name_of(self, kind: str, ordinal: int) -> str | None:
        if self.workflow_id is None:
            return None
        name = f"{self.kin.name}/{kind}-{ordinal}"
        # A job that was submitted by one that was, and so on: its id is as unique.
        return name if len(name) <= NAME_MAX else f"{self.job_id}/{kind}-{ordinal}"

    def _gathering(self) -> Gathered:
        if self._gathered is None:
            with _FIRST_USE:
                if self._gathered is None:
                    self._gathered = Gathered(self.services.bounds)
        return self._gathered

    def take_submitted(self) -> list[bytes]:
        """For the worker: the jobs that were submitted, as JSON texts. There can be no more."""
        if self._gathered is None:
            self._gathered = _OVER
        return self._gathered.take()

    def hear_submitted(self, jobs: Sequence[str]) -> None:
        """For the worker: those of another Context, in a child process. Raises as `submit`."""
        if jobs:
            self._gathering().hear(jobs)

    @property
    def log(self) -> JobLog:
        """Lines logged here are kept with the job."""
        if self._log is None:
            with _FIRST_USE:
                if self._log is None:
                    self._log = JobLog(self._limits)
        return self._log

    def log_fields(self) -> dict[str, object]:
        """What our own log says with each line that is written while this attempt runs."""
        return named(self.job)

    def take_logs(self) -> list[LogLine]:
        """For the worker: the lines since the last call."""
        return [] if self._log is None else self._log.take()

    def progress(self, percent: float, message: str | None = None) -> None:
        """Tells how far the attempt has come, 0 to 100, and what it is at. The job shows it.

        As often as you like: only the latest is kept, and stored about once a second. It may go
        back. A message is cut at 256 characters. Raises TypeError, ValueError.
        """
        before = self._progress
        at_s = wall_s() if before is None else max(wall_s(), before.at_s)
        self._progress = Progress(_percent(percent), _message(message), at_s)

    def take_progress(self) -> Progress | None:
        """For the worker: what was told last, if it was told since the last call."""
        latest = self._progress
        if latest is self._progress_taken:
            return None
        self._progress_taken = latest
        return latest

    def hear(self, told: LogLine | Progress) -> None:
        """For the worker: what the handler has told another Context, in a child process."""
        if isinstance(told, Progress):
            self._progress = told
        else:
            self.log.hear(told)

    def remaining_s(self) -> float:
        """Seconds until the attempt's deadline; negative when it is over."""
        return self._deadline - monotonic()

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should stop. For plain functions: an `async def` is interrupted."""
        return self._cancel_reason is not None

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled if the attempt should stop."""
        if self._cancel_reason is not None:
            raise Cancelled(self._cancel_reason)

    def cancel(self, reason: str) -> None:
        """For the worker: asks the handler to stop. The first reason stands."""
        if self._cancel_reason is None:
            self._cancel_reason = reason
