"""The auditor: checks in production what the tests' checker holds, and says what it finds.

In: nothing. Out: gauges and log lines; unique keys that no live job holds are freed, nothing else
is changed. Four walks go through all ids, all keys, all that waits for parents and all workflows, a
page a step, and begin anew when they come to the end; the rest is looked at once a pass, that is
every `every_s` or less often. Always holds: it takes at most a two-hundredth of the time, on the
readers' pool, and of several replicas one does it (a lock in Redis: it spares double work, nothing
relies on it). If we die here, another begins from the start.
What is a matter of time (an attempt that nobody reaps, a job that nobody starts) counts when two
looks in a row have found it; the rest is seen in one snapshot and counts at once.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from penstock import clock
from penstock.loops.turns import Lock, is_ours
from penstock.store.audit import Audit, Page
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_PAGE = 1000
_SHARE = 200  # it works a two-hundredth of the time
_LOCK_S = 30.0  # after so long without a step, another replica takes over
_OFF_S = 3600.0
_QUEUES, _ROWS = 20, 20_000  # queues a pass whose counts are held against at most so many rows
_SHOWN = 3
RULES = (
    *("no_place", "two_places", "no_job", "leaked_key", "counts", "orphaned", "stuck"),
    *("blocked_counts", "stuck_blocked", "workflow_counts", "stuck_workflow"),
)

log = get_logger(__name__)


class Auditor:
    """`lock(name, ttl_s)` says whether it is our turn."""

    def __init__(
        self,
        audit: Audit,
        lock: Lock,
        metrics: Metrics,
        every_s: float,
    ) -> None:
        self._audit = audit
        self._lock = lock
        self._metrics = metrics
        self.every_s = every_s
        self._began = self._ended = clock.monotonic()
        self._walks: list[Callable[[bytes], Awaitable[bytes | None]]] = [
            partial(self._walk, audit.places),
            self._walk_keys,
            partial(self._walk, audit.blocked),
            partial(self._walk, audit.workflows),
        ]
        self._cursors: list[bytes | None] = [bytes(16) for _ in self._walks]  # None: through
        self._looked = False  # at what is looked at once a pass
        self._queue = ""  # of the last page of counts
        self._found: dict[str, int] = {}
        self._before: dict[str, set[str]] = {}  # what a look found that wants a second one
        for rule in RULES:
            metrics.audit_violations(rule).set(0)
        metrics.audit_age.set_function(lambda: clock.monotonic() - self._ended)

    async def step(self) -> float:
        """One page of each walk, or the looks; the pause until the next step."""
        if not self.every_s:
            self._metrics.leader("audit").set(0)
            return _OFF_S
        began = clock.monotonic()
        ttl_s = max(_LOCK_S, 2 * self.every_s)
        if not await is_ours(self._lock, "audit", ttl_s, self._metrics):
            self._stand_by()
            return self.every_s
        if not self._looked:
            await self._look()
            self._looked = True
        for i, walk in enumerate(self._walks):
            if (after := self._cursors[i]) is not None:
                self._cursors[i] = await walk(after)
        if any(cursor is not None for cursor in self._cursors):
            return (_SHARE - 1) * (clock.monotonic() - began)
        self._end()
        pause_s = max(self.every_s - (clock.monotonic() - self._began), 0.0)
        self._begin()
        return max(pause_s, (_SHARE - 1) * (clock.monotonic() - began))

    async def _walk(
        self, look: Callable[[bytes, int], Awaitable[Page]], after: bytes
    ) -> bytes | None:
        page = await look(after, _PAGE)
        for rule, found in page.found.items():
            self._report(rule, found)
        return page.next

    async def _walk_keys(self, after: bytes) -> bytes | None:
        page, keys = await self._audit.keys(after, _PAGE)
        self._report("leaked_key", page.found["leaked_key"])
        if keys:
            freed = await self._audit.free(keys)
            self._metrics.audit_mended("leaked_key").inc(freed)
            log.warning("audit_mended", rule="leaked_key", count=freed)
        return page.next

    async def _look(self) -> None:
        wrong, self._queue = await self._audit.counts(self._queue, _QUEUES, _ROWS)
        self._report("counts", wrong)
        self._report("orphaned", self._again("orphaned", await self._audit.orphans()))
        waiting = await self._audit.waiting(self.every_s)
        passed_over = [one.job for one in waiting if one.passed_over]
        self._report("stuck", self._again("stuck", passed_over))

    def _again(self, rule: str, found: list[str]) -> list[str]:
        """Those that the look before has found too."""
        before, self._before[rule] = self._before.get(rule, set()), set(found)
        return sorted(before & self._before[rule])

    def _report(self, rule: str, found: list[str]) -> None:
        """The first of a pass are told at once."""
        known = self._found.get(rule, 0)
        if found and not known:
            log.error("audit_found", rule=rule, count=len(found), such_as=found[:_SHOWN])
        if found:
            self._found[rule] = known + len(found)
            self._metrics.audit_violations(rule).set(known + len(found))

    def _end(self) -> None:
        """A pass is over: the gauges say what it found, be it nothing."""
        for rule in RULES:
            self._metrics.audit_violations(rule).set(self._found.get(rule, 0))
        self._ended = clock.monotonic()

    def _stand_by(self) -> None:
        """Another replica audits: what we found is its to find again, or was mended."""
        self._begin()
        self._before = {}
        for rule in RULES:
            self._metrics.audit_violations(rule).set(0)

    def _begin(self) -> None:
        self._began = clock.monotonic()
        self._cursors = [bytes(16) for _ in self._walks]
        self._looked, self._found = False, {}
