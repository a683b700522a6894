"""The only way out by HTTP: what may be reached, and the client that keeps to it."""

from penstock.egress.client import Egress
from penstock.egress.errors import EgressError, EgressRefused
from penstock.egress.guard import Network, header_refusal, networks, refusal, url_refusal
from penstock.egress.pinned import fetched, pinned
from penstock.egress.response import Response
from penstock.egress.retrying import is_transient, retry_after_s

__all__ = [
    "Egress",
    "EgressError",
    "EgressRefused",
    "Network",
    "Response",
    "fetched",
    "header_refusal",
    "is_transient",
    "networks",
    "pinned",
    "refusal",
    "retry_after_s",
    "url_refusal",
]
