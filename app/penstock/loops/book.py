"""The replica's copy of the queues' settings: who is paused, what a step of priority is worth.

The truth is `queues` in Postgres (start joins it); the copy spares claims that start would refuse.
Read again on a message and once a second.
"""

import asyncio
from collections.abc import Callable

from penstock import clock
from penstock.store.queues import Queues, QueueSettings

_PAUSE_S = 1.0
_SHARE = 50  # with ten thousand queues it takes a fiftieth of the time, not a fifth


class QueueBook:
    def __init__(self, queues: Queues, default_aging_s: float) -> None:
        self._queues = queues
        self._copy: dict[str, QueueSettings] = {}
        self.wake = asyncio.Event()
        self._default = QueueSettings(paused=False, priority_aging_s=default_aging_s)

        self.on_change: Callable[[list[str]], None] = lambda _queues: None

    async def step(self) -> float:
        began = clock.monotonic()
        fresh = await self._queues.settings()
        changed = [name for name, one in fresh.items() if self._copy.get(name) != one]
        self._copy = fresh
        if changed:
            self.on_change(changed)
        return max(_PAUSE_S, _SHARE * (clock.monotonic() - began))

    def names(self) -> list[str]:
        return list(self._copy)

    def paused(self, queue: str) -> bool:
        return self._copy.get(queue, self._default).paused

    def aging_ms(self, queue: str) -> float:
        return self._copy.get(queue, self._default).aging_ms
