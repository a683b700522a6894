"""Rows of job_blocked as given, for those who look at the place and not at how a row got there."""

from datetime import timedelta
from typing import Any

from penstock.domain.ids import JobId
from penstock.domain.workflow import LOOSE
from penstock.store.rows import EPOCH
from tests.support import making
from tests.support.database import Database


async def block(db: Database, count: int = 1, **fields: Any) -> list[JobId]:
    """Jobs that wait for a parent each, of which there is no more than its number."""
    graph_id = fields.pop("graph_id", LOOSE)
    rows = [making.due(**fields) for _ in range(count)]
    await db.session.executemany(
        """
        INSERT INTO job_blocked (job_id, graph_id, queue, kind, priority, run_at, run_if, parents,
                                 succeeded, dead, cancelled, skipped, attempt)
        VALUES ($1, $2, $3, $4, $5, $6, 'all_succeeded', 1, 0, 0, 0, 0, 0)
        """,
        [
            (
                d.id,
                graph_id,
                d.queue,
                d.kind,
                d.priority,
                EPOCH + timedelta(milliseconds=d.ready_ms),
            )
            for d in rows
        ],
    )
    return [one.id for one in rows]
