"""From where a request came: the connection's peer, or what a proxy says that the operator trusts.

In: a request. Out: an address as text. Always holds: `X-Forwarded-For` is read from its end, where
the nearest proxy has written, and only as long as each that wrote is trusted: what stands before
that is anybody's word.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web
from multidict import MultiMapping

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HOPS_MAX = 20  # of a header that may be 8 KiB


class Peers:
    """`trusted`: the networks of the proxies before us, as CIDRs."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = [ip_network(one) for one in trusted]

    def address_of(self, request: web.BaseRequest) -> str | None:
        """Who asks; None where the connection has no address."""
        remote = request.remote
        if remote is None or not self._trusted:
            return remote
        return self.origin(remote, request.headers)

    def origin(self, remote: str, headers: MultiMapping[str]) -> str:
        """The last address that no trusted proxy has, by what those say that are."""
        address = _address(remote)
        if address is None:
            return remote
        said = ",".join(headers.getall("X-Forwarded-For", [])).split(",")
        for hop in reversed(said[-_HOPS_MAX:]):
            before = _address(hop)
            if before is None or not self._is_trusted(address):
                break
            address = before
        return str(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: str) -> Address | None:
    """An address, with a port or without; None for anything else, as `unknown`."""
    text = text.strip().partition("%")[0]  # a zone of another host's says nothing, at any length
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
