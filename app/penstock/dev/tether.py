"""Becomes another program that dies with its parent; run by path, before anything is installed.

In: `tether.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT ...]`; UID and GID are -1 to stay who we
are. On Linux the kernel sends SIGNAL when the parent ends, even by `kill -9`; elsewhere there is
no such thing, and the next start finds the orphan by its pid file instead.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ties us to the parent, then turns into the program."""
    parent, signal, uid, gid = (int(text) for text in sys.argv[1:5])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":  # after setuid, which would clear it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended before its server began")
    os.execv(sys.argv[5], sys.argv[5:])


main()
