"""Endpoints that have just failed, and rest: many that hang must not take all lanes.

In: what came of tries. Out: who isn't to be tried just now. Kept by each relay for itself, and
forgotten with it, which costs one more try.
"""

from collections.abc import Callable
from dataclasses import dataclass

from penstock import clock

_FIRST_S = 1.0
_MAX_S = 300.0
_KEPT_MAX = 2000


@dataclass(frozen=True, slots=True)
class _Rest:
    failures: int
    until: float


class Rests:
    """`monotonic`: seconds that only grow."""

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._monotonic = monotonic
        self._rests: dict[str, _Rest] = {}

    def failed(self, endpoint: str, after_s: float = 0.0) -> None:
        """It rests for twice as long as the last time, or for as long as it asks for."""
        before = self._rests.pop(endpoint, None)
        failures = before.failures + 1 if before is not None else 1
        rest_s = max(min(_FIRST_S * 2.0 ** min(failures - 1, 20), _MAX_S), after_s)
        self._rests[endpoint] = _Rest(failures, self._monotonic() + rest_s)
        while len(self._rests) > _KEPT_MAX:
            del self._rests[next(iter(self._rests))]

    def works(self, endpoint: str) -> None:
        self._rests.pop(endpoint, None)

    def names(self) -> list[str]:
        """Who rests."""
        now = self._monotonic()
        return [name for name, rest in self._rests.items() if rest.until > now]

    def clear(self) -> None:
        """Ends all rests."""
        self._rests.clear()
