"""What binds a child process to its parent, and what keeps it from doing harm beyond itself."""

import ctypes
import faulthandler
import os
import resource
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1
FIRST_TO_GO = b"1000"
EXIT_ORPHAN = 3


def tie(parent: int) -> None:
    """Binds our life to that process' (Linux: by the kernel, even if it dies by `kill -9` while a
    handler holds the interpreter; everywhere: by the end of our standard input), lets the kernel
    take us first when memory runs out, and leaves no core dump. Signals to end are for the parent
    alone, which lets us finish: a supervisor may send them to all of its processes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
            file.write(FIRST_TO_GO)
    if os.getppid() != parent:
        os._exit(EXIT_ORPHAN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGTERM, signal.SIGINT):
        # A function, not SIG_IGN: programs that a handler starts would inherit that.
        signal.signal(number, lambda *_: None)
    faulthandler.enable(all_threads=False)  # the last words of a segmentation fault


def moved_pipes() -> tuple[int, int]:
    """Our ends of the parent's pipes, where no handler stumbles over them: what it prints goes to
    standard error, and it reads nothing."""
    source, sink = os.dup(0), os.dup(1)
    for end in (source, sink):
        os.set_blocking(end, True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def limit_memory(bytes_max: int) -> None:
    """Of address space: what needs more gets a MemoryError. 0: no limit."""
    if bytes_max:
        resource.setrlimit(resource.RLIMIT_AS, (bytes_max, bytes_max))
