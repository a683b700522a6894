"""Child processes: a job that was lost twice with its replica runs alone, so that it shows itself.

In: runs of suspects. Out: an ending each. Always holds: a child runs one attempt, is gone when we
say how it ended, and dies with us. Only one that dies by itself has crashed; one that we killed was
stopped, and one that never got its job is handed back. If we die, the row stands under our name,
the kernel ends the child, and the reaper finds the row.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from penstock import clock
from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.job import Started
from penstock.handlers.context import Context, LogLine, Progress
from penstock.handlers.text import cut, one_line
from penstock.loops.frames import (
    SLACK_BYTES,
    Message,
    Order,
    Setup,
    ending_of,
    order_message,
    packed,
    received,
)
from penstock.settings import environment, without_settings
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
_GONE_WITHIN_S = 5.0

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Child:
    """One attempt that runs, or is to run, in a process of its own."""

    job: Started
    context: Context  # takes in what the handler tells
    process: Process | None = None
    begun: bool = False  # it has its job
    stopped: bool = False
    said: bytearray = field(default_factory=bytearray)  # the last that it has printed

    def stop(self, why: str) -> None:
        """Asks its handler to stop; where none has begun, there is nothing to wait for."""
        self.stopped = True
        if not self.begun:
            self.kill()
        elif self.process is not None and self.process.stdin is not None:
            with suppress(OSError, RuntimeError):  # it has gone
                self.process.stdin.write(packed({"cancel": why}))

    def hear(self, chunk: bytes) -> None:
        self.said += chunk
        del self.said[:-_LAST_BYTES]

    def kill(self) -> None:
        """The process, and those that it started and that stayed in its group."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


class CanNotStart(Exception):
    """A child that never came to its job: nothing that the job could be charged with."""


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
        self._setup = setup
        self._places = places
        self._start_max_s = start_max_s
        self._metrics = metrics
        self._command = command
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
        try:
            return await self._run(child, begin)
        except (CanNotStart, OSError) as error:  # OSError: no process, no pipe, no memory
            if not child.stopped:  # else whoever stopped it says how it ended
                self._metrics.child_start_failures.inc()
                log.warning("child_can_not_start", kind=child.job.kind, why=str(error))
            return handed_back(CAN_NOT_START_PAUSE_S)
        finally:
            child.kill()
            self._mean_s += (clock.monotonic() - began - self._mean_s) / 8

    async def _run(self, child: Child, begin: Callable[[], None]) -> Ending:
        process = child.process = await asyncio.create_subprocess_exec(
            *(*self._command, str(os.getpid())),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=without_settings(environment()),
            start_new_session=True,  # Ctrl-C is for us; and to be killed with all of its own
        )
        listening = asyncio.create_task(_listen(process, child))
        try:
            if child.stopped:
                raise CanNotStart("it was stopped before")
            await self._introduce(child, process)
            child.begun = True
            begin()
            ending = await self._converse(child, process)
        finally:
            child.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(_GONE_WITHIN_S):
                    await process.wait()
                    await listening
            listening.cancel()
        return ending or _crash(process.returncode, child.said)

    async def _introduce(self, child: Child, process: Process) -> None:
        """Gives it setup and job. Raises CanNotStart."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._start_max_s):
                process.stdin.write(packed(asdict(self._setup)))
                await process.stdin.drain()
                message = await received(process.stdout, SLACK_BYTES)
        except TimeoutError:
            raise CanNotStart(f"it wasn't ready within {self._start_max_s:g} s") from None
        except (ConnectionError, ValueError) as error:
            raise CanNotStart(f"it can't be talked to: {error}") from None
        if message is None or "ready" not in message:
            why = message["unfit"] if message else " | ".join(last_lines(child.said)[-3:])
            raise CanNotStart(f"it ended before it had its job: {why}")
        order = Order(child.job, child.job.timeout_s)
        process.stdin.write(packed(order_message(order)))

    async def _converse(self, child: Child, process: Process) -> Ending | None:
        """Takes in what it tells; its ending, or None when it died without."""
        assert process.stdout is not None
        bytes_max = 2 * self._setup.result_max_bytes + SLACK_BYTES  # a JSON text within JSON
        try:
            while (message := await received(process.stdout, bytes_max)) is not None:
                if "ending" in message:
                    return ending_of(message)
                _hear(child.context, message)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            child.hear(f"\npenstock: it has sent what is no frame: {error}\n".encode())
        return None


def handed_back(pause_s: float) -> Ending:
    """Released, to be run no sooner than that; nothing spent."""
    return Ending(Outcome.RELEASED, retry_after_s=pause_s)


def _hear(context: Context, message: Message) -> None:
    if "line" in message:
        at_s, level, text, seq = message["line"]
        context.hear(LogLine(float(at_s), level, str(text), int(seq)))
    elif "progress" in message:
        percent, text, at_s = message["progress"]
        context.hear(Progress(float(percent), text, float(at_s)))


async def _listen(process: Process, child: Child) -> None:
    """What it prints is ours to show, and the last of it is kept: a crash's last words."""
    assert process.stderr is not None
    while chunk := await process.stderr.read(1024):
        child.hear(chunk)
        with suppress(OSError):
            os.write(2, chunk)


def _crash(code: int | None, said: bytearray) -> Ending:
    """How a child ended that told no ending. `code`: its exit status, or minus a signal."""
    if code is not None and code < 0:
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
