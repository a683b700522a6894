"""The execution log read back: who ran which attempt, and when (`kinds.py` writes it)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

Attempt = tuple[str, int]  # a job's id and the number of one try


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `t`: seconds since 1970 by the host; `ev`: start or end."""

    t: float
    pid: int
    job: str
    attempt: int
    ev: str

    @property
    def key(self) -> Attempt:
        return self.job, self.attempt


class ExecutionLog:
    """Reads on from where it was; `events` grows with every `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._offset = 0

    def read(self) -> list[Event]:
        """All events so far, in the order in which they were written."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                whole = file.read()
            whole = whole[: whole.rfind(b"\n") + 1]
            self._offset += len(whole)
            self.events += _events(whole)
        return self.events

    def starts(self) -> list[Event]:
        return [event for event in self.read() if event.ev == "start"]

    def pids(self) -> set[int]:
        """The processes that have started something."""
        return {event.pid for event in self.starts()}

    def under_way(self, pid: int) -> set[Attempt]:
        """What a process has started and not ended."""
        own = [event for event in self.read() if event.pid == pid]
        ended = {event.key for event in own if event.ev == "end"}
        return {event.key for event in own if event.ev == "start"} - ended


def _events(lines: bytes) -> Iterator[Event]:
    for line in lines.splitlines():
        # A kill may tear a line; the next one then follows without a line's end between them.
        raw = orjson.loads(line[line.rfind(b'{"t"') :])
        yield Event(raw["t"], raw["pid"], raw["job"], raw["attempt"], raw["ev"])
