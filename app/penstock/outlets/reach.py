"""Whom we can tell: which endpoints are taken when somebody asks to be told.

In: a channel and an endpoint as it was asked for. Out: why not, or None. What a name leads to is
judged again when it is connected to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.domain import address
from penstock.domain.effect import Channel
from penstock.egress import Network, url_refusal


@dataclass(frozen=True, slots=True)
class Reach:
    """`allow`: networks besides public addresses; `mails`: whether there is a server for mail."""

    allow: Sequence[Network] = ()
    mails: bool = False

    def __call__(self, channel: Channel, endpoint: str) -> str | None:
        match channel:
            case Channel.WEBHOOK:
                return url_refusal(endpoint, self.allow)
            case Channel.EMAIL if not self.mails:
                return "can't be served: this server sends no mail until an operator sets smtp.host"
            case Channel.EMAIL:
                return address.refusal(endpoint)
            case Channel.DEAD_LETTER:
                return "is not for callers"
