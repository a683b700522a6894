"""The command line's entry; `python -m penstock` is the same.

The one place beside the tests that knows the server: it hands it to the commands.
"""

import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.settings import Settings
    from penstock.settings.watched import Source


def main() -> None:
    """Runs one command; the exit code is 0 for done, 1 for failed, 2 for wrong use or settings."""
    if sys.argv[1:2] == ["serve"]:
        # Before the slow imports: a supervisor may ask for a reload at once, and SIGHUP would end
        # us. The kernel keeps it until `server.serve` can heed it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from penstock.cli.root import penstock  # noqa: PLC0415 - so that importing us has no effect

    penstock(prog_name="penstock", obj=_serve)


def _serve(
    settings: "Settings", on_ready: Callable[[str], None], source: "Source"
) -> Coroutine[Any, Any, None]:
    from penstock.server import serve  # noqa: PLC0415 - heavy; most commands don't need it

    return serve(settings, on_ready, source)


if __name__ == "__main__":
    main()
