"""Queues whose shelves are not whole: reported by whoever notices, mended by the reconciler."""

import asyncio
from collections.abc import Iterable


class Missing:
    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._queues: set[str] = set()

    def report(self, queues: Iterable[str]) -> None:
        before = len(self._queues)
        self._queues.update(queues)
        if len(self._queues) > before:
            self.wake.set()

    def take(self) -> set[str]:
        """All that was reported since the last time."""
        taken, self._queues = self._queues, set()
        return taken
