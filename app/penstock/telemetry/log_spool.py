"""The way of log lines to their stream: a bounded queue, and a thread that writes.

In: lines, from any thread. Out: bytes on a file descriptor, in the order of the lines. Always
holds: nobody waits for the stream, be it a pipe that nobody reads or a full disk; what finds no
room is dropped and counted. If we die by `kill -9`, what waits is lost; who ends the process
by himself calls `drain` first.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from penstock import clock

_BYTES_MAX = 16 * 1024 * 1024
_AT_ONCE = 4096  # a pipe takes so much in one piece: others may write to it too
_TICK_S = 1.0


class Spool:
    """Looks like a file to who writes lines to it. `on_tick` is called about once a second, by the
    thread."""

    def __init__(self, file: int, lines_max: int, on_tick: Callable[[], None]) -> None:
        self._file = file
        self._lines_max = lines_max
        self._on_tick = on_tick
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_writing = False
        self._is_copy = False
        self.dropped = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()
        os.register_at_fork(after_in_child=self._be_copy)

    def write(self, text: str) -> None:
        """Takes a line in, with its end; never waits."""
        line = text.encode("utf-8", "backslashreplace")
        if self._is_copy:
            self._put([line])
            return
        with self._changed:
            if len(self._lines) >= self._lines_max or self._bytes + len(line) > _BYTES_MAX:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """As files have it; nobody waits: see `drain`."""

    def drain(self, within_s: float) -> bool:
        """Returns when all that was written so far is out, or the time is up."""
        until = clock.monotonic() + within_s
        with self._changed:
            while self._lines or self._is_writing:
                left = until - clock.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _be_copy(self) -> None:
        """A handler has forked: the thread isn't here, and what waits is the other's."""
        self._changed = threading.Condition()
        self._lines.clear()
        self._bytes, self._is_writing, self._is_copy = 0, False, True

    def _run(self) -> None:
        told_at = clock.monotonic()
        while True:
            with self._changed:
                if not self._lines:
                    self._changed.wait(_TICK_S)
                lines = list(self._lines)
                self._lines.clear()
                self._bytes, self._is_writing = 0, bool(lines)
            self._put(lines)
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
            if clock.monotonic() - told_at >= _TICK_S:
                told_at = clock.monotonic()
                self._on_tick()

    def _put(self, lines: Sequence[bytes]) -> None:
        for count, piece in _pieces(lines):
            try:
                _write(self._file, piece)
            except OSError:  # nobody will read it any more, or the disk is full
                with self._changed:
                    self.dropped += count


def _pieces(lines: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Whole lines, as many as a pipe takes in one piece."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > _AT_ONCE:
            yield len(piece), b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield len(piece), b"".join(piece)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(file, left) :]
        except BlockingIOError:  # somebody has made it non-blocking
            select.select([], [file], [], _TICK_S)
