"""The door as a server: listens, and keeps to its limits even where no request comes of it.

In: connections. Out: answers by the porter; what connections may do is in `connection`. We use
aiohttp's low-level server: the porter has its own table of routes, so an `Application` with a
second router in it would only cost time (6 us of 31 a request, measured) and answer some errors
in its own way. If we die, callers lose their connections; nothing is kept here.
"""

import errno
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from aiohttp import web

from penstock.api.connection import Listener
from penstock.api.door import Door
from penstock.api.porter import Porter
from penstock.domain.errors import PenstockError, WrongSetting
from penstock.telemetry.logs import get_logger

log = get_logger(__name__)


_BACKLOG = 1024
_SHUTDOWN_S = 5.0  # what requests under way get when we stop
# Files that we may have open besides: spare connections, PostgreSQL, Redis, calls of handlers.
_OTHER_FILES = 768


class CannotListen(PenstockError):
    """The port is another's."""


@dataclass(frozen=True, slots=True)
class Front:
    """The door that is open, on this port."""

    port: int
    porter: Porter
    listener: Listener

    def use(self, door: Door) -> None:
        """This one counts from now on, in what can be exchanged: see `Porter.use`."""
        connections_max = self.listener.limits.connections_max  # as many as files allow
        self.listener.limits = replace(door.limits, connections_max=connections_max)
        self.porter.use(door)


@asynccontextmanager
async def serve(
    door: Door, host: str, port: int, *, shutdown_s: float = _SHUTDOWN_S
) -> AsyncIterator[Front]:
    """Listens while the context is open. Port 0 takes a free one."""
    limits = replace(door.limits, connections_max=_connections_max(door.limits.connections_max))
    porter = Porter(door)
    listener = Listener(replace(door, limits=limits), porter)
    runner = web.ServerRunner(listener, shutdown_timeout=shutdown_s)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise _not_listening(error, host, port) from error
        yield Front(site.port, porter, listener)
    finally:
        await runner.cleanup()


def _connections_max(wanted: int) -> int:
    """As many as `wanted`, or as our limit of open files allows: once that is reached, nobody is
    let in any more, not even to be told. The soft limit is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            allowed = max(soft - _OTHER_FILES, soft // 2)
            log.warning(
                "few_open_files", connections_max=allowed, wanted=wanted, hint="raise ulimit -n"
            )
            return min(wanted, allowed)
    return wanted


def _not_listening(error: OSError, host: str, port: int) -> PenstockError:
    way_out = "set http.port (PENSTOCK_HTTP__PORT)"
    match error.errno:
        case errno.EADDRINUSE:
            return CannotListen(f"port {port} of {host} is in use; {way_out} or stop the other one")
        case errno.EACCES | errno.EPERM:
            return WrongSetting(f"port {port} of {host} needs more rights than ours; {way_out}")
        case _:
            return WrongSetting(
                f"http.host is {host!r}, which is no address of this machine: "
                "set PENSTOCK_HTTP__HOST, for example to 127.0.0.1 or 0.0.0.0"
            )
