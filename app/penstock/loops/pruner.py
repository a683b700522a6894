"""The pruner: ended jobs go when the time is over for which their state is kept.

In: nothing. Out: whole jobs deleted, one statement a step, so a crash leaves no half of one; and
whole workflows, step by step, after it was made sure that they don't come back.
Always holds: a step is short, since it locks what it deletes (a retry of such a job waits for it):
it begins with few rows and takes more while that is quick; and between two steps that found enough
to do it rests, so that jobs that run are not slowed. Several may prune at once.
"""

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from penstock import clock
from penstock.domain.errors import StoreUnavailable
from penstock.domain.job import State
from penstock.domain.keeping import Kept, Whose
from penstock.settings import Retention as RetentionSettings
from penstock.settings.kinds import Kind, QueueRules
from penstock.store.retention import Pruned, Retention
from penstock.store.rows import EPOCH
from penstock.telemetry.metrics import Metrics

_REST_S = 15.0  # when nothing is left to do
_SHARE = 4  # while there is, a fourth of the time
_FIRST_ROWS = 100
_LONG_S = 0.2  # a statement that took longer was too large
_FROM_START_S = 600.0  # so often a look goes to the very oldest, past what is deleted already


_NAMES = {
    State.SUCCEEDED: "succeeded_s",
    State.DEAD: "dead_s",
    State.CANCELLED: "cancelled_s",
    State.SKIPPED: "skipped_s",
}

Kinds = Mapping[str, Kind]
Queues = Mapping[str, QueueRules]
Prune = Callable[[State, float, datetime, int, Whose], Awaitable[Pruned]]


async def nobody() -> Iterable[str]:
    """Of a pruner to whom nobody told of queues."""
    return ()


@dataclass(frozen=True, slots=True)
class _Old:
    """Jobs of a state that go at an age; `what` names them."""

    what: str
    state: State
    age_s: float
    whose: Whose


def _said(name: str, said: Kinds | Queues | None) -> dict[str, float]:
    """What kinds or queues say of an age."""
    ages = {one: getattr(rules.retention, name) for one, rules in (said or {}).items()}
    return {one: age for one, age in ages.items() if age is not None}


class Pruner:
    """`queues()` names all queues that there are; asked where some are kept otherwise."""

    def __init__(
        self,
        retention: Retention,
        settings: RetentionSettings,
        metrics: Metrics,
        queues: Callable[[], Awaitable[Iterable[str]]] = nobody,
    ) -> None:
        self._retention = retention
        self._metrics = metrics
        self._queues = queues
        self._sorts = (("plain", retention.prune_ended), ("loose", retention.prune_loose))
        self._since: dict[str, datetime] = {}
        self._since_until = 0.0
        self._rows: dict[str, int] = {}  # of the next statement
        self.use(settings)

    def use(
        self, settings: RetentionSettings, kinds: Kinds | None = None, queues: Queues | None = None
    ) -> None:
        """These ages count from the next step on."""
        retention = self._retention
        self._rows_max = settings.step_max
        self._keys_s = settings.idempotency_s
        self._workflows_s = settings.workflows_s
        self._others: dict[str, tuple[float, Callable[[float, int], Awaitable[int]]]] = {
            "letters": (settings.letters_s, retention.prune_letters),
            "deliveries": (settings.deliveries_s, retention.prune_deliveries),
        }
        self._kept = {
            state: Kept(getattr(settings, name), _said(name, kinds), _said(name, queues))
            for state, name in _NAMES.items()
        }
        self._since = {}  # others may go now

    async def step(self) -> float:
        """One statement for each sort of thing; the pause until the next step."""
        began = clock.monotonic()
        if began > self._since_until:
            self._since, self._since_until = {}, began + _FROM_START_S
        more = False
        for state, kept in self._kept.items():
            queues = await self._queues() if kept.needs_queues else ()
            for age_s, whose in kept.groups(queues):
                for sort, prune_old in self._sorts:
                    old = _Old(f"{sort} {state} {age_s}", state, age_s, whose)
                    more |= await self._bounded(old.what, partial(self._prune, prune_old, old))
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

    async def _prune(self, prune: Prune, old: _Old, rows: int) -> int:
        """How many went, or `rows` where there may be more."""
        since = self._since.get(old.what, EPOCH)
        pruned = await prune(old.state, old.age_s, since, rows, old.whose)
        if pruned.last is not None:
            self._since[old.what] = pruned.last
            self._metrics.jobs_pruned(old.state).inc(pruned.count)
        return rows if pruned.more else pruned.count

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
        rows = min(self._rows.get(what, _FIRST_ROWS), self._rows_max)
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
