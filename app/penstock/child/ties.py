"""What binds a child process to its parent, and what keeps it from doing harm beyond itself."""

import ctypes
import faulthandler
import os
import resource
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1
CHILD_OOM, NURSERY_OOM = 1000, 900  # whom the kernel takes first when memory runs out
EXIT_ORPHAN = 3


def tie(parent: int, oom_score_adj: int) -> None:
    """Binds our life to that process' (on Linux by the kernel, even if it dies by `kill -9` while a
    handler holds the interpreter; everywhere by the end of our socket), and leaves no core dump.
    Signals to end are for the replica alone, which lets us finish: a supervisor may send them to
    all of its processes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(oom_score_adj))
    if os.getppid() != parent:
        os._exit(EXIT_ORPHAN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGTERM, signal.SIGINT):
        # A function, not SIG_IGN: programs that a handler starts would inherit that.
        signal.signal(number, lambda *_: None)


def become_child(prints: int, parent: int) -> None:
    """After the fork: a session of our own, to be killed with all that we start; what handlers
    print goes to `prints`, and they read nothing."""
    os.setsid()
    tie(parent, CHILD_OOM)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (prints, 1), (prints, 2)):
        os.dup2(ours, theirs)
    os.close(nothing)
    os.close(prints)
    faulthandler.enable(all_threads=False)  # the last words of a segmentation fault


def limit_memory(bytes_max: int) -> None:
    """Of address space: what needs more gets a MemoryError. 0: no limit."""
    if bytes_max:
        resource.setrlimit(resource.RLIMIT_AS, (bytes_max, bytes_max))
