"""Child processes: a job that was lost twice with its replica runs alone, so that it shows itself.

In: runs of suspects. Out: an ending each. Always holds: a child runs one attempt, is gone when we
say how it ended, and dies with us. Only one that dies by itself has crashed; one that we killed was
stopped, and one that never got its job is handed back. Children that die with their nursery are
lost: it may be one of them that killed it, so each has a nursery of its own here from then on. If
we die, the row stands under our name, the kernel ends the child, and the reaper finds the row.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial

from penstock import clock
from penstock.domain.attempt import LOST, Ending, Failure, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.handlers.context import Context
from penstock.handlers.errors import PermanentError
from penstock.handlers.gathered import Bounds
from penstock.handlers.text import cut, one_line
from penstock.loops import traced
from penstock.loops.frames import (
    SLACK_BYTES,
    Message,
    Order,
    Setup,
    ending_of,
    line_of,
    order_message,
    packed,
    progress_of,
    received,
    submitted_of,
)
from penstock.loops.nursery import Born, CanNotStart, Nursery
from penstock.settings import Settings
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

COMMAND = (sys.executable, "-P", "-m", "penstock.child")
CAN_NOT_START_PAUSE_S = 5.0
_WAITING_PER_PLACE = 8
_PAUSE_MAX_S = 60.0
_MEAN_FIRST_S = 2.0  # what a child is thought to take until some have been seen
_LAST_LINES = 20
_FATAL = "Fatal Python error"
_LAST_LINE_BYTES = 300
_LAST_BYTES = 16 * 1024
_GOES_WITHIN_S = 1.0
_TOLD_WITHIN_S = 5.0  # a nursery tells of an end at once, if it can
_DOUBTED_MAX = 10_000

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Child:
    """One attempt that runs, or is to run, in a process of its own."""

    job: Started
    context: Context  # takes in what the handler tells
    born: Born | None = None
    begun: bool = False  # it has its job
    stopped: bool = False
    said: bytearray = field(default_factory=bytearray)  # the last that it has printed

    def stop(self, why: str) -> None:
        """Asks its handler to stop; where none has begun, there is nothing to wait for."""
        self.stopped = True
        if not self.begun:
            self.kill()
        elif self.born is not None:
            self.born.writer.write(packed({"cancel": why}))

    def hear(self, chunk: bytes) -> None:
        self.said += chunk
        del self.said[:-_LAST_BYTES]

    def kill(self) -> None:
        if self.born is not None:
            self.born.kill()


class Children:
    """`places` run at once; some more may wait, and others are handed back with a pause."""

    def __init__(
        self,
        setup: Setup,
        places: int,
        start_max_s: float,
        metrics: Metrics,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.setup = setup
        self._places = places
        self._start_max_s = start_max_s
        self._metrics = metrics
        self._new_nursery = partial(Nursery, command, start_max_s)
        self._nursery = self._new_nursery()
        self._doubted: dict[JobId, None] = {}  # a nursery died with these, oldest first
        self._mean_s = _MEAN_FIRST_S
        self._turn = 0.0  # when those that were handed back so far will have had their turn

    def overflow(self, waiting: int) -> Ending | None:
        """How a run ends for which there is no room, while so many wait: handed back until about
        its turn. What waits in Postgres isn't lost with us."""
        now = clock.monotonic()
        if waiting < self._places * _WAITING_PER_PLACE:
            return None
        self._turn = max(self._turn, now) + self._mean_s / self._places
        return handed_back(min(max(self._turn - now, 1.0), _PAUSE_MAX_S))

    async def run(self, child: Child, begin: Callable[[], None]) -> Ending:
        """The ending of an attempt. `begin` is called when the child has its job: the time until
        then isn't the job's."""
        began = clock.monotonic()
        is_alone = child.job.id in self._doubted
        nursery = self._new_nursery() if is_alone else self._nursery
        try:
            ending = await self._run(child, nursery, begin)
            return ending or (_NURSERY_GONE if is_alone else self._lost(child.job.id))
        except (CanNotStart, OSError) as error:  # OSError: no process, no pipe, no memory
            if not child.stopped:  # else whoever stopped it says how it ended
                self._metrics.child_start_failures.inc()
                log.warning("child_can_not_start", why=str(error))
            return handed_back(CAN_NOT_START_PAUSE_S)
        finally:
            child.kill()
            if is_alone:
                await nursery.close()
            self._mean_s += (clock.monotonic() - began - self._mean_s) / 8

    def _lost(self, id_: JobId) -> Ending:
        """It died with its nursery: charged to nobody, but next time it is alone. Others keep the
        common one: to start an interpreter each is dear, and most were lost with a replica."""
        self._doubted[id_] = None
        if len(self._doubted) > _DOUBTED_MAX:
            del self._doubted[next(iter(self._doubted))]
        return LOST

    async def close(self) -> None:
        """Ends all of them."""
        await self._nursery.close()

    async def _run(
        self, child: Child, nursery: Nursery, begin: Callable[[], None]
    ) -> Ending | None:
        """None when the nursery has died, and the child with it."""
        born = child.born = await nursery.bear()
        listening = asyncio.create_task(_listen(born, child))
        try:
            if child.stopped:
                raise CanNotStart("it was stopped before")
            await self._introduce(child, born)
            child.begun = True
            begin()
            ending = await self._converse(child, born)
        finally:
            died_by_itself = born.reader.at_eof()
            if not died_by_itself:
                child.kill()
            await _seen_off(born, listening)
        if ending is not None:
            return ending
        code = born.ended.result()
        return None if code is None else _crash(code, child.said)

    async def _introduce(self, child: Child, born: Born) -> None:
        """Gives it setup and job. Raises CanNotStart."""
        try:
            async with asyncio.timeout(self._start_max_s):
                born.writer.write(packed(asdict(self.setup)))
                message = await received(born.reader, SLACK_BYTES)
        except TimeoutError:
            raise CanNotStart(f"it wasn't ready within {self._start_max_s:g} s") from None
        except ValueError as error:
            raise CanNotStart(f"it can't be talked to: {error}") from None
        if message is None or "ready" not in message:
            said = " | ".join(last_lines(child.said)[-3:])
            why = message.get("unfit", "it has said what nobody asked for") if message else said
            raise CanNotStart(f"it ended before it had its job: {why}")
        job = child.context.job  # in the trace of this attempt
        order = Order(job, job.timeout_s, child.context.kin)
        born.writer.write(packed(order_message(order)))

    async def _converse(self, child: Child, born: Born) -> Ending | None:
        """Takes in what it tells; its ending, or None when it died without."""
        texts = self.setup.result_max_bytes + self.setup.bounds.submit_max_bytes
        bytes_max = 2 * texts + SLACK_BYTES  # JSON texts within JSON
        try:
            while (message := await received(born.reader, bytes_max)) is not None:
                if "ending" in message:
                    ending, submitted = ending_of(message), submitted_of(message)
                    child.context.hear_submitted(submitted)
                    return ending
                _hear(child.context, message)
        except (ValueError, TypeError, KeyError, IndexError, PermanentError) as error:
            child.hear(f"\npenstock: it has sent what is no frame: {error}\n".encode())
        return None


