"""What readers ask Postgres for: a job, its attempts and logs, queues with their counts."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from penstock import clock
from penstock.domain.ids import JobId, created_ms
from penstock.domain.job import State
from penstock.domain.view import AttemptView, JobView, LogView, ProgressView, QueueView
from penstock.store import rows
from penstock.store.health import Health
from penstock.store.postgres import Postgres, Record

_COUNT_AGE_S = 1.0  # live counts are counted at most once a second,
_COUNT_SHARE = 20  # and take at most a twentieth of the time, however large the backlog is
_MINUTE_S = 60.0

_Counts = tuple[list[Record], list[Record]]  # rows of live_counts and of ended_counts


class Reads:
    """Raises StoreUnavailable within a second when Postgres doesn't answer."""

    def __init__(self, postgres: Postgres, health: Health) -> None:
        self._pg = postgres
        self._health = health
        self._counting: asyncio.Future[_Counts] | None = None
        self._counts_until = 0.0

    async def job(self, id_: JobId) -> JobView | None:
        found = await self._read("job", id_)
        return _job(found[0]) if found else None

    async def attempts(self, id_: JobId) -> list[AttemptView]:
        return [AttemptView(*row) for row in await self._read("attempts", id_)]

    async def logs(self, id_: JobId) -> list[LogView]:
        return [LogView(*row) for row in await self._read("logs", id_)]

    async def ended_among(self, ids: Sequence[JobId]) -> list[JobId]:
        return [JobId(row[0]) for row in await self._read("ended_among", ids)]

    async def queue(self, name: str) -> QueueView | None:
        return next((one for one in await self.queues() if one.name == name), None)

    async def queues(self) -> list[QueueView]:
        """All queues that ever were, by name."""
        settings = await self._read("queue_settings")
        live, ended = await self._counted()
        counts: dict[str, dict[State, int]] = defaultdict(lambda: dict.fromkeys(State, 0))
        oldest: dict[str, float] = {}
        recent: dict[tuple[str, str], int] = {}
        for queue, state, count, age in live:
            counts[queue][State(state)] = count
            if state == State.READY:
                oldest[queue] = age
        for queue, state, count, last_minute in ended:
            counts[queue][State(state)] = count
            recent[queue, state] = last_minute
        return [
            QueueView(
                name=queue,
                paused=paused,
                priority_aging_s=aging_s,
                counts=counts[queue],
                oldest_ready_age_s=oldest.get(queue),
                succeeded_per_s=recent.get((queue, State.SUCCEEDED), 0) / _MINUTE_S,
                dead_per_s=recent.get((queue, State.DEAD), 0) / _MINUTE_S,
            )
            for queue, paused, aging_s in settings
        ]

    async def _read(self, query: str, *args: object) -> list[Record]:
        with self._health.watch():
            return await self._pg.read(query, *args)

    async def _counted(self) -> _Counts:
        """Live and ended counts, shared by all who ask at about the same time."""
        if self._counting is None or clock.monotonic() > self._counts_until:
            self._counts_until = float("inf")  # until this count is done, nobody starts another
            self._counting = asyncio.ensure_future(self._count())
        return await asyncio.shield(self._counting)

    async def _count(self) -> _Counts:
        began = clock.monotonic()
        try:
            return await self._read("live_counts"), await self._read("ended_counts")
        except BaseException:
            self._counting = None  # a failure is nothing to remember
            raise
        finally:
            spent = clock.monotonic() - began
            self._counts_until = began + max(_COUNT_AGE_S, _COUNT_SHARE * spent)


def _job(row: Record) -> JobView:
    return JobView(
        id=JobId(row["job_id"]),
        queue=row["queue"],
        kind=row["kind"],
        state=State(row["state"]),
        priority=row["priority"],
        payload=row["payload"],
        result=row["result"],
        error=row["error"],
        attempt=row["attempt"],
        failures=row["failures"],
        max_attempts=row["max_attempts"],
        on_lost=row["on_lost"],
        backoff=rows.backoff_from(row["backoff"]),
        timeout_s=row["timeout_s"],
        run_at=row["run_at"],
        created_at=datetime.fromtimestamp(created_ms(row["job_id"]) / 1000, UTC),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        reason=row["reason"],
        worker=row["worker_id"],
        tags=tuple(row["tags"] or ()),
        traceparent=row["traceparent"],
        created_by=row["created_by"],
        progress=None if (at := row["percent"]) is None else ProgressView(at, row["message"]),
    )
