"""Handlers that fork: what comes of it is no second replica, and no second attempt.

A copy of this process has our connections and our event loop. Went it on, it would speak to
PostgreSQL amid what we say, take in callers at our door, and hold our port when we are dead. So a
copy has none of our connections from its first moment on (what handlers do there with pipes and
files is their own affair), and ends where it would return from the handler to us.
"""

import os
import signal
import socket
import stat
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

_LISTED = "/dev/fd"
_LOOPS_OWN = "anon_inode:[eventpoll]"
_EXIT = 0  # whoever forked may wait for it: all is well


def shed_when_forked() -> None:
    """From now on. Not for programs that are started, only for copies that go on with our code."""
    own_signals_when_forked()  # first: until then a signal to the copy reaches us
    os.register_at_fork(after_in_child=_shed)


def own_signals_when_forked() -> None:
    """From now on, a signal to a copy is the copy's: it does what it does to any Python program.
    Unless told so, the interpreter of a copy passes signals on to the event loop that it was born
    with, which is ours: to end a worker of `multiprocessing` would drain this replica."""
    os.register_at_fork(after_in_child=_own_signals)


class Whole(Awaitable[Any]):
    """A coroutine that ends its process where it would go back to the event loop of a copy."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work
        self._home = os.getpid()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has what the interpreter asks of one

    def __iter__(self) -> "Whole":
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        try:
            return self._work.send(value)
        finally:
            end_copy(self._home)

    def throw(self, *error: Any) -> Any:
        try:
            return self._work.throw(*error)
        finally:
            end_copy(self._home)

    def close(self) -> None:
        self._work.close()


def called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What it returns, to the process that called it."""
    home = os.getpid()
    try:
        return function(*arguments)
    finally:
        end_copy(home)


def end_copy(home: int) -> None:
    """Ends this process unless it is that one."""
    if os.getpid() != home:
        os._exit(_EXIT)


def _own_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _shed() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir(_LISTED):
        with suppress(OSError):  # the listing's own, which is closed by now
            if _is_ours(int(name)):
                os.dup2(nothing, int(name), inheritable=False)
    os.close(nothing)


def _is_ours(file: int) -> bool:
    """Whether it is a connection to somebody else, or what an event loop waits at."""
    if not stat.S_ISSOCK(os.fstat(file).st_mode):
        return os.readlink(f"{_LISTED}/{file}") == _LOOPS_OWN
    one = socket.socket(fileno=file)
    try:
        if one.family != socket.AF_UNIX:
            return True
        return bool(one.getsockname() or _peer(one))  # a pair that was made here has no name
    finally:
        one.detach()


def _peer(one: socket.socket) -> object:
    with suppress(OSError):  # it listens
        return one.getpeername()
    return None
