"""The nursery of a replica: `python -m penstock.child PARENT`, the process that children come from.

In: on the socket that is our standard input, a byte and two descriptors for each child: its socket
for frames, and what it prints to. Out: there, that it was born, and later how it ended. We import
what is ours and heavy once, and nothing of the user's: handlers are imported in each child anew, so
that no child finds a connection or a thread that another has too. A fork costs 10 ms, where a new
interpreter would take 500. Always holds: we are tied to the replica, and children to us.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

from penstock.child.ties import NURSERY_OOM, become_child, tie
from penstock.loops.nursery import BORN, ENDED, RECORD

_HEAVY = ("penstock.child.attempt", "penstock.handlers.http", "uvloop")


def main() -> NoReturn:
    # uvloop leaves us copies of our socket that would reach each child, and its handler.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    tie(int(sys.argv[1]), NURSERY_OOM)
    control = socket.socket(fileno=os.dup(0))
    for name in _HEAVY:
        try:
            importlib.import_module(name)
        except ImportError:  # there is no uvloop for this platform
            continue
    gc.collect()
    gc.freeze()  # pages that no child writes to are shared
    _serve(control)


def _serve(control: socket.socket) -> NoReturn:
    """Until the replica has gone, and then the kernel ends the children."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        while True:
            ready, _, _ = select.select([control.fileno(), woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                _report_ends(control)
            if control.fileno() in ready:
                asked, given, _, _ = socket.recv_fds(control, 1, 2)
                if not asked:
                    os._exit(0)
                _bear(control, given, (woken, wake))
    except ConnectionError:  # killed before it had read all that we told, or while we tell it
        os._exit(0)


def _bear(control: socket.socket, given: list[int], own: tuple[int, int]) -> None:
    """Forks a child that has only what it was given."""
    frames, prints = given
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        control.sendall(RECORD.pack(BORN, -1, error.errno or 0))
    else:
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            for end in own:
                os.close(end)
            _live(frames, prints, parent)
        control.sendall(RECORD.pack(BORN, pid, 0))
    os.close(frames)
    os.close(prints)


def _live(frames: int, prints: int, parent: int) -> NoReturn:
    """What happens in a child; it never returns to what its parent was doing."""
    try:
        become_child(prints, parent)
        from penstock.child.attempt import run_one  # noqa: PLC0415 - imported before the fork

        run_one(frames)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _report_ends(control: socket.socket) -> None:
    """Of each that is dead; what it had started and left in its group goes with it, while its
    number can't be another's yet."""
    while (pid := _dead()) is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        control.sendall(RECORD.pack(ENDED, pid, os.waitstatus_to_exitcode(status)))


def _dead() -> int | None:
    with suppress(ChildProcessError):
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found and found.si_pid
    return None


main()
