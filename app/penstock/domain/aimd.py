"""How many may be under way at once, learned from how long each takes. Pure: the clock comes in.

Additive increase, multiplicative decrease, as TCP finds its window: what takes too long makes the
limit smaller by a part, once for all that were under way together; what is in time while the limit
is made use of makes it larger by a little. No guess at a rate is needed, which depends on the
machine, on PostgreSQL and on what else is done. What is counted, requests or jobs, is all one to
it. Source: Chiu and Jain, 1989; Netflix, "Performance Under Load" (adaptive concurrency limits).
"""

_CUT = 0.8
_STEP = 0.25  # for each that was in time: from 64 to 256 in some 770


class Aimd:
    """`limit` stays between `least` and `most`, and begins at `first`, else at `most`.
    `takes_max_s`: what is late."""

    def __init__(self, least: int, most: int, takes_max_s: float, first: int | None = None) -> None:
        self._least = min(least, most)
        self._most = most
        self._takes_max_s = takes_max_s
        self._limit = float(most if first is None else min(first, most))
        self._cut_at = float("-inf")

    @property
    def limit(self) -> int:
        return int(self._limit)

    def ended(self, under_way: int, count: int, began: float, now: float) -> None:
        """So many that began together at `began` have ended, of those that were under way."""
        if now - began > self._takes_max_s:
            if began >= self._cut_at:  # else it was under way at the last cut, which has counted it
                self._cut_at = now
                self._limit = max(self._limit * _CUT, self._least)
        elif under_way * 2 > self._limit:
            self._limit = min(self._limit + _STEP * count, self._most)
