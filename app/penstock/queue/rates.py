"""The budgets of callers, which all replicas share; one Lua script.

In: who, by which rule, how much. Out: what he got. What Redis loses makes budgets whole.
"""

from dataclasses import dataclass

from penstock.domain.rate import RateRule
from penstock.queue import keys
from penstock.queue.redis import RedisDoor

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Taken:
    """`wait_s`: until what was needed is there; then `units` is 0."""

    units: int
    wait_s: float
    whole_in_s: float


class Rates:
    def __init__(self, door: RedisDoor) -> None:
        self._door = door

    @property
    def away(self) -> bool:
        """True while Redis was found to be away."""
        return self._door.is_open

    async def take(
        self, rule: RateRule, sub: str, needed: int, wanted: int = 0, back: int = 0
    ) -> Taken:
        """Takes what is needed, or nothing; with it what is `wanted` beyond, as far as it goes;
        after `back`, which was taken and not used. Raises QueueUnavailable."""
        units, wait_us, whole_us = await self._door.script(
            "rate",
            [keys.rate(rule.counts, sub)],
            [needed, wanted, back, rule.unit_s * _US, rule.burst],
        )
        return Taken(units, wait_us / _US, whole_us / _US)
