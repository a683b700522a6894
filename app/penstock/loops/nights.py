"""What rules hold till quiet hours are over goes out earlier where these are shortened.

In: the rules that count since a start or a reload. Out: what they hold for longer than they would
now is due at the end that counts now, where its rule is asked again. Always holds: a look costs
one statement, which goes by the line of each rule's endpoint; and looks are taken only for a while
after a change: so long other replicas may hold by the old rules. If we die here, the next start
looks.
"""

from penstock import clock
from penstock.loops.sieve import Sieve
from penstock.store.effects import Effects

LOOKS_S = 120.0  # after a change; replicas have the same settings within `config.poll_s`, 30 s
_AT_ONCE = 1000
_PAUSE_S = 5.0


class Nights:
    def __init__(self, effects: Effects, sieve: Sieve) -> None:
        self._effects = effects
        self._sieve = sieve

    async def step(self) -> float:
        if clock.monotonic() - self._sieve.used_since > LOOKS_S:
            return _PAUSE_S
        ends = self._sieve.quiet_ends(await self._effects.now())
        found = await self._effects.hasten(ends, _AT_ONCE) if ends else 0
        return 0.0 if found == _AT_ONCE else _PAUSE_S
