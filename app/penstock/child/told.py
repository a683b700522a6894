"""A context that tells the parent at once what its handler tells: no crash takes it along."""

from collections.abc import Callable
from typing import Any

from penstock import clock
from penstock.domain.job import Started
from penstock.handlers.context import Context, JobLog, LogLimits, Progress, Services

_PROGRESS_EVERY_S = 0.2  # a handler may tell it as often as it likes

Send = Callable[[dict[str, Any]], None]


class ToldLog(JobLog):
    """Its lines are sent instead of being kept."""

    __slots__ = ("_send",)

    def __init__(self, limits: LogLimits, send: Send) -> None:
        super().__init__(limits)
        self._send = send

    def _append(self, level: Any, line: str, size: int) -> None:
        super()._append(level, line, size)
        lines, self._lines = self._lines, []
        for one in lines:
            self._send({"line": [one.at_s, one.level, one.message, one.seq]})


class ToldContext(Context):
    __slots__ = ("_send", "_sent_at")

    def __init__(
        self,
        job: Started,
        deadline: float,
        services: Services,
        limits: LogLimits,
        send: Send,
    ) -> None:
        super().__init__(job, deadline, services, limits)
        self._log = ToldLog(limits, send)
        self._send = send
        self._sent_at = 0.0

    def progress(self, percent: float, message: str | None = None) -> None:
        super().progress(percent, message)
        if clock.monotonic() >= self._sent_at + _PROGRESS_EVERY_S:
            self.tell_progress()

    def tell_progress(self) -> None:
        """Sends the latest report, if it wasn't sent yet."""
        told: Progress | None = self.take_progress()
        if told is not None:
            self._sent_at = clock.monotonic()
            self._send({"progress": [told.percent, told.message, told.at_s]})
