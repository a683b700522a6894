"""The entry of a child process: `python -m penstock.child PARENT`, only ever started by a replica.

In: frames on standard input. Out: frames on what was standard output. Always holds: it is tied to
its parent before anything of the user's is imported, so no handler outlives a replica that was
killed. Its imports are few until then.
"""

import sys

from penstock.child.ties import moved_pipes, tie


def main() -> None:
    tie(int(sys.argv[1]))
    source, sink = moved_pipes()
    from penstock.child.attempt import run_one  # noqa: PLC0415 - heavy, and we must be tied first

    run_one(source, sink)


main()
