"""How many retries of one kind fall due in a time: a token bucket. Pure: clock and chance come in.

When thousands of jobs fail for one cause, their back-offs end within seconds of each other, and
whoever was submitted meanwhile would stand behind all of them. So retries beyond the budget move
out, evenly, each later than the one before; none is refused, none comes earlier than its back-off
says. Of `burst` at once the first 100 aren't moved, the others come at 500 a second: they would
hold up others too if they came with the speed at which they failed. At a rate of `min_per_s`
nothing is moved: who has few jobs never meets this. Sources: SRE book, "Handling Overload" (retry
budgets); decision 0015.
"""

from dataclasses import dataclass

_RECENT_S = 10.0  # starts longer ago than this count for little
_AT_ONCE = 100  # of a burst
_BURST_PER_S = 500.0  # the others of it, where the budget doesn't allow more


@dataclass(frozen=True, slots=True)
class BudgetRules:
    """Retries a second: `share` of the recent starts, at least `min_per_s`. `burst`: retries that
    need no budget when there were few lately. `spread_max_s`: none moves out further; 0: none
    moves at all."""

    share: float
    min_per_s: float
    burst: int
    spread_max_s: float


class RetryBudget:
    """Of one kind on one replica. Times are seconds of any clock that doesn't go back."""

    def __init__(self, rules: BudgetRules, now: float) -> None:
        self._rules = rules
        self._starts_per_s = 0.0
        self._tokens = float(rules.burst)  # below 0: retries that were promised a later time
        self._at = now
        self._burst_ends = now

    @property
    def per_s(self) -> float:
        """Retries a second that the budget allows just now."""
        return max(self._starts_per_s * self._rules.share, self._rules.min_per_s)

    def count(self, starts: int, now: float) -> None:
        """So many attempts of this kind were started, or came to their end."""
        self._pass(now)
        self._starts_per_s += starts / _RECENT_S

    def moves_s(self, now: float, chance: float) -> float:
        """How much later than its back-off says one more retry is due. `chance` in [0, 1)."""
        self._pass(now)
        longest = self._rules.spread_max_s
        wait = max(1.0 - self._tokens, 0.0) / self.per_s
        if wait > longest:  # there is no room left, so anywhere in it
            return longest * chance
        self._tokens -= 1.0
        per_s = max(_BURST_PER_S, self.per_s)
        burst = self._burst_ends - now - _AT_ONCE / per_s
        self._burst_ends = max(self._burst_ends, now + wait) + 1.0 / per_s
        return min(max(wait, burst), longest)

    def _pass(self, now: float) -> None:
        """What time does: tokens come, starts are forgotten."""
        passed = max(now - self._at, 0.0)
        self._tokens = min(self._tokens + passed * self.per_s, float(self._rules.burst))
        self._starts_per_s /= 1.0 + passed / _RECENT_S
        self._at = max(now, self._at)
