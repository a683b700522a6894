"""Stalls of the event loop: a handler that blocks it, or that holds the interpreter as a whole.

In: `turn` on the main loop, `look` on the keeper's thread. Out: one log line a stall, with where
the main thread stood if anybody could look, and its length once it is over. A stall costs nobody
his life: the keeper's beats go on, unless the interpreter itself is held for longer than the time
to live (then the replica is condemned, and fenced).
"""

import sys
import threading
import traceback

from penstock import clock
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

TURN_S = 0.25
LOOK_S = 0.25
STALL_S = 1.0
_FRAMES = 8  # the innermost: a line of a log takes 1 KiB

log = get_logger(__name__)


class Stalls:
    """Made on the main thread. A stall is told once, until the main loop turns again."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._main = threading.main_thread().ident
        self._turned_at = clock.monotonic()
        self._turns = 0
        self._turns_seen = -1
        self._still_s = 0.0
        self._was_told = False

    def turn(self) -> None:
        """The main loop turns."""
        now = clock.monotonic()
        stood_s, self._turned_at = now - self._turned_at, now
        self._turns += 1
        was_told, self._was_told = self._was_told, False
        if stood_s <= STALL_S + TURN_S:
            return
        self._metrics.loop_stall.observe(stood_s)
        if not was_told:
            why = "nobody could look: the interpreter was held, or the process was stopped"
            log.warning("loop_stalled", seconds=round(stood_s, 1), stack=why)

    def look(self) -> None:
        """Whether it does. Adds up our own looks, not the clock: while the process is stopped as a
        whole nobody stalls."""
        stands = self._turns == self._turns_seen
        self._turns_seen = self._turns
        self._still_s = self._still_s + LOOK_S if stands else 0.0
        if self._still_s > STALL_S and not self._was_told:
            self._was_told = True
            log.warning("loop_stalled", seconds=self._still_s, stack=_stack(self._main))


def _stack(thread: int | None) -> str:
    """Where a thread stands: its innermost calls, the innermost first."""
    frame = sys._current_frames().get(thread or 0)
    calls = traceback.extract_stack(frame)[-_FRAMES:] if frame is not None else []
    return " < ".join(f"{one.name} ({one.filename}:{one.lineno})" for one in reversed(calls))
