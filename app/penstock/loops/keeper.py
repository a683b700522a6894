"""The keeper: renews our life in Postgres from a thread of its own.

A handler that blocks the event loop must not cost the replica its life, so the beat has its own
thread, event loop and connection. It gives up only when the main loop hasn't turned for
`stall_max_s`: then it shows where the main thread hangs and ends the process. If we die here, the
beats end and the reaper of another replica takes over. `begun` is set when the first beat has been
answered: no replica should serve before.
"""

import asyncio
import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from penstock import chaos, clock
from penstock.clock import ServerClock
from penstock.domain.errors import StoreUnavailable
from penstock.loops.identity import Me
from penstock.loops.stalls import LOOK_S, TURN_S, Stalls
from penstock.loops.supervise import pause_or_wake
from penstock.settings import Worker as WorkerSettings
from penstock.store.workers import Beat, KeeperLine
from penstock.telemetry.logs import flush, get_logger

EXIT_STALLED = 70

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who hears what: `on_beat(worker, beat)` is called on the main loop after every beat that was
    answered, `stalls` is turned by the main loop and looked at by the keeper's thread."""

    on_beat: Callable[[bytes, Beat], None]
    stalls: Stalls


class Keeper:
    """The thread, and its ties to the main loop."""

    def __init__(
        self,
        line: KeeperLine,
        me: Me,
        pg_clock: ServerClock,
        settings: WorkerSettings,
        watch: Watch,
    ) -> None:
        self._line = line
        self._me = me
        self._pg_clock = pg_clock
        self._beat_s = settings.beat_s
        self._stall_max_s = settings.stall_max_s
        self._on_beat = watch.on_beat
        self._stalls = watch.stalls
        self.begun = asyncio.Event()
        self._main = asyncio.get_running_loop()
        self._turns = 0
        self._turns_seen = -1
        self._stalled_s = 0.0
        self._stop = asyncio.Event()  # lives on the thread's loop
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._own is not None:
            with suppress(RuntimeError):  # its loop has ended by itself
                self._own.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=2)

    async def tick(self) -> float:
        """A step on the main loop: shows the thread that it turns."""
        self._turns += 1
        self._stalls.turn()
        return min(TURN_S, self._beat_s / 2)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException:
            # Without beats we would be condemned and never claim again, and nobody would know.
            _last_words("the keeper failed")
            traceback.print_exc()
            flush()
            os._exit(EXIT_STALLED)

    async def _live(self) -> None:
        self._own = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beats())
            group.create_task(self._looks())

    async def _looks(self) -> None:
        while not self._stop.is_set():
            self._stalls.look()
            await pause_or_wake(self._stop, LOOK_S)

    async def _beats(self) -> None:
        while not self._stop.is_set():
            self._end_if_stalled()
            if self._me.registered:
                await self._beat()
            await pause_or_wake(self._stop, self._beat_s)
        self._line.close()

    async def _beat(self) -> None:
        worker, sent = self._me.worker, clock.monotonic()
        try:
            await chaos.point("between_beats")
            beat = await self._line.beat(worker, self._me.ttl_s)
        except StoreUnavailable as error:
            log.warning("beat_failed", why=str(error))
            return
        if beat.alive:
            self._me.beat_at = sent
            beat.tell(self._pg_clock)
        with suppress(RuntimeError):  # the main loop has ended
            self._main.call_soon_threadsafe(self._tell, worker, beat)

    def _tell(self, worker: bytes, beat: Beat) -> None:
        if beat.alive:
            self.begun.set()
        self._on_beat(worker, beat)

    def _end_if_stalled(self) -> None:
        """Adds up our own beats, not the clock: a process that was stopped as a whole (SIGSTOP, a
        frozen machine) hasn't stalled."""
        stands = self._turns == self._turns_seen
        self._stalled_s = self._stalled_s + self._beat_s if stands else 0.0
        self._turns_seen = self._turns
        if self._stalled_s > self._stall_max_s:
            _last_words(f"the event loop stood still for {self._stalled_s:.0f} s")
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
            flush()
            os._exit(EXIT_STALLED)


def _last_words(text: str) -> None:
    sys.stderr.write(f"penstock: {text}\n")
    sys.stderr.flush()
