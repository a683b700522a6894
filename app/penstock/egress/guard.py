"""The rules of the way out: which addresses, URLs and headers we send to. Pure.

In: an address about to be connected, or a URL or header that a caller wants. Out: why not, or None.
Always holds: only addresses that are public by the IANA registries, or in a network that the
operator allows, pass; an address that we can't read is refused. An explicit list, because Python's
`is_global` is True for multicast, site-local and most carriers of IPv4 (reliability.md, D8).
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from yarl import URL

from penstock.egress.errors import EgressRefused

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

URL_MAX = 2048
HOST_MAX = 253
HEADER_MAX = 8190  # one header's value, what servers commonly take

# IANA's special-purpose registries (RFC 6890 and its updates, read in 2026), multicast, site-local
# and the clouds' own: refused whole. Carriers of IPv4 (IPv4-compatible, 6to4, Teredo, local NAT64)
# are among them, whatever they carry; mapped addresses and public NAT64 are unwrapped below.
_DENIED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(cidr), why)
    for cidr, why in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a carrier's shared address"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "Azure's host agent"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "multicast tunnels (AMT)"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "a private address"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discarded"),
        ("100:0:0:1::/64", "a dummy prefix"),
        ("2001::/23", "reserved for protocols (Teredo, ORCHID, benchmarks)"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_INSIDE = frozenset({"a private address", "a carrier's shared address", "loopback"})
# What may also be reached at a URL that the operator has pinned himself: his own networks.
OWN_NETWORKS: tuple[str, ...] = tuple(str(cidr) for cidr, why in _DENIED if why in _INSIDE)
_LOOPBACK = IPv4Network("127.0.0.0/8")
_UNICAST_6 = IPv6Network("2000::/3")  # all that IANA has given out as global unicast
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are the IPv4 address

# Ports where something listens that takes HTTP for its own commands: the list of the Fetch
# standard ("bad port"), and the stores and brokers that stand in the same networks as our targets.
PORTS_DENIED: frozenset[int] = frozenset().union(
    [0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95],
    [101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179],
    [389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601],
    [636, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 2181, 3306, 3389, 3659, 4045],
    [4190, 5060, 5061, 5432, 5672, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697],
    [9042, 9092, 10080, 11211, 27017],
)

_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\ud800-\udfff\\]")
_HOST = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")  # the URL standard's test
_TARGET = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog"})

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110, 5.6.2
_BAD_IN_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# What the client itself sets, and what speaks to the next hop only (RFC 9110, 7.6.1).
_HEADERS_DENIED = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer"}
    | {"upgrade", "expect", "proxy-connection", "proxy-authorization", "proxy-authenticate"}
)


def networks(cidrs: Iterable[str]) -> tuple[Network, ...]:
    """The networks that `cidrs` name; ValueError for one that is none."""
    return tuple(ip_network(cidr) for cidr in cidrs)


def refusal(address: str, port: int | None = None, allow: Sequence[Network] = ()) -> str | None:
    """Why we must not connect to `address` (a plain IP address) and `port`, or None."""
    if port in PORTS_DENIED:
        return f"port {port} is refused: it is not for HTTP"
    try:
        ip = ip_address(address)
    except ValueError:
        return f"{address[:64]!r} is refused: not a plain IP address"
    why = _reason(ip, allow)
    return f"{ip} is refused: {why}" if why else None


def _reason(ip: Address, allow: Sequence[Network]) -> str | None:
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped:  # the kernel speaks IPv4 to these, so the IPv4 rules decide
            return _reason(ip.ipv4_mapped, allow)
        ip = IPv6Address(int(ip))  # without a zone, which would hide it from the list
    if any(ip in network for network in allow):
        return None
    for network, why in _DENIED:
        if ip in network:
            return f"it is {why}{_way_out(network)}" if why in _INSIDE else why
    if ip in _NAT64:  # on networks without IPv4 the whole public Internet looks like this
        return _reason(IPv4Address(int(ip) & 0xFFFF_FFFF), allow)
    public = ip.is_global and (ip.version == 4 or ip in _UNICAST_6)
    return None if public else "not a public address"


def _way_out(network: Network) -> str:
    setting = f"PENSTOCK_EGRESS__ALLOW='[\"{network}\"]'"
    return f"; an operator can allow it with egress.allow ({setting})"


def url_refusal(url: str, allow: Sequence[Network] | None = None) -> str | None:
    """Why we don't call `url`, or None. With `allow`, an address or local name in it is judged too.

    Names are not looked up here: what they lead to is judged when it is connected to.
    """
    try:
        parsed_url(url, allow)
    except EgressRefused as refused:
        return str(refused)
    return None


def parsed_url(url: str, allow: Sequence[Network] | None = None) -> URL:
    """`url` as the client will read it: judged and called by one and the same parser."""
    if len(url) > URL_MAX:
        raise EgressRefused(f"the URL is longer than {URL_MAX} characters")
    if _BAD_IN_URL.search(url):
        raise EgressRefused("the URL contains a space, a control character or a backslash")
    try:
        parsed = URL(url)
    except ValueError:  # its text may show the URL, and with it a secret
        raise EgressRefused("the URL is malformed") from None
    why = _form_fault(parsed) or _host_fault(parsed, allow)
    if why:
        raise EgressRefused(why)
    return _unchanged(parsed, url)


def _unchanged(parsed: URL, url: str) -> URL:
    """`parsed` with path and query as they were written, if they are well-formed.

    The parser unquotes what needs no quoting, which would break signed URLs. The origin stays the
    one that was judged: what is put behind it begins with a slash.
    """
    target = re.sub(r"^[^:]*://[^/?#]*", "", url.partition("#")[0])
    if not _TARGET.fullmatch(target) or "/." in target:
        return parsed
    slash = "" if target.startswith("/") else "/"
    return URL(f"{parsed.origin()}{slash}{target}", encoded=True)


def _form_fault(url: URL) -> str | None:
    if url.scheme not in ("http", "https"):
        return "the URL must begin with http:// or https://"
    if url.raw_user is not None or url.raw_password is not None or "@" in url.raw_authority:
        return "the URL must not carry a user or password; send a header instead"
    if url.port in PORTS_DENIED:
        return f"port {url.port} is refused: it is not for HTTP"
    return None


def _host_fault(url: URL, allow: Sequence[Network] | None) -> str | None:
    host = url.raw_host
    if not host or len(host) > HOST_MAX:
        return "the URL has no host, or too long a one"
    if ":" in host:
        return _literal_fault(host, url.port, allow)
    if not _HOST.fullmatch(host) or ".." in host:
        return "the URL's host is neither a name nor an address"
    if _ENDS_IN_NUMBER.fullmatch(host):
        return _literal_fault(host, url.port, allow)
    return _name_fault(host.rstrip("."), allow)


def _literal_fault(host: str, port: int | None, allow: Sequence[Network] | None) -> str | None:
    """Short and odd forms (127.1, 0x7f.1, zones) are refused: programs disagree on them."""
    try:
        ip = ip_address(host)
    except ValueError:
        return "the URL's host is not a plain IP address"
    if "%" in host:
        return "the URL's address must not have a zone"
    return None if allow is None else refusal(str(ip), port, allow)


def _name_fault(name: str, allow: Sequence[Network] | None) -> str | None:
    if allow is None:
        return None
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: loopback, whatever DNS says
        inside = refusal("127.0.0.1", None, allow) and refusal("::1", None, allow)
        return f"{name} is refused: it is loopback{_way_out(_LOOPBACK)}" if inside else None
    if name in _METADATA_NAMES:
        return f"{name} is refused: a cloud's metadata"
    return None


def header_refusal(name: str, value: str = "") -> str | None:
    """Why we don't send this header, or None."""
    if not _TOKEN.fullmatch(name):
        return "not a header's name"
    if name.lower() in _HEADERS_DENIED:
        return "this header is set by the client itself"
    if len(value) > HEADER_MAX:
        return f"the value is longer than {HEADER_MAX} characters"
    if _BAD_IN_HEADER.search(value):
        return "the value contains a line break or a control character"
    return None
