"""Names to addresses, in threads of our own, so that slow DNS starves nothing else.

In: a host name. Out: those of its addresses that the guard lets pass. Always holds: a name that
leads only to refused addresses is refused for good, one that leads to none is a failed look-up.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from penstock.egress.errors import AddressRefused
from penstock.egress.guard import Network, refusal

_THREADS = 16


class GuardedResolver(AbstractResolver):
    """getaddrinfo with a deadline and the guard behind it."""

    def __init__(self, allow: Sequence[Network], timeout_s: float) -> None:
        self._allow = allow
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="penstock-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses to try; raises AddressRefused, gaierror or TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s):
            found = await loop.run_in_executor(self._pool, _look_up, host, port, family)
        refused = {where: refusal(where, port, self._allow) for _, where in found}
        passed = [(family, where) for family, where in found if refused[where] is None]
        if not passed:
            raise AddressRefused(f"{host}: {next(iter(refused.values()), 'no address')}")
        return [_result(host, port, family, where) for family, where in passed]

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _look_up(
    host: str, port: int, family: socket.AddressFamily
) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
    )
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _result(host: str, port: int, family: socket.AddressFamily, where: str) -> ResolveResult:
    return ResolveResult(
        hostname=host, host=where, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )
