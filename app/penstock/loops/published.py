"""The keys that others publish for their tokens (a JWK set): fetched by itself, kept, forgotten.

In: the set, by `fetch`. Out: `keys`; `on_change` when there are others than before. Always holds:
only this loop fetches, so there is one fetch at a time, and whoever misses a key causes one in
`cooldown_s` at most, however many miss however many; what can't be fetched stays as it was for
`stale_s` and is then forgotten; nobody's start waits for it. Nothing is stored: if we die, the next
start fetches. Decision 0026.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from penstock import clock, keys
from penstock.domain.errors import KeysUnavailable
from penstock.keys import KeyRefused, PublicKey
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

PATIENCE_S = 2.0  # that a caller whose key is missing waits for a fetch
_TURN_S = 60.0  # longest pause between two looks at the clock
_TOLD_MAX = 10  # keys that are passed over, in a log line

Fetch = Callable[[], Awaitable[bytes]]  # raises KeysUnavailable

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the set is, and how long it counts."""

    fetch: Fetch
    ttl_s: float = 600.0
    stale_s: float = 24 * 3600.0
    cooldown_s: float = 30.0
    keys_max: int = 100


class Published:
    """One key set, or none: then `source` is None, and nothing is ever fetched."""

    def __init__(
        self,
        source: Source | None,
        metrics: Metrics,
        now_s: Callable[[], float] = clock.monotonic,
    ) -> None:
        self.keys: tuple[PublicKey, ...] = ()
        self.why = "it has not been fetched yet"  # there is no newer set; "" if there is one
        self.on_change: Callable[[], None] = lambda: None
        self.wake = asyncio.Event()
        self._source = source
        self._metrics = metrics
        self._now_s = now_s
        self._failures = 0
        self._passed_over: tuple[str, ...] = ()
        self._fetched_at: float | None = None
        self._due_at = self._asked_at = float("-inf")
        self._is_wanted = self._is_asking = False
        self._answered = asyncio.Event()  # of the fetch that is under way, or the next one
        metrics.jwks_age.set_function(self._age_s)

    @property
    def is_on(self) -> bool:
        return self._source is not None

    @property
    def is_uncertain(self) -> bool:
        """Whether there may be keys that we would know if the set could be fetched."""
        return self.is_on and bool(self.why)

    def change(self, source: Source | None) -> None:
        """From another place, or by other rules, from now on; keys of the old place are void."""
        self._source = source
        self._fetched_at, self._failures = None, 0
        self.why = "it has not been fetched yet"
        self._due_at = self._asked_at = float("-inf")
        self._take(())
        self.wake.set()

    async def look_again(self) -> None:
        """For who misses a key: returns when the set has been fetched anew, at once where it was
        a moment ago, and in any case soon."""
        source = self._source
        if source is None:
            return
        if not self._is_asking:
            if self._now_s() - self._asked_at < source.cooldown_s:
                return
            self._is_wanted = True
            self.wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._answered.wait()

    async def step(self) -> float:
        """Fetches the set if it is due, or missed; answers how long to pause."""
        source = self._source
        if source is None:
            return _TURN_S
        if self._is_wanted or self._now_s() >= self._due_at:
            self._is_wanted, self._is_asking = False, True
            self._asked_at = self._now_s()
            try:
                await self._fetch(source)
            finally:
                self._is_asking = False
                self._answered.set()
                self._answered = asyncio.Event()
        return min(max(self._due_at - self._now_s(), 0.0), _TURN_S)

    async def _fetch(self, source: Source) -> None:
        found: tuple[PublicKey, ...] = ()
        passed_over: tuple[str, ...] = ()
        why, outcome = "", "fetched"
        try:
            data = await source.fetch()
            found, passed_over = await asyncio.to_thread(keys.of_published, data, source.keys_max)
        except KeysUnavailable as error:
            why, outcome = str(error), "failed"
        except KeyRefused as error:
            why, outcome = f"the key set at auth.jwks_url {error}", "unusable"
        if source is not self._source:  # it was changed meanwhile
            return
        self._metrics.jwks_fetches(outcome).inc()
        self.why = why
        if why:
            self._failed(source)
        else:
            self._took(source, found, passed_over)

    def _took(
        self, source: Source, found: tuple[PublicKey, ...], passed_over: tuple[str, ...]
    ) -> None:
        self._failures = 0
        self._fetched_at = self._now_s()
        self._due_at = self._fetched_at + source.ttl_s * random.uniform(0.9, 1.0)
        if self._take(found) | (passed_over != self._passed_over):
            self._passed_over = passed_over
            kids = [key.kid for key in found]
            log.info("jwks_fetched", kids=kids, passed_over=passed_over[:_TOLD_MAX])

    def _failed(self, source: Source) -> None:
        self._failures += 1
        pause_s = min(2.0 ** min(self._failures - 1, 10), source.cooldown_s)
        self._due_at = self._now_s() + pause_s * random.uniform(0.75, 1.0)
        age_s = self._age_s()
        log.warning("jwks_failed", why=self.why, failures=self._failures, keys=len(self.keys))
        if self.keys and age_s > source.stale_s:
            log.error("jwks_too_old", age_s=round(age_s), keys=len(self.keys))
            self._take(())

    def _take(self, found: tuple[PublicKey, ...]) -> bool:
        """Whether these are others than before."""
        if found == self.keys:
            return False
        self.keys = found
        self._metrics.jwks_keys.set(len(found))
        self.on_change()
        return True

    def _age_s(self) -> float:
        """Since the set was fetched; NaN while it never was."""
        return float("nan") if self._fetched_at is None else self._now_s() - self._fetched_at
