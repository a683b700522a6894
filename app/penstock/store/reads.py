"""What readers ask Postgres for: a job, its attempts and logs, queues and counts, workers."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from penstock import clock
from penstock.domain.autoscale import Capacity, Cluster, Load
from penstock.domain.ids import JobId, created_ms
from penstock.domain.job import State
from penstock.domain.terms import Current
from penstock.domain.view import (
    AttemptView,
    JobView,
    LogView,
    ProgressView,
    QueueView,
    WorkerView,
)
from penstock.outliving import heed, outlived
from penstock.store import rows
from penstock.store.health import Health
from penstock.store.postgres import Postgres, Record

_COUNT_AGE_S = 1.0  # live counts are counted at most once a second,
_COUNT_SHARE = 20  # and take at most a twentieth of the time, however large the backlog is
_MINUTE_S = 60.0
_LIVE = (State.READY, State.SCHEDULED, State.RUNNING, State.BLOCKED)  # as live_counts has them
_RAN = (State.SUCCEEDED, State.DEAD)
_STATES = {str(one): one for one in State}  # a fifth of what calling the enum costs

LIMIT_MAX = 200  # of a page


@dataclass(frozen=True, slots=True)
class _Counts:
    """Jobs by queue: how many in which state, how long the oldest ready one has waited, how many
    ended in a state within the last minute; and who runs them."""

    by_state: dict[str, dict[State, int]]
    oldest: dict[str, float]
    recent: dict[tuple[str, State], int]
    capacity: Sequence[Capacity] = ()
    busy: Mapping[str, int] = field(default_factory=dict)
    paused: Mapping[str, bool] = field(default_factory=dict)  # all queues that there are


class Reads:
    """Raises StoreUnavailable within a second when Postgres doesn't answer. `current`: what jobs go
    by that follow the configuration."""

    def __init__(self, postgres: Postgres, health: Health, current: Current | None = None) -> None:
        self._pg = postgres
        self._health = health
        self._current = current or Current()
        self._counting: asyncio.Future[_Counts] | None = None
        self._counts_until = 0.0
        self._last: _Counts | None = None
        self._last_until = 0.0

    async def job(self, id_: JobId) -> JobView | None:
        view = await self.job_as_asked(id_)
        return None if view is None else self._current.followed(view)

    async def job_as_asked(self, id_: JobId) -> JobView | None:
        """With what the configuration said of it when it was submitted."""
        found = await self._read("jobs", [id_], True)
        return job_view(found[0]) if found else None

    async def attempts(
        self, id_: JobId, after: int = 0, limit: int = LIMIT_MAX
    ) -> list[AttemptView]:
        """The first attempts after that number, oldest first."""
        return [AttemptView(*row) for row in await self._read("attempts", id_, after, limit)]

    async def logs(
        self, id_: JobId, after: tuple[int, int] = (0, -1), limit: int = LIMIT_MAX
    ) -> list[LogView]:
        """The first lines after that one (its attempt and its number in it), oldest first."""
        return [LogView(*row) for row in await self._read("logs", id_, *after, limit)]

    async def ended_among(self, ids: Sequence[JobId]) -> list[JobId]:
        """Those of these jobs and workflows that are over."""
        return [JobId(row[0]) for row in await self._read("ended_among", ids)]

    async def states_among(self, ids: Iterable[JobId]) -> dict[JobId, State]:
        """Where these jobs stand."""
        found = await self._read("states_among", list(ids))
        return {JobId(row[0]): State(row[1]) for row in found}

    async def queues_of(self, ids: Sequence[JobId]) -> dict[JobId, str]:
        """The queues of those of these jobs that there are."""
        return {JobId(row[0]): row[1] for row in await self._read("queues_of", ids)}

    async def queue_names(self) -> list[str]:
        return [row[0] for row in await self._read("queue_names")]

    async def queue(self, name: str) -> QueueView | None:
        found = await self.queues_named([name])
        return found[0] if found else None

    async def queues_named(self, names: Sequence[str]) -> list[QueueView]:
        """Those of them that there are, by name."""
        settings = await self._read("queues_named", names)
        return self._views(settings, await self._counted())

    async def queues(self, after: str = "", limit: int = LIMIT_MAX) -> list[QueueView]:
        """The first queues after that name, by name: all that ever were."""
        settings = await self._read("queue_page", after, limit)
        return self._views(settings, await self._counted())

    async def workers(self, below: bytes, limit: int) -> list[WorkerView]:
        """The newest workers below that id, newest first."""
        return [WorkerView(*row) for row in await self._read("workers", below, limit)]

    async def cluster(self) -> Cluster:
        """The figures of all replicas, some seconds old where counting takes long; none, not even
        the last ones, while Postgres is away."""
        self._health.check()
        counts = await self._counted()
        loads = [
            Load(
                queue=queue,
                paused=paused,
                counts=counts.by_state.get(queue, {}),
                oldest_s=counts.oldest.get(queue, 0.0),
                busy=counts.busy.get(queue, 0),
                ended_per_s=sum(counts.recent.get((queue, end), 0) for end in _RAN) / _MINUTE_S,
            )
            for queue, paused in counts.paused.items()
        ]
        return Cluster(loads, counts.capacity)

    def _views(self, settings: Sequence[Record], counts: _Counts) -> list[QueueView]:
        return [
            QueueView(
                name=queue,
                paused=paused,
                priority_aging_s=aging_s,
                counts=counts.by_state.get(queue, {}),
                oldest_ready_age_s=counts.oldest.get(queue),
                succeeded_per_s=counts.recent.get((queue, State.SUCCEEDED), 0) / _MINUTE_S,
                dead_per_s=counts.recent.get((queue, State.DEAD), 0) / _MINUTE_S,
            )
            for queue, paused, aging_s in settings
        ]

    async def _read(self, query: str, *args: object) -> list[Record]:
        with self._health.watch():
            return await self._pg.read(query, *args)

    async def _counted(self) -> _Counts:
        """Live and ended counts, shared by all who ask at about the same time. Whoever asks again
        and again doesn't wait for a new count, but gets the last one meanwhile."""
        now = clock.monotonic()
        if self._counting is None or now > self._counts_until:
            self._counts_until = float("inf")  # until this count is done, nobody starts another
            self._counting = asyncio.ensure_future(self._count())
            self._counting.add_done_callback(heed)
        if self._last is not None and now < self._last_until:
            return self._last
        return await outlived(self._counting)

    async def _count(self) -> _Counts:
        began = clock.monotonic()
        try:
            with self._health.watch():
                async with self._pg.snapshot() as read:  # a job that ends is counted once
                    await read("set_planner", "enable_seqscan", "on")
                    counts = _counts(await read("live_counts"), await read("ended_counts"))
                    counts = replace(
                        counts,
                        capacity=[Capacity(*row) for row in await read("capacity")],
                        busy={row[0]: row[1] for row in await read("busy_slots")},
                        paused={row[0]: row[1] for row in await read("queue_settings")},
                    )
            self._last = counts
            return counts
        except BaseException:
            self._counting = self._last = None  # what was before must not be told for ever
            raise
        finally:
            spent = clock.monotonic() - began
            age_max = max(_COUNT_AGE_S, _COUNT_SHARE * spent)
            self._counts_until, self._last_until = began + age_max, began + 2 * age_max


def _counts(live: Sequence[Record], ended: Sequence[Record]) -> _Counts:
    by_state: dict[str, dict[State, int]] = {}
    oldest: dict[str, float] = {}
    recent: dict[tuple[str, State], int] = {}
    for queue, *counts, age in live:
        states = by_state.setdefault(queue, {})
        for state, count in zip(_LIVE, counts, strict=True):
            states[state] = states.get(state, 0) + count
        if age is not None:
            oldest[queue] = age
    for queue, name, count, last_minute in ended:
        state = _STATES[name]
        by_state.setdefault(queue, {})[state] = count
        recent[queue, state] = last_minute
    return _Counts(by_state, oldest, recent)


def job_view(row: Record) -> JobView:
    """A row of `jobs` or `jobs_at_their_ends`."""
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
        crashes=row["crashes"],
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
        unique_key=row["unique_key"],
        expires_at=row["expires_at"],
        progress=None if (at := row["percent"]) is None else ProgressView(at, row["message"]),
        workflow_id=row["workflow_id"],
        name=row["name"],
        depends_on=tuple(row["depends_on"] or ()),
        run_if=row["run_if"],
        notify=row["notify"],
        follows=row["follows"] or 0,
    )
