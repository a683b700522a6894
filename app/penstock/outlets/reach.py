"""Which channels can be asked for here, and which receivers on them: what the door refuses.

In: the configuration. Out: why nobody can be told by that channel, or there. Addresses that names
lead to are judged when they are connected to, not here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from penstock.domain.address import address_refusal
from penstock.domain.effect import Channel, Rule
from penstock.domain.errors import WrongSetting
from penstock.egress import Network, networks, url_refusal

_NEEDS = {
    Channel.WEBHOOK: "no webhooks here: the operator has to set webhook.secrets, to sign them with",
    Channel.EMAIL: "no e-mail here: the operator has to set smtp.host",
    Channel.DEAD_LETTER: "dead letters go where the operator says",
}


@dataclass(frozen=True, slots=True)
class Reach:
    """`channels`: those that are configured. `schemes`: of webhooks' URLs. `allow`: networks that
    may be called besides public addresses."""

    channels: frozenset[Channel]
    schemes: tuple[str, ...] = ("https",)
    allow: tuple[Network, ...] = ()

    @classmethod
    def of(
        cls, channels: Iterable[Channel], schemes: Sequence[str], cidrs: Iterable[str]
    ) -> "Reach":
        return cls(frozenset(channels), tuple(schemes), networks(cidrs))

    def refusal(self, channel: Channel, endpoint: str) -> str | None:
        """Why that endpoint can't be told by that channel, or None."""
        if channel not in self.channels or channel is Channel.DEAD_LETTER:
            return _NEEDS[channel]
        if channel is Channel.EMAIL:
            return address_refusal(endpoint)
        return url_refusal(endpoint, self.allow) or self._scheme_fault(endpoint)

    def demand(self, rules: Iterable[Rule]) -> None:
        """Raises WrongSetting for a rule that could tell nobody."""
        for rule in rules:
            why = self.refusal(rule.wish.channel, rule.wish.endpoint)
            if why:
                raise WrongSetting(f"notifications.rules: {rule.name}: {why}")

    def _scheme_fault(self, url: str) -> str | None:
        if urlsplit(url).scheme.lower() in self.schemes:
            return None
        return f"the URL must begin with {' or '.join(f'{it}://' for it in self.schemes)}"
