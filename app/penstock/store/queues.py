"""Queues in Postgres: known names, the pause switch, settings, and counting."""

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.store.postgres import Postgres


@dataclass(frozen=True, slots=True)
class QueueSettings:
    paused: bool
    priority_aging_s: float

    @property
    def aging_ms(self) -> float:
        return self.priority_aging_s * 1000


class Queues:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres
        self._known: set[str] = set()

    async def ensure(self, names: Iterable[str]) -> None:
        """Enters names that this replica hasn't seen yet."""
        new = sorted(set(names) - self._known)
        if new:
            await self._pg.rows("add_queues", new)
            self._known.update(new)

    async def set_paused(self, name: str, *, paused: bool) -> None:
        await self._pg.rows("set_paused", name, paused)
        self._known.add(name)

    async def settings(self) -> dict[str, QueueSettings]:
        found = await self._pg.rows("queue_settings")
        return {row[0]: QueueSettings(row[1], row[2]) for row in found}

    async def fold_counts(self) -> None:
        await self._pg.rows("fold_counts")
