"""Who is let in, and how much he may ask, made and wired by hand: a part of `server.py`.

`change` takes other settings while the replica runs: keys, what a token must keep to, limits. Every
token is checked anew then.
"""

from collections.abc import Iterable
from functools import partial

from penstock.api.auth import TokenRules, Verifier, key_set
from penstock.commands.rate_limiter import RateLimiter
from penstock.egress import fetched
from penstock.loops.published import Published, Source
from penstock.loops.supervise import Loop
from penstock.queue.rates import Rates
from penstock.rooms import Rooms
from penstock.settings import Auth, RateLimits


class Access:
    """`loops` turn where there is an API."""

    def __init__(self, auth: Auth, rate_limits: RateLimits, rooms: Rooms) -> None:
        self._auth = auth
        self._rooms = rooms
        self.limiter = RateLimiter(Rates(rooms.redis), rate_limits.as_rules(), rooms.metrics)
        self.published = Published(self._source(), rooms.metrics)
        self.published.on_change = self._use
        self.verifier = Verifier(key_set(None), TokenRules(), published=self.published)
        self._use()

    def loops(self) -> Iterable[Loop]:
        yield Loop("jwks", self.published.step, self.published.wake)

    def degraded(self) -> list[str]:
        """What is missing that some tokens need."""
        return ["jwks"] if self.published.is_uncertain else []

    def change(self, auth: Auth, rate_limits: RateLimits) -> None:
        """By these settings from now on."""
        before, self._auth = self._auth, auth
        self.limiter.change(rate_limits.as_rules())
        if _place(before) != _place(auth):
            self.published.change(self._source())
        self._use()

    def _use(self) -> None:
        """All keys that there are now. Our own go before those of others by the same name."""
        auth = self._auth
        secret = auth.jwt_secret.get_secret_value() if auth.jwt_secret is not None else None
        own = [key for source in auth.public_keys for key in source.keys]
        names = {(key.algorithm, key.kid) for key in own}
        others = [key for key in self.published.keys if (key.algorithm, key.kid) not in names]
        rules = TokenRules(
            auth.issuer, auth.audience, auth.token_type, auth.token_max_age_s, auth.leeway_s
        )
        former = [one.get_secret_value() for one in auth.previous_secrets]
        self.verifier.change(key_set(secret, [*own, *others], former), rules)

    def _source(self) -> Source | None:
        auth = self._auth
        if auth.jwks_url is None:
            return None
        fetch = partial(
            fetched, self._rooms.pinned, auth.jwks_url, auth.jwks_max_bytes, auth.jwks_timeout_s
        )
        return Source(
            fetch, auth.jwks_ttl_s, auth.jwks_stale_s, auth.jwks_cooldown_s, auth.jwks_keys_max
        )


def _place(auth: Auth) -> tuple[object, ...]:
    return tuple(getattr(auth, name) for name in sorted(Auth.model_fields) if "jwks" in name)