def handed_back(pause_s: float) -> Ending:
    """Released, to be run no sooner than that; nothing spent."""
    return Ending(Outcome.RELEASED, retry_after_s=pause_s)


def _hear(context: Context, message: Message) -> None:
    if "line" in message:
        context.hear(line_of(message))
    elif "progress" in message:
        context.hear(progress_of(message))


async def _listen(born: Born, child: Child) -> None:
    """What it prints is ours to show, and the last of it is kept: a crash's last words."""
    while chunk := await born.prints.read(1024):
        child.hear(chunk)
        with suppress(OSError):
            os.write(2, chunk)


async def _seen_off(born: Born, listening: "asyncio.Task[None]") -> None:
    """Returns when it is dead and all that it printed has been read; kills what clings to life, at
    last a nursery that tells of no end (a child may have stopped it)."""
    for within_s, kill in ((_GOES_WITHIN_S, born.kill), (_TOLD_WITHIN_S, born.abandon)):
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await asyncio.shield(born.ended)
                break
        kill()
    await asyncio.shield(born.ended)
    await asyncio.wait([listening], timeout=_GOES_WITHIN_S)  # what it started may hold the pipe
    listening.cancel()
    born.close()


_NURSERY_GONE = Ending(
    Outcome.CRASHED, failure=Failure("crashed", "the child process died with its nursery")
)


def _crash(code: int, said: bytearray) -> Ending:
    """How a child ended that told no ending. `code`: its exit status, or minus a signal."""
    if code < 0:
        how = f"was ended by {_signal_name(-code)}"
    else:
        how = f"exited with {code} before its handler had returned"
    lines = {"stderr": last_lines(said)}
    return Ending(Outcome.CRASHED, failure=Failure("crashed", f"the child process {how}", lines))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_lines(said: bytearray) -> list[str]:
    """The last lines, or those around where Python tells what killed it: its stack is long, and the
    innermost calls come first."""
    lines = said.decode("utf-8", "replace").splitlines()
    fatal = (n for n, line in enumerate(lines) if line.startswith(_FATAL))
    start = max(next(fatal, len(lines)) - _LAST_LINES // 4, 0)
    shown = (
        lines[start:][:_LAST_LINES] if start < len(lines) - _LAST_LINES else lines[-_LAST_LINES:]
    )
    return [cut(one_line(line), _LAST_LINE_BYTES) for line in shown]


def setup_of(settings: Settings, bounds: Bounds) -> Setup:
    """What children need of the settings; they import from where we do."""
    limits, egress = settings.worker, settings.egress
    return Setup(
        modules=settings.handlers.modules,
        path=tuple(sys.path),
        egress_allow=egress.allow,
        connect_timeout_s=egress.connect_timeout_s,
        response_max_bytes=egress.response_max_bytes,
        result_max_bytes=limits.result_max_bytes,
        log_lines_max=limits.log_lines_max,
        log_bytes_max=limits.log_bytes_max,
        log_level=settings.log.level,
        log_format=settings.log.format,
        memory_max_bytes=limits.child_memory_max_bytes,
        bounds=bounds,
        spans=traced.export_of(settings.tracing),
    )
