"""Queues in Postgres: known names, the pause switch, settings, and counting."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.domain.audit_log import Entry
from penstock.domain.errors import TooManyQueues
from penstock.store.audit_log import note, small_change
from penstock.store.postgres import Postgres


@dataclass(frozen=True, slots=True)
class QueueSettings:
    paused: bool
    priority_aging_s: float

    @property
    def aging_ms(self) -> float:
        """Whole, so that Python, Lua and SQL make the same scores with it; 0 is strict."""
        return float(max(round(self.priority_aging_s * 1000), 1)) if self.priority_aging_s else 0.0


class Queues:
    """`count_max`: so many names there may be; every loop looks at all of them."""

    def __init__(self, postgres: Postgres, count_max: int) -> None:
        self._pg = postgres
        self._count_max = count_max
        self._known: set[str] = set()

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those that this replica hasn't seen yet."""
        return sorted(set(names) - self._known)

    async def add(self, names: Sequence[str]) -> None:
        """Enters names; those that are there already stay as they are. Raises TooManyQueues."""
        await self._pg.rows("add_queues", names, self._count_max)
        there = {row[0] for row in await self._pg.rows("queues_among", names)}
        self._known.update(there)
        if len(there) < len(names):
            raise TooManyQueues(self._count_max)

    async def set_paused(self, name: str, *, paused: bool, entry: Entry | None = None) -> None:
        """Throws the switch of a queue, which is made if it is new. Raises TooManyQueues. `entry`:
        what the audit log tells of it."""
        await self.add([name])
        async with small_change(self._pg) as transaction:
            found = await transaction.rows("set_paused", name, paused)
            if found and entry is not None:
                await note(transaction, entry.changed("paused", found[0][0], paused))

    async def settings(self) -> dict[str, QueueSettings]:
        found = await self._pg.rows("queue_settings")
        return {row[0]: QueueSettings(row[1], row[2]) for row in found}

    async def fold_counts(self) -> None:
        await self._pg.rows("fold_counts")
