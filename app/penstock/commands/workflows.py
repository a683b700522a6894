"""Cancel and retry a workflow.

Each is one transaction under the workflow's lock, and as many steps after it as there is more to do
than one step's share. If we die between them, any replica's spreader goes on.
"""

import asyncio

from penstock.commands.sequel import Sequel
from penstock.domain.audit_log import Entry
from penstock.domain.errors import Contended
from penstock.domain.ids import JobId
from penstock.domain.letter import Renewal
from penstock.domain.submission import Source
from penstock.domain.workflow import RetryPlan
from penstock.store.graphs import Graphs
from penstock.store.health import Health

_LANES = 2  # calls under way: they must leave connections for settlements
_TRIES_MAX = 100  # steps of what is unfinished that a retry waits for


class Workflows:
    def __init__(self, graphs: Graphs, sequel: Sequel, health: Health) -> None:
        self._graphs = graphs
        self._sequel = sequel
        self._health = health
        self._lanes = asyncio.Semaphore(_LANES)

    async def cancel(self, id_: JobId, entry: Entry | None = None) -> None:
        """Lets nothing of a workflow begin any more, and asks what runs to stop. WorkflowNotFound,
        WrongWorkflowState. `entry`: what the audit log tells of it."""
        with self._health.watch():
            async with self._lanes:
                moved = await self._graphs.cancel_workflow(id_, entry)
                await self._sequel.play(moved)
                while moved.unfinished:
                    moved = await self._graphs.advance(id_)
                    await self._sequel.play(moved)

    async def retry(
        self, id_: JobId, names: list[str] | None, renewal: Renewal, *, dry_run: bool = False
    ) -> RetryPlan:
        """Runs again what didn't succeed: all of it, or what stands at and below `names`. A dry
        run only tells. WorkflowNotFound, WrongWorkflowState, DuplicateJob, Contended."""
        with self._health.watch():
            async with self._lanes:
                for _ in range(_TRIES_MAX):
                    try:
                        plan, moved = await self._graphs.retry_workflow(
                            id_, names, renewal, dry_run=dry_run
                        )
                    except Contended:
                        await self._sequel.play(await self._graphs.advance(id_))
                        continue
                    await self._sequel.play(moved, source=Source.RETRY)
                    return plan
        raise Contended("the workflow keeps moving")
