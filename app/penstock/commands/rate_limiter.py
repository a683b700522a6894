"""Rate limits: how much each caller may still ask, of all replicas together.

In: a caller, what he asks for. Out: where his budget stands, and whether that was enough. Always
holds: what is let in was taken from the budget in Redis before, so all replicas together let in
what the rule says; who asks much is lent some units ahead, for `_LEASE_S`, so that not each request
waits for Redis; while Redis is away this replica goes by what it let in itself, by the same rule:
never open. If we die, what was lent is spent: `_LENT_SHARE` of the burst at most.
Decision 0026.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock import clock
from penstock.domain import rate
from penstock.domain.caller import Caller
from penstock.domain.errors import QueueUnavailable
from penstock.domain.rate import Counts, RateRule, Standing
from penstock.queue.rates import Rates, Taken
from penstock.telemetry.metrics import Metrics

_LEASE_S = 0.25
_LENT_SHARE = 10  # of the burst, one part in so many is lent at most
_BUDGETS_MAX = 10_000  # that we remember


@dataclass(slots=True)
class _Budget:
    """What this replica knows of one budget; times are ours."""

    lent: int = 0
    lent_until: float = 0.0
    used: int = 0  # of what was lent, since Redis was last asked
    asked_at: float = float("-inf")
    whole_at: float = 0.0  # by all that Redis told us of
    own_whole_at: float = 0.0  # by what we let in ourselves
    refused: int = 0  # units that weren't there ...
    refused_until: float = 0.0  # ... and are not before then
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def has(self, units: int, now: float) -> bool:
        return self.lent >= units and now < self.lent_until

    def spend(self, rule: RateRule, units: int, now: float) -> None:
        self.lent -= units
        self.used += units
        self.own_whole_at = rate.spent(rule, self.own_whole_at, units, now)

    def lend(self, taken: Taken, now: float) -> None:
        self.lent, self.lent_until, self.used = taken.units, now + _LEASE_S, 0
        self.asked_at, self.whole_at = now, now + taken.whole_in_s

    def refuse(self, rule: RateRule, units: int, until: float) -> None:
        self.refused, self.refused_until = min(units, rule.burst), until

    def start_over(self) -> None:
        """By another rule: what was lent or refused by the old one says nothing any more."""
        self.lent = self.used = 0
        self.refused_until = 0.0

    def still_refused_s(self, rule: RateRule, units: int, now: float) -> float:
        """How long it is known that so many aren't there; 0: nobody knows."""
        beyond = min(units, rule.burst) - self.refused
        if beyond < 0 or now >= self.refused_until:
            return 0.0
        return self.refused_until - now + beyond * rule.unit_s

    def standing(self, rule: RateRule, now: float, wait_s: float = 0.0) -> Standing:
        return rate.standing(rule, self.whole_at - self.lent * rule.unit_s, now, wait_s)

    def wants(self, rule: RateRule, now: float) -> int:
        """Units to borrow ahead: twice what was used since the last time, while he asks much."""
        if now - self.asked_at > 2 * _LEASE_S:
            return 0
        return min(2 * self.used, rule.burst // _LENT_SHARE)


class RateLimiter:
    """One for the whole door. `rules`: the first that fits a caller is his."""

    def __init__(self, rates: Rates, rules: Sequence[RateRule], metrics: Metrics) -> None:
        self.rules = tuple(rules)
        self._rates = rates
        self._metrics = metrics
        self._budgets: dict[tuple[Counts, str], _Budget] = {}

    def change(self, rules: Sequence[RateRule]) -> None:
        """Other rules from now on, or the same, as after each look at the settings. What was spent
        by the old ones stays spent, also while Redis is away."""
        if self.rules == (given := tuple(rules)):
            return
        self.rules = given
        for budget in self._budgets.values():
            budget.start_over()

    def rule(self, counts: Counts, caller: Caller) -> RateRule | None:
        return rate.rule_for(self.rules, counts, caller) if self.rules else None

    async def look(self, rule: RateRule, sub: str) -> Standing:
        """Whether one unit is there; spends nothing."""
        return await self._take(rule, sub, 1, 0)

    async def take(self, rule: RateRule, sub: str, units: int) -> Standing:
        """Spends so many units, or none."""
        return await self._take(rule, sub, units, units)

    async def _take(self, rule: RateRule, sub: str, needed: int, units: int) -> Standing:
        budget = self._budget(rule, sub)
        now = clock.monotonic()
        if not budget.has(needed, now):
            async with budget.turn:  # another of his requests may be borrowing for this one, too
                now = clock.monotonic()
                if not budget.has(needed, now):
                    refusal = await self._borrow(budget, rule, sub, (needed, units))
                    if refusal is not None:
                        return refusal
                    now = clock.monotonic()
        budget.spend(rule, units, now)
        return budget.standing(rule, now)

    async def _borrow(
        self, budget: _Budget, rule: RateRule, sub: str, asked: tuple[int, int]
    ) -> Standing | None:
        """Has Redis lend what is needed, or answers how it stands without."""
        needed, units = asked
        now = clock.monotonic()
        wait_s = budget.still_refused_s(rule, needed, now)
        if wait_s > 0:
            return budget.standing(rule, now, wait_s)
        if self._rates.away:  # others find out when it is back: no caller has to wait for that
            return self._alone(budget, rule, needed, units)
        wants, back, budget.lent = budget.wants(rule, now), budget.lent, 0
        try:
            taken = await self._rates.take(rule, sub, needed, wants, back)
        except QueueUnavailable:
            return self._alone(budget, rule, needed, units)
        now = clock.monotonic()
        budget.lend(taken, now)
        if taken.wait_s > 0:
            budget.refuse(rule, needed, now + taken.wait_s)
            return budget.standing(rule, now, taken.wait_s)
        return None

    def _alone(self, budget: _Budget, rule: RateRule, needed: int, units: int) -> Standing:
        """The same rule, by what we let in ourselves."""
        self._metrics.rates_alone.inc()
        now = clock.monotonic()
        budget.lent = 0
        wait_s = rate.wait_s(rule, budget.own_whole_at, needed, now)
        if not wait_s:
            budget.own_whole_at = rate.spent(rule, budget.own_whole_at, units, now)
        return rate.standing(rule, budget.own_whole_at, now, wait_s)

    def _budget(self, rule: RateRule, sub: str) -> _Budget:
        key = (rule.counts, sub)
        budget = self._budgets.get(key)
        if budget is None:
            if len(self._budgets) >= _BUDGETS_MAX:
                del self._budgets[next(iter(self._budgets))]
            budget = self._budgets[key] = _Budget()
        return budget
