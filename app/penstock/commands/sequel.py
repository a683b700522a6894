"""What follows a transaction on graphs: shelves, workers and waiters hear of it, and it is counted.

In: what was moved, after the commit. If we die before or amid it, the reconciler finds what was
unlocked, waiters and workers find out by their slow looks, what is unfinished by the spreader's.
"""

from collections import Counter
from collections.abc import Callable, Collection

from penstock.commands.enqueuer import Enqueuer
from penstock.domain.ids import JobId
from penstock.domain.submission import Source
from penstock.queue import keys
from penstock.queue.shelves import Off
from penstock.store.walk import Moved
from penstock.telemetry.metrics import Metrics


class Sequel:
    """`on_ended(ids)` hears of jobs and workflows that are over, `on_cancel(id)` of running ones
    that should stop, `on_unfinished()` that more is to be done, `on_effects()` that something is to
    leave the house."""

    def __init__(self, enqueuer: Enqueuer, metrics: Metrics) -> None:
        self.enqueuer = enqueuer
        self._metrics = metrics
        self.on_ended: Callable[[list[JobId]], None] = lambda _ids: None
        self.on_cancel: Callable[[JobId], None] = lambda _id: None
        self.on_unfinished: Callable[[], None] = lambda: None
        self.on_effects: Callable[[], None] = lambda: None

    async def play(
        self, moved: Moved, but: Collection[JobId] = (), source: Source | None = None
    ) -> None:
        """`but`: ended jobs of which the caller tells himself. `source`: what is due or blocked has
        a new life, and whence."""
        enqueuer = self.enqueuer
        if source is not None:
            lives = Counter(one.queue for one in (*moved.due, *moved.blocked))
            for queue, count in lives.items():
                self._metrics.jobs_submitted(queue, source).inc(count)
        if moved.unlocked:
            self._metrics.jobs_unlocked.inc(len(moved.unlocked))
            enqueuer.unlock(moved.unlocked)
        if moved.due:
            enqueuer.put(moved.due)
        if moved.blocked:
            enqueuer.block(moved.blocked)
        if moved.unfinished:
            self.on_unfinished()
        await self._tell_ended(moved, but)
        for id_ in moved.asked:
            self.on_cancel(id_)
        if moved.asked:
            await enqueuer.tell(keys.CANCEL, b"".join(moved.asked))

    async def _tell_ended(self, moved: Moved, but: Collection[JobId]) -> None:
        over = [one for one in moved.ended if one.id not in but]
        workflows = [id_ for id_, _state in moved.workflows]
        if not over and not workflows:
            return
        for (queue, state), count in Counter((one.queue, one.state) for one in over).items():
            self._metrics.jobs_ended(queue, state).inc(count)
        for state_of_workflow, count in Counter(state for _, state in moved.workflows).items():
            self._metrics.workflows_ended(state_of_workflow).inc(count)
        self.on_ended([one.id for one in over] + workflows)
        if workflows:
            await self.enqueuer.tell(keys.ENDED, b"".join(workflows))
        self.enqueuer.put((), [Off(o.queue, o.id, ended=True) for o in over if not o.waited])
        waited = [one.as_due() for one in over if one.waited]
        if waited:
            await self.enqueuer.withdraw(waited)
