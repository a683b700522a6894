"""Whom we can tell: which channels are configured here, and which endpoints on them are taken.

In: a channel and an endpoint as it was asked for, by a caller or by a rule of the configuration.
Out: why not, or None. What a name leads to is judged again when it is connected to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from penstock.domain import address
from penstock.domain.effect import Channel, Rule, Wish
from penstock.domain.errors import WrongSetting
from penstock.egress import Network, url_refusal


@dataclass(frozen=True, slots=True)
class Reach:
    """`allow`: networks besides public addresses; `hooks`: whether there is a key to sign webhooks
    with; `schemes`: what their URLs may begin with; `mails`: whether there is a server for mail."""

    allow: Sequence[Network] = ()
    hooks: bool = False
    mails: bool = False
    schemes: tuple[str, ...] = ("https",)

    def __call__(self, channel: Channel, endpoint: str) -> str | None:
        match channel:
            case Channel.WEBHOOK if not self.hooks:
                return (
                    "can't be served: this server calls no webhooks until an operator sets "
                    "webhook.secrets, to sign them with: "
                    """PENSTOCK_WEBHOOK__SECRETS='["whsec_…"]', each from """
                    'echo "whsec_$(openssl rand -base64 32)"'
                )
            case Channel.WEBHOOK:
                return url_refusal(endpoint, self.allow) or self._scheme_fault(endpoint)
            case Channel.EMAIL if not self.mails:
                return "can't be served: this server sends no mail until an operator sets smtp.host"
            case Channel.EMAIL:
                return address.refusal(endpoint)
            case Channel.DEAD_LETTER:
                return "is not for callers"

    @property
    def channels(self) -> list[Channel]:
        """Those that can be asked for."""
        asked = ((Channel.WEBHOOK, self.hooks), (Channel.EMAIL, self.mails))
        return [channel for channel, is_there in asked if is_there]

    def demand(self, rules: Iterable[Rule], wishes: Iterable[tuple[str, Wish]] = ()) -> None:
        """Raises WrongSetting for a rule that could tell nobody, or a wish of the settings, which
        come with their keys."""
        asked = [(f"notifications.rules: {rule.name}", rule.wish) for rule in rules]
        for key, wish in [*asked, *wishes]:
            why = self(wish.channel, wish.endpoint)
            if why is not None:
                raise WrongSetting(f"{key}: its {wish.channel} {why}")

    def _scheme_fault(self, url: str) -> str | None:
        if urlsplit(url).scheme.lower() in self.schemes:
            return None
        return f"the URL must begin with {' or '.join(f'{it}://' for it in self.schemes)}"
