"""The replica's side of its nursery: the process that its children are forked from.

In: a wish for a child. Out: a `Born`, with its socket, what it prints, and how it ended, in time.
Started with the first wish, and anew when it has died. Always holds: whoever was born here is dead
when the nursery is. If we die, the kernel ends it.
"""

import asyncio
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from penstock.outliving import outlived
from penstock.settings import environment, without_settings
from penstock.telemetry.logs import get_logger

RECORD = struct.Struct("!cii")  # BORN, pid, or -1 and an errno; ENDED, pid, exit status
BORN, ENDED = b"b", b"e"
_UNREAD_S = 2.0  # what a dead child has sent has been read by then

log = get_logger(__name__)

_Answer: TypeAlias = "asyncio.Future[tuple[int, asyncio.Future[int | None]]]"


class CanNotStart(Exception):
    """A child that never came to its job: nothing that the job could be charged with."""


@dataclass(slots=True, eq=False)
class Born:
    """A child. `ended` gives its exit status (minus a signal), or None if nobody knows it."""

    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    prints: asyncio.StreamReader
    pipe: asyncio.ReadTransport
    ended: "asyncio.Future[int | None]"
    abandon: Callable[[], None]  # ends the nursery, which doesn't tell of its end

    def close(self) -> None:
        self.writer.close()
        self.pipe.close()

    def kill(self) -> None:
        """The process, and those that it started and that stayed in its session's group."""
        if not self.ended.done():  # else the number may be another's by now
            for kill in (os.killpg, os.kill):  # it may not be a group's head yet
                with suppress(ProcessLookupError, PermissionError):
                    kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    directory: str
    environ: dict[str, str]


class Nursery:
    """Directory and environment are those of now: handlers in our process may change them."""

    def __init__(self, command: Sequence[str], start_max_s: float) -> None:
        self._command = command
        self._surroundings = _Surroundings(os.getcwd(), without_settings(environment()))
        self._start_max_s = start_max_s
        self._starting = asyncio.Lock()
        self._line: _Line | None = None

    async def bear(self) -> Born:
        """A new child. Raises CanNotStart, OSError."""
        async with self._starting:
            if self._line is None or self._line.hearing.done():
                self._line = await _Line.begun(
                    (*self._command, str(os.getpid())), self._surroundings
                )
            line = self._line
        ours, theirs = socket.socketpair()
        source, sink = os.pipe()
        try:
            async with asyncio.timeout(self._start_max_s):
                pid, ended = await line.ask(theirs.fileno(), sink)
        except BaseException as error:
            ours.close()
            os.close(source)
            if isinstance(error, TimeoutError):
                line.close()
                why = f"the nursery took longer than {self._start_max_s:g} s"
                raise CanNotStart(why) from None
            raise
        finally:
            theirs.close()
            os.close(sink)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        # Its end may be held open by what it has forked and what has left its group.
        ended.add_done_callback(lambda _: _later(reader.feed_eof))
        return Born(pid, reader, writer, *(await _reading(source)), ended, line.close)

    async def close(self) -> None:
        """Ends it and all who were born there."""
        if self._line is not None:
            self._line.close()
            await self._line.hearing


class _Line:
    """One nursery process, and what it was asked and has told."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._asked: deque[_Answer] = deque()
        self._living: dict[int, asyncio.Future[int | None]] = {}
        self.hearing: asyncio.Task[None]

    @classmethod
    async def begun(cls, command: Sequence[str], given: "_Surroundings") -> "_Line":
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=theirs.fileno(),
                    cwd=given.directory,
                    env=given.environ,
                    start_new_session=True,  # Ctrl-C is for us
                )
            except BaseException:
                ours.close()
                raise
        line = cls(process, ours)
        reader, writer = await asyncio.open_unix_connection(sock=ours.dup())
        line.hearing = asyncio.create_task(line._hear(reader, writer))
        return line

    async def ask(self, frames: int, prints: int) -> "tuple[int, asyncio.Future[int | None]]":
        answer: _Answer = asyncio.get_running_loop().create_future()
        socket.send_fds(self._control, [b"+"], [frames, prints])
        self._asked.append(answer)
        return await outlived(answer)  # its place among the answers stays

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What the nursery reports, until it ends."""
        try:
            while True:
                self._take_in(*RECORD.unpack(await reader.readexactly(RECORD.size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except LookupError as error:  # somebody else has written there: nothing holds any more
            log.warning("nursery_not_understood", why=repr(error))
        self.close()
        await self._process.wait()
        writer.close()
        self._control.close()
        for answer in self._asked:
            _refuse(answer, CanNotStart("the nursery has ended"))
        for ended in self._living.values():
            ended.set_result(None)
        self._asked.clear()
        self._living.clear()

    def _take_in(self, what: bytes, pid: int, number: int) -> None:
        """Raises LookupError for what it can't have told."""
        if what == ENDED:
            self._living.pop(pid).set_result(number)
        elif what != BORN:
            raise LookupError(what)
        elif pid < 0:
            _refuse(self._asked.popleft(), OSError(number, os.strerror(number)))
        else:
            ended = self._living[pid] = asyncio.get_running_loop().create_future()
            self._asked.popleft().set_result((pid, ended))


def _refuse(answer: _Answer, why: Exception) -> None:
    answer.set_exception(why)
    answer.exception()  # whoever asked may have gone


def _later(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_UNREAD_S, call)


async def _reading(source: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0)
    )
    return reader, pipe
