"""The safety net under all wake-ups: looks at every queue's shelves in a few round trips.

What it finds it reports to whoever acts on it: ready jobs to the worker, due times to the
promoter, leases that are over and queues without a marker to those who mend them.
"""

import random
from collections.abc import Callable, Iterable

from penstock import clock
from penstock.loops.missing import Missing
from penstock.loops.parts import Parts

_ROUND_S = 2.0
_SHARE = 50  # a survey takes at most a fiftieth of the time, however many queues there are


class Surveyor:
    """`on_ready(queues)`, `on_due(queue, in_s)` and `on_expired(queue)` are set by engine.py."""

    def __init__(self, parts: Parts, kinds: Iterable[str], missing: Missing) -> None:
        self._parts = parts
        self._kinds = tuple(kinds)
        self._missing = missing
        self.on_ready: Callable[[Iterable[str]], None] = lambda _queues: None
        self.on_due: Callable[[str, float], None] = lambda _queue, _in_s: None
        self.on_expired: Callable[[str], None] = lambda _queue: None

    async def step(self) -> float:
        began = clock.monotonic()
        found = await self._parts.shelves.survey(self._parts.book.names(), self._kinds)
        self._missing.report([one.queue for one in found if not one.marked])
        self.on_ready([one.queue for one in found if one.ready])
        for one in found:
            if one.due_in_s is not None:
                self.on_due(one.queue, one.due_in_s)
            if one.expired:
                self.on_expired(one.queue)
        pause = max(_ROUND_S, _SHARE * (clock.monotonic() - began))
        return pause * random.uniform(0.75, 1.25)
