"""How much a caller may ask: the generic cell rate algorithm (GCRA), pure.

A budget is one number: when it is whole again. Each unit that is spent moves that out by `unit_s`;
it may lie `burst` units ahead. `queue/lua/rate.lua` says the same of the budget that all replicas
share, by Redis' clock.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from penstock.domain.caller import Caller, Role


class Counts(StrEnum):
    """What a limit counts."""

    JOBS = "jobs"  # that are submitted: those of batches and workflows one by one
    CHANGES = "changes"  # other requests that change something
    READS = "reads"


@dataclass(frozen=True, slots=True)
class RateRule:
    """`limit` units in each `period_s`, `burst` at once; `sub` and `roles`: of whom."""

    counts: Counts
    limit: int
    period_s: float
    burst: int
    sub: re.Pattern[str] | None = None
    roles: frozenset[Role] = field(default=frozenset())

    @property
    def unit_s(self) -> float:
        return self.period_s / self.limit

    def is_for(self, caller: Caller) -> bool:
        is_his = self.sub is None or self.sub.match(caller.sub) is not None
        return is_his and (not self.roles or not self.roles.isdisjoint(caller.roles))


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget after a look at it. `wait_s`: until what was asked for is there; 0: it was."""

    left: int
    whole_in_s: float
    wait_s: float = 0.0


def rule_for(rules: Sequence[RateRule], counts: Counts, caller: Caller) -> RateRule | None:
    """The first that fits."""
    for rule in rules:
        if rule.counts is counts and rule.is_for(caller):
            return rule
    return None


def wait_s(rule: RateRule, whole_at: float, units: int, now: float) -> float:
    """Until so many can be spent; 0: now. More than `burst` can be when the budget is whole: the
    rest is a debt, which is paid off before anything else is let in."""
    ahead = max(whole_at - now, 0.0) + min(units, rule.burst) * rule.unit_s
    wait = ahead - rule.burst * rule.unit_s
    return wait if wait > 1e-9 else 0.0


def spent(rule: RateRule, whole_at: float, units: int, now: float) -> float:
    """When the budget is whole again, once so many are spent."""
    return max(whole_at, now) + units * rule.unit_s


def standing(rule: RateRule, whole_at: float, now: float, wait: float = 0.0) -> Standing:
    ahead = max(whole_at - now, 0.0)
    left = int((rule.burst * rule.unit_s - ahead) / rule.unit_s + 1e-6)
    return Standing(max(left, 0), ahead, wait)
