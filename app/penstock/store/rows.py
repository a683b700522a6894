"""Between rows and the domain: one place that knows the order of the columns."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from penstock.domain.audit_log import Entry
from penstock.domain.effect import Channel, WaitsFor
from penstock.domain.ids import JobId
from penstock.domain.job import Due, NewJob, OnLost, Started
from penstock.domain.retry import DEFAULT_BACKOFF, Backoff, Curve, Jitter
from penstock.domain.workflow import Counts
from penstock.store.postgres import Record

_ON_LOST = {str(one): one for one in OnLost}  # a fifth of what calling the enum costs
_NO_ENTRIES: list[list[object]] = [[]] * 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(at: datetime) -> int:
    """Whole milliseconds since 1970, rounded up: a shelf must never be early."""
    delta = at - EPOCH
    return -(-((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) // 1000)


def due(row: Record) -> Due:
    return Due(JobId(row[0]), row[1], row[2], row[3], ms(row[4]))


def started(row: Record) -> Started:
    """A row of start_jobs or running_of."""
    return Started(
        id=JobId(row[0]),
        attempt=row[1],
        worker=row[2],
        queue=row[3],
        kind=row[4],
        priority=row[5],
        payload=row[6],
        failures=row[7],
        losses=row[8],
        crashes=row[18],
        max_attempts=row[9],
        backoff=backoff_from(row[10]),
        timeout_s=row[11],
        on_lost=_ON_LOST[row[12]],
        ready_at=row[13],
        started_at=row[14],
        tags=tuple(row[15] or ()),
        traceparent=row[16],
        created_by=row[17],
        graph_id=row[19],
        notify=row[20],
        follows=row[21] or 0,
        first_started_at=row[22],
    )


def submission(jobs: Sequence[NewJob], told: Sequence[Entry] = ()) -> list[list[object]]:
    """The columns of submit_jobs. `told`: what the audit log tells of them."""
    return spared(_specification(jobs)) + entries(told)


def graph_submission(
    jobs: Sequence[NewJob], graphs: Sequence[JobId | None], ended: Sequence[Counts]
) -> list[list[object]]:
    """The columns of submit_graph. `ended`: of each job's parents, those that are over."""
    columns = _specification(jobs)
    columns += [
        list(graphs),
        [j.workflow_id for j in jobs],
        [j.name for j in jobs],
        [orjson.dumps(j.depends_on).decode() if j.parents else None for j in jobs],
        [j.run_if if j.parents else None for j in jobs],
        [len(j.parents) or None for j in jobs],
        [counts.succeeded or None for counts in ended],  # mostly none is: see `spared`
        [counts.dead or None for counts in ended],
        [counts.cancelled or None for counts in ended],
        [counts.skipped or None for counts in ended],
    ]
    return spared(columns)


def _specification(jobs: Sequence[NewJob]) -> list[list[object]]:
    columns: list[list[object]] = [
        [j.id for j in jobs],
        [j.queue for j in jobs],
        [j.kind for j in jobs],
        [j.priority for j in jobs],
        [j.payload for j in jobs],
        [j.run_at for j in jobs],
        [j.delay_s for j in jobs],
        [j.max_attempts for j in jobs],
        [backoff_json(j.backoff) for j in jobs],
        [j.timeout_s for j in jobs],
        [j.on_lost for j in jobs],
        [orjson.dumps(j.tags).decode() if j.tags else None for j in jobs],
        [j.traceparent for j in jobs],
        [j.created_by for j in jobs],
        [j.unique_key for j in jobs],
        [j.expires_at for j in jobs],
        [j.ttl_s for j in jobs],
        [j.notify for j in jobs],
        [j.follows or None for j in jobs],
    ]
    return columns


def effect_fields(row: Record) -> dict[str, Any]:
    """What `Effect` and `DeliveryView` share, of a row of either place."""
    return {
        "id": row["effect_id"],
        "channel": Channel(row["channel"]),
        "endpoint": row["endpoint"],
        "dedupe": row["dedupe"],
        "event": row["event"],
        "job": row["job_id"],
        "workflow": row["workflow_id"],
        "attempt": row["attempt"],
        "state": row["state"],
        "reason": row["reason"],
        "rule": row["rule"],
        "at": row["at"],
        "tries": row["tries"],
        "waits_for": WaitsFor(row["waits_for"]) if row["waits_for"] else None,
    }


def counts(of: Collection[Counts]) -> list[list[object]]:
    """Columns of jobs that are over: succeeded, dead, cancelled, skipped."""
    return [
        [one.succeeded for one in of],
        [one.dead for one in of],
        [one.cancelled for one in of],
        [one.skipped for one in of],
    ]


def entries(of: Sequence[Entry]) -> list[list[object]]:
    """The columns of add_entries, and the last ones of submit_jobs."""
    if not of:
        return _NO_ENTRIES
    columns: list[list[object]] = [
        [one.id for one in of],
        [one.action for one in of],
        [one.actor for one in of],
        [one.roles for one in of],
        [one.address for one in of],
        [one.request_id for one in of],
        [one.object_id for one in of],
        [one.queue for one in of],
        [one.outcome for one in of],
        [orjson.dumps(one.details).decode() if one.details else None for one in of],
    ]
    return spared(columns)


def spared(columns: Iterable[list[object]]) -> list[list[object]]:
    """Columns for one `unnest`, the first of them full: those without a value are sent empty.

    It fills up with nulls what is shorter than the rest; and asyncpg asks of each null, but of no
    text, whether it is a container.
    """
    return [[] if column.count(None) == len(column) else column for column in columns]


@lru_cache(maxsize=1024)
def backoff_json(backoff: Backoff) -> str | None:
    return None if backoff == DEFAULT_BACKOFF else orjson.dumps(backoff).decode()


@lru_cache(maxsize=1024)
def backoff_from(text: str | None) -> Backoff:
    if text is None:
        return DEFAULT_BACKOFF
    raw = orjson.loads(text)
    return Backoff(
        Curve(raw["kind"]), raw["base_s"], raw["factor"], raw["max_s"], Jitter(raw["jitter"])
    )
