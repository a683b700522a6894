"""What is kept for a time: ended jobs with all that belongs to them, answers of requests."""

from dataclasses import dataclass
from datetime import datetime

from penstock.domain.job import State
from penstock.store.postgres import Postgres


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many jobs a step deleted, and when the last of them had ended."""

    count: int
    last: datetime | None


class Retention:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def prune_ended(
        self, state: State, older_s: float, since: datetime, rows_max: int
    ) -> Pruned:
        """Deletes the oldest jobs of a state that ended more than `older_s` seconds ago, whole,
        but for those that ended before `since`."""
        found = await self._pg.rows(
            "prune_ended", state, older_s, since, rows_max, point="after_prune"
        )
        return Pruned(found[0][0], found[0][1])

    async def prune_idempotency_keys(self, older_s: float, rows_max: int) -> int:
        """Deletes the oldest stored answers; how many it were."""
        return int(await self._pg.value("prune_idempotency_keys", older_s, rows_max))
