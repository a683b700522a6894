"""Documents at a URL that the operator has pinned: the key set of tokens.

In: the URL. Out: the document, or KeysUnavailable with what went wrong. Always holds: the URL comes
from the settings, never from a token or a caller, so it may lead into the operator's own networks,
where identity providers stand; to a cloud's metadata or a port that isn't for HTTP it may not, and
a redirect is no answer. Decision 0026.
"""

from penstock.domain.errors import KeysUnavailable
from penstock.egress.client import Egress
from penstock.egress.errors import EgressError, EgressRefused
from penstock.egress.guard import OWN_NETWORKS

_CONNECTIONS = 2
_ACCEPT = {"Accept": "application/jwk-set+json, application/json"}
_OK = 200


def pinned(connect_timeout_s: float) -> Egress:
    """A client for `fetched`."""
    return Egress(OWN_NETWORKS, connect_timeout_s=connect_timeout_s, connections_max=_CONNECTIONS)


async def fetched(http: Egress, url: str, bytes_max: int, timeout_s: float) -> bytes:
    """What is there. Raises KeysUnavailable where that isn't one whole document."""
    try:
        answer = await http.request(
            "GET", url, _ACCEPT, timeout_s=timeout_s, response_max_bytes=bytes_max
        )
    except (EgressRefused, EgressError) as error:
        raise KeysUnavailable(str(error)) from error
    if answer.status != _OK:
        raise KeysUnavailable(f"it answered {answer.status} where 200 was wanted")
    if answer.truncated:
        raise KeysUnavailable(f"it is larger than auth.jwks_max_bytes ({bytes_max})")
    return answer.body
