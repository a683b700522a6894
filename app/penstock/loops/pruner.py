"""The pruner: ended jobs go when the time is over for which their state is kept.

In: nothing. Out: whole jobs deleted, one statement a step, so a crash leaves no half of one; and
whole workflows, step by step, after it was made sure that they don't come back. Kinds and queues
that are kept for less than others are looked through by themselves.
Always holds: a step is short, since it locks what it deletes (a retry of such a job waits for it):
it begins with few rows and takes more while that is quick; and between two steps that found enough
to do it rests, so that jobs that run are not slowed. Several may prune at once.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

from penstock import clock
from penstock.domain.defaults import NOTHING_SAID, Book
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.settings import Retention as RetentionSettings
from penstock.store.retention import Lane, Pruned, PrunedLane, Retention
from penstock.store.rows import EPOCH
from penstock.telemetry.metrics import Metrics

_REST_S = 15.0  # when nothing is left to do
_SHARE = 4  # while there is, a fourth of the time
_FIRST_ROWS = 100
_LONG_S = 0.2  # a statement that took longer was too large
_LANES_S = 0.5  # of a step for what goes before others
_FROM_START_S = 600.0  # so often a look goes to the very oldest, past what is deleted already


KeptLess = tuple[State, Lane, float]  # of a lane that goes before others: for how many seconds


class Pruner:
    def __init__(
        self,
        retention: Retention,
        settings: RetentionSettings,
        metrics: Metrics,
        book: Book = NOTHING_SAID,
    ) -> None:
        self._retention = retention
        self._metrics = metrics
        self._looked: dict[tuple[State, Lane], PrunedLane] = {}
        self._since: dict[str, datetime] = {}
        self._rows: dict[str, int] = {}  # of the next statement
        self.use(settings, book)

    def use(self, settings: RetentionSettings, book: Book) -> None:
        """These ages count from the next step on, and those of their own of these kinds and
        queues."""
        retention = self._retention
        self._rows_max = settings.step_max
        self._keys_s = settings.idempotency_s
        self._workflows_s = settings.workflows_s
        self._others: dict[str, tuple[float, Callable[[float, int], Awaitable[int]]]] = {
            "letters": (settings.letters_s, retention.prune_letters),
            "deliveries": (settings.deliveries_s, retention.prune_deliveries),
            "entries": (settings.audit_s, retention.prune_entries),
        }
        wanted = {
            State.SUCCEEDED: settings.succeeded_s,
            State.DEAD: settings.dead_s,
            State.CANCELLED: settings.cancelled_s,
            State.SKIPPED: settings.skipped_s,
        }
        self._kept_s = {state: seconds for state, seconds in wanted.items() if seconds}
        self._book = book
        self._lanes: deque[KeptLess] | None = None
        self._since_until = 0.0  # what was passed over may be old enough by now

    async def step(self) -> float:
        """One statement for each sort of thing; the pause until the next step."""
        began = clock.monotonic()
        if began > self._since_until:
            self._since, self._since_until = {}, began + _FROM_START_S
            self._lanes = None
            self._looked = {of: one for of, one in self._looked.items() if not one.is_end}
        more = await self._lanes_step(began)
        for state, kept_s in self._kept_s.items():
            more |= await self._bounded(state, partial(self._prune, state, kept_s))
            loose = f"loose {state}"
            more |= await self._bounded(loose, partial(self._prune_loose, loose, state, kept_s))
        if self._workflows_s:
            more |= await self._bounded("workflows", self._prune_workflows)
        more |= await self._bounded("jobs of workflows", self._prune_workflow_jobs)
        more |= await self._bounded("answers", self._prune_answers)
        for what, (kept_s, prune) in self._others.items():
            if kept_s:
                more |= await self._bounded(what, partial(prune, kept_s))
        if not more:
            return _REST_S * random.uniform(0.75, 1.25)
        return (_SHARE - 1) * (clock.monotonic() - began)

    async def _prune(self, state: State, kept_s: float, rows: int) -> int:
        since = self._since.get(state, EPOCH)
        return self._noted(
            state, state, await self._retention.prune_ended(state, kept_s, since, rows)
        )

    async def _prune_loose(self, what: str, state: State, kept_s: float, rows: int) -> int:
        since = self._since.get(what, EPOCH)
        return self._noted(
            what, state, await self._retention.prune_loose(state, kept_s, since, rows)
        )

    def _noted(self, what: str, state: State, pruned: Pruned) -> int:
        if pruned.last is not None:
            self._since[what] = pruned.last
            self._metrics.jobs_pruned(state).inc(pruned.count)
        return pruned.count

    async def _lanes_step(self, began: float) -> bool:
        """Takes what goes before others of its state, lane by lane, for a while; whether there may
        be more."""
        if self._lanes is None:
            found = await self._retention.lanes() if self._book.keeps else []
            self._lanes = deque(self._kept_less(found))
        more, lanes = False, self._lanes  # others may take their place meanwhile
        for _ in range(len(lanes)):
            if clock.monotonic() - began > _LANES_S:
                return True
            state, lane, kept_s = lanes[0]
            await self._bounded("lanes", partial(self._prune_lane, state, lane, kept_s))
            more |= not self._looked[state, lane].is_end
            lanes.rotate(-1)
        return more

    def _kept_less(self, lanes: Sequence[Lane]) -> Iterator[KeptLess]:
        for queue, kind in lanes:
            for state, kept_s in self._book.kept_s(kind, queue).items():
                yield state, (queue, kind), kept_s

    async def _prune_lane(self, state: State, lane: Lane, kept_s: float, rows: int) -> int:
        looked = self._looked.get((state, lane))
        after = looked.last if looked else JobId(bytes(16))
        pruned = await self._retention.prune_lane(state, lane, kept_s, after, rows)
        self._looked[state, lane] = pruned
        self._metrics.jobs_pruned(state).inc(pruned.count)
        return pruned.count

    async def _prune_workflows(self, rows: int) -> int:
        pruned = await self._retention.prune_workflows(self._workflows_s, rows)
        self._metrics.workflows_pruned.inc(pruned)
        return pruned

    async def _prune_workflow_jobs(self, rows: int) -> int:
        pruned = await self._retention.prune_workflow_jobs(rows)
        for state, count in pruned.counts.items():
            self._metrics.jobs_pruned(state).inc(count)
        return pruned.rows

    async def _prune_answers(self, rows: int) -> int:
        pruned = await self._retention.prune_idempotency_keys(self._keys_s, rows)
        self._metrics.answers_pruned.inc(pruned)
        return pruned

    async def _bounded(self, what: str, prune: Callable[[int], Awaitable[int]]) -> bool:
        """Prunes as many rows as go quickly; whether there may be more."""
        rows = self._rows.get(what, min(_FIRST_ROWS, self._rows_max))
        began = clock.monotonic()
        try:
            found = await prune(rows)
        except StoreUnavailable:  # perhaps because it took too long: jobs may have many log lines
            self._rows[what] = max(rows // 2, 1)
            raise
        spent = clock.monotonic() - began
        if spent > _LONG_S:
            self._rows[what] = max(rows // 2, 1)
        elif found == rows and spent < _LONG_S / 4:
            self._rows[what] = min(rows * 2, self._rows_max)
        return found == rows
