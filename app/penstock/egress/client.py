"""The client of all outgoing HTTP: jobs', webhooks' and key sets'.

In: a method, a URL, headers, a body. Out: a bounded answer, EgressRefused (for good) or EgressError
(for now). Always holds: the address that was judged is the address that is connected to, because
the judge sits where the socket is made, after every name and redirect has become an address;
nothing of the environment (proxies, .netrc), no cookie and no redirect has a say. An egress proxy
would take the judging out of our hands, so none is supported.
"""

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from aiohttp.typedefs import LooseHeaders
from yarl import URL

from penstock import VERSION
from penstock.egress import calls
from penstock.egress.errors import AddressRefused, EgressError, EgressRefused
from penstock.egress.guard import Network, header_refusal, networks, parsed_url, refusal
from penstock.egress.reading import read_body
from penstock.egress.resolver import GuardedResolver
from penstock.egress.response import Response
from penstock.telemetry import tracing

KIB = 1024
_HEADER_LINE_MAX = 8190
_HEADERS_MAX = 128
_DNS_CACHE_S = 30
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

AddrInfo = tuple[
    int | socket.AddressFamily,
    int | socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
]


class Egress:
    """`async with Egress(allow=["10.0.0.0/8"]) as http: await http.request("GET", url)`."""

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        connect_timeout_s: float = 5.0,
        response_max_bytes: int = 256 * KIB,
        connections_max: int = 200,
        connections_per_host_max: int = 20,
    ) -> None:
        self._allow = list(networks(allow))  # shared with the resolver
        self._connect_timeout_s = connect_timeout_s
        self._response_max_bytes = response_max_bytes
        self._connections_max = connections_max
        self._connections_per_host_max = connections_per_host_max
        self._resolver: GuardedResolver | None = None
        self._session: ClientSession | None = None

    def allow(self, networks: Sequence[Network]) -> None:
        """These count from now on; connections that are open stay."""
        self._allow[:] = networks

    async def __aenter__(self) -> Self:
        self._resolver = GuardedResolver(self._allow, self._connect_timeout_s)
        self._session = ClientSession(
            connector=self._connector(self._resolver),
            cookie_jar=DummyCookieJar(),
            headers={
                "User-Agent": f"Penstock/{VERSION}",
                "Accept": "*/*",
                "Accept-Encoding": "gzip, deflate",
            },
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_HEADER_LINE_MAX,
            max_field_size=_HEADER_LINE_MAX,
            max_headers=_HEADERS_MAX,
        )
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._session is not None and self._resolver is not None:
            await self._session.close()
            await self._resolver.close()
        self._session = self._resolver = None

    def _connector(self, resolver: AbstractResolver) -> TCPConnector:
        return TCPConnector(
            socket_factory=self._socket,
            resolver=resolver,
            ttl_dns_cache=_DNS_CACHE_S,
            limit=self._connections_max,
            limit_per_host=self._connections_per_host_max,
        )

    def _socket(self, info: AddrInfo) -> socket.socket:
        """The door itself: no socket is made but here, for the very address in `info`."""
        family, kind, proto, _, address = info
        why = refusal(str(address[0]), int(address[1]), self._allow)
        if why:
            raise AddressRefused(why)
        return socket.socket(family, kind, proto)

    # Six arguments, but these are the ones that everybody knows from every HTTP client.
    async def request(  # noqa: PLR0913
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        timeout_s: float = 15.0,
        response_max_bytes: int | None = None,
    ) -> Response:
        """One call, never redirected; any status is an answer.

        `timeout_s` covers everything from the wait for a connection to the body's last byte. The
        body is decompressed (gzip, deflate) and cut at `response_max_bytes`. Raises EgressRefused
        if the call is not allowed, EgressError if no answer came.
        """
        target = self._judged(method, url, headers or {})
        bytes_max = self._response_max_bytes if response_max_bytes is None else response_max_bytes
        limits = (timeout_s, bytes_max)
        if tracing.is_in_trace():
            with calls.traced(method, target, headers or {}) as (span, sent):
                answer = await self._answered(method, target, sent, body, limits)
                calls.answered(span, answer.status)
                return answer
        return await self._answered(method, target, headers, body, limits)

    async def _answered(
        self,
        method: str,
        target: URL,
        headers: LooseHeaders | None,
        body: bytes | None,
        limits: tuple[float, int],
    ) -> Response:
        timeout_s, _ = limits
        try:
            return await self._call(method, target, headers, body, limits)
        except (ClientError, OSError, ValueError) as exc:  # TimeoutError is an OSError
            raise _told(exc, timeout_s) from exc

    def _judged(self, method: str, url: str, headers: Mapping[str, str]) -> URL:
        if method not in _METHODS:
            raise EgressRefused(f"the method must be one of {', '.join(sorted(_METHODS))}")
        for name, value in headers.items():
            why = header_refusal(name, value)
            if why:
                raise EgressRefused(f"header {name[:64]!r}: {why}")
        return parsed_url(url, self._allow)

    async def _call(
        self,
        method: str,
        url: URL,
        headers: LooseHeaders | None,
        body: bytes | None,
        limits: tuple[float, int],
    ) -> Response:
        if self._session is None:
            raise RuntimeError("Egress is used outside of its `async with`")
        timeout_s, bytes_max = limits
        async with self._session.request(
            method,
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            # aiohttp takes 0 for "no limit".
            timeout=ClientTimeout(
                total=max(timeout_s, 0.001), sock_connect=self._connect_timeout_s
            ),
        ) as answer:
            content, truncated = await read_body(answer, bytes_max)
            if truncated:
                answer.close()  # the rest is not worth reading: give up the connection
            return Response(answer.status, _headers(answer), content, truncated)


def _headers(answer: ClientResponse) -> dict[str, str]:
    """Lower-case names; repeated ones joined as RFC 9110, 5.3 has it."""
    joined: dict[str, str] = {}
    for name, raw in answer.headers.items():
        # aiohttp keeps bytes that aren't UTF-8 as lone surrogates, which nothing can store.
        value = raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        low = name.lower()
        joined[low] = f"{joined[low]}, {value}" if low in joined else value
    return joined


def _told(exc: Exception, timeout_s: float) -> EgressRefused | EgressError:
    """What went wrong, in our words."""
    if isinstance(exc, ClientSSLError):  # before ValueError, which a bad certificate is, too
        return EgressError(f"no answer by TLS: {exc}"[:500])
    if isinstance(exc, ValueError):  # aiohttp's InvalidURL, a name that no DNS can hold
        return EgressRefused("the URL can't be called as it is")
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return EgressRefused(str(cause))
        cause = cause.__cause__
    if isinstance(exc, TimeoutError):
        return EgressError(f"no answer in time ({str(exc) or f'{timeout_s:.3g} s'})")
    # An answer that is no HTTP names the whole URL, which may be a secret of its receiver's.
    text = exc.message if isinstance(exc, ClientResponseError) else str(exc)
    return EgressError(f"no answer: {text or type(exc).__name__}"[:500])
