"""What chaos points were struck, and what came of the jobs that were submitted meanwhile.

Each job names in its payload the point that its replica was armed with.
"""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from tests.support.checker import Connection
from tests.support.load import Job
from tests.support.replica import ReplicaProcess

NOBODYS = "none"  # the point of a replica that isn't armed
_OLD = "old"  # the queue of jobs that are there to be pruned
_OLD_COUNT = 300

# Of each point: jobs stored, those that did not end, those that ended or succeeded twice, and the
# longest wait of one for its first attempt. $1: what was accepted.
_JOBS = """
SELECT j.payload->>'point' AS point,
       count(*) FILTER (WHERE j.job_id = ANY($1::uuid[])) AS accepted,
       count(*) FILTER (WHERE NOT j.job_id = ANY($1::uuid[])) AS recovered,
       count(*) FILTER (WHERE e.job_id IS NULL) AS lost,
       count(*) FILTER (WHERE a.successes > 1) AS duplicated,
       max(extract(epoch FROM a.began - j.run_at)) FILTER (WHERE j.run_if IS NULL)::float8
           AS waited_s
FROM jobs j
LEFT JOIN job_ended e USING (job_id)
LEFT JOIN workflows w USING (workflow_id)
LEFT JOIN (SELECT job_id, min(started_at) AS began,
                  count(*) FILTER (WHERE outcome = 'succeeded') AS successes
           FROM attempts GROUP BY job_id) a USING (job_id)
WHERE w.holder_id IS NULL AND j.payload->>'point' IS NOT NULL
GROUP BY 1
"""
_MISSING = """
SELECT count(*) FROM unnest($1::uuid[]) i WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = i)
"""
_AGAIN = """
SELECT a.worker_id::text AS worker, max(extract(epoch FROM b.started_at))::float8 AS at
FROM attempts a JOIN attempts b ON b.job_id = a.job_id AND b.attempt = a.attempt + 1
WHERE a.outcome = 'lost' GROUP BY 1
"""
_ADD_OLD = """
WITH i AS (
    SELECT gen_random_uuid() AS job_id, clock_timestamp() - interval '2 hours' AS at
    FROM generate_series(1, $2)
), j AS (
    INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s,
                      on_lost, created_by)
    SELECT job_id, $1, 'echo', 5, 'null', at, 5, 300, 'retry', 'tests' FROM i
), c AS (INSERT INTO queue_counts (queue, state, delta) VALUES ($1, 'succeeded', $2))
INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at)
SELECT job_id, $1, 'echo', 'succeeded', 0, 0, 0, at FROM i
"""
_ADD_OLD_WORKFLOWS = """
WITH w AS (
    INSERT INTO workflows (workflow_id, name, on_failure, queues, created_by, ancestors, state,
                           total, succeeded, finished_at)
    SELECT gen_random_uuid(), 'old', 'continue', ARRAY[$1], 'tests', '{}', 'succeeded', 1, 1,
           clock_timestamp() - interval '2 hours'
    FROM generate_series(1, 20) RETURNING workflow_id, gen_random_uuid() AS job_id, finished_at
), j AS (
    INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s,
                      on_lost, created_by, workflow_id, name)
    SELECT job_id, $1, 'echo', 5, 'null', finished_at, 5, 300, 'retry', 'tests', workflow_id, 'a'
    FROM w
), c AS (INSERT INTO queue_counts (queue, state, delta) VALUES ($1, 'succeeded', 20))
INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at, graph_id)
SELECT job_id, $1, 'echo', 'succeeded', 0, 0, 0, finished_at, workflow_id FROM w
"""
_FORGET_OLD = (
    "DELETE FROM workflows WHERE $1 = ANY(queues)",
    """DELETE FROM trail WHERE place = 'workflows' AND $1 <> ''
       AND worker_id NOT IN (SELECT workflow_id FROM workflows)""",
    "DELETE FROM pruned_workflows WHERE $1 <> ''",
    "DELETE FROM jobs WHERE queue = $1",
    "DELETE FROM job_ended WHERE queue = $1",
    "DELETE FROM queue_counts WHERE queue = $1",
)


@dataclass(slots=True)
class Slot:
    """A place for a replica, and the point that it is armed with."""

    replica: ReplicaProcess
    point: str = NOBODYS


@dataclass(frozen=True, slots=True)
class Strike:
    """A replica died of a point. `at`: seconds since 1970; `workers`: the names it had."""

    point: str
    at: float
    workers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Row:
    point: str
    struck: int = 0
    unknown: int = 0  # submissions without an answer
    recovered: int = 0
    lost: int = 0
    duplicated: int = 0
    rescue_max_s: float = 0.0  # from a death to the next attempt of what it held; or to a first one

    def cells(self) -> tuple[str, ...]:
        counts = (self.struck, self.unknown, self.recovered, self.lost, self.duplicated)
        return (self.point, *map(str, counts), f"{self.rescue_max_s:.2f}")


class Table(list[Row]):
    def __str__(self) -> str:
        head = (
            "point",
            "struck",
            "unknown",
            "recovered",
            "lost",
            "duplicated",
            "longest rescue, s",
        )
        lines = [head, *(row.cells() for row in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )


def jobs_of(point: Callable[[], str], made: Counter[str]) -> Callable[[int], Job]:
    """A stream of jobs in three queues: short and longer ones, some that fail, come later, have a
    key, or expire before anybody runs them."""
    numbers = itertools.count()

    def job(_number: int) -> Job:
        name = point()
        made[name] += 1
        return any_job(random.Random(next(numbers)), name)

    return job


def any_job(chance: random.Random, point: str) -> Job:
    """One of those; none of them dies."""
    if chance.random() < 0.03:
        return {"kind": "nobody", "ttl_s": 0.3, "payload": {"point": point}}
    seconds, failures = chance.choice([0, 0, 0.05, 0.3, 1]), chance.choice([0, 0, 0, 0, 1])
    later = {"delay_s": chance.uniform(0.1, 2)} if chance.random() < 0.3 else {}
    keyed = {"unique_key": str(UUID(int=random.getrandbits(128)))}
    return {
        "kind": chance.choice(["logged", "logged", "logged-thread"]),
        "queue": chance.choice(["a", "b", "c"]),
        "payload": {"seconds": seconds, "failures": failures, "point": point},
        "backoff": {"kind": "fixed", "base_s": 0.3},
        **later,
        **(keyed if chance.random() < 0.2 else {}),
    }


async def table(
    con: Connection, strikes: Sequence[Strike], made: Counter[str], accepted: Collection[str]
) -> Table:
    """One row a point that was struck or had jobs, sorted by name."""
    ids = [UUID(id_) for id_ in accepted]
    jobs = {str(row["point"]): row for row in await con.fetch(_JOBS, ids)}
    again = {str(row["worker"]): float(row["at"]) for row in await con.fetch(_AGAIN)}
    struck = Counter(one.point for one in strikes)
    rescues: dict[str, list[float]] = defaultdict(lambda: [0.0])
    for one in strikes:
        rescues[one.point] += [again[name] - one.at for name in one.workers & again.keys()]
    found = Table()
    for point in sorted(struck.keys() | made.keys()):
        row = jobs.get(point) or dict.fromkeys(("accepted", "recovered", "lost", "duplicated"), 0)
        found.append(
            Row(
                point,
                struck[point],
                made[point] - row["accepted"],
                row["recovered"],
                row["lost"],
                row["duplicated"],
                max(row.get("waited_s") or 0.0, *rescues[point]),
            )
        )
    if missing := await con.fetchval(_MISSING, ids):
        found.append(Row("accepted, but never stored", lost=int(missing)))
    return found


async def add_old_jobs(con: Connection) -> None:
    """Jobs and workflows that succeeded two hours ago."""
    await con.execute(_ADD_OLD, _OLD, _OLD_COUNT)
    await con.execute(_ADD_OLD_WORKFLOWS, _OLD)


async def forget_old_jobs(con: Connection) -> None:
    """As if they had never been, for nobody submitted them."""
    await con.execute(
        "DELETE FROM trail WHERE place = 'job_ended' AND job_id NOT IN (SELECT job_id FROM jobs)"
        " OR job_id IN (SELECT job_id FROM jobs WHERE queue = $1)",
        _OLD,
    )
    for statement in _FORGET_OLD:
        await con.execute(statement, _OLD)
