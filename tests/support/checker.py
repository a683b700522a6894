"""The checker: what must hold of Postgres, of the execution log and of what was accepted.

After all faults are healed and everything has drained. The rules' names are those of
reliability.md, section 2, as they apply to the tables of migrations/0001_engine.sql.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

import asyncpg

from tests.support.execution_log import Attempt, Event
from tests.support.waiting import eventually

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_SHOWN = 3  # offenders of a rule that a failure shows
_LOGGING_KINDS = ("logged", "logged-thread", "blocking")

# What the places never show afterwards: how often a row entered or left them.
_TRAIL = """
CREATE TABLE trail (place text NOT NULL, op text NOT NULL, job_id uuid NOT NULL, attempt integer);
CREATE FUNCTION keep_trail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trail SELECT TG_TABLE_NAME, TG_OP, job_id, attempt FROM moved;
    RETURN NULL;
END $$;
CREATE TRIGGER came AFTER INSERT ON job_ended REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION keep_trail();
CREATE TRIGGER went AFTER DELETE ON job_ended REFERENCING OLD TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION keep_trail();
CREATE TRIGGER came AFTER INSERT ON job_running REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION keep_trail();
"""

_LIVE = "SELECT (SELECT count(*) FROM job_due) + (SELECT count(*) FROM job_running)"

# Each answers the jobs that break the rule. $1, where it is used: the accepted ids.
RULES = {
    "I1 what was accepted is there": """
        SELECT a AS job_id FROM unnest($1::uuid[]) a
        WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.job_id = a)""",
    "I1 what was accepted is over": """
        SELECT a AS job_id FROM unnest($1::uuid[]) a
        WHERE NOT EXISTS (SELECT 1 FROM job_ended e WHERE e.job_id = a)""",
    "I1 nothing is due or running": """
        SELECT job_id FROM job_due UNION ALL SELECT job_id FROM job_running""",
    "I2 a job ends once and stays ended": """
        SELECT e.job_id FROM job_ended e
        LEFT JOIN (SELECT job_id, count(*) AS moves FROM trail WHERE place = 'job_ended' GROUP BY 1)
            t USING (job_id)
        WHERE t.moves IS DISTINCT FROM 1
        UNION ALL
        SELECT job_id FROM trail WHERE place = 'job_ended' AND op = 'DELETE'""",
    "I4 an attempt begins once": """
        SELECT job_id FROM trail WHERE place = 'job_running'
        GROUP BY job_id, attempt HAVING count(*) > 1""",
    "I4 an attempt that began was settled": """
        SELECT t.job_id FROM trail t LEFT JOIN attempts a USING (job_id, attempt)
        WHERE t.place = 'job_running' AND a.job_id IS NULL""",
    "I4 failures and losses are counted, within the budget": """
        SELECT e.job_id
        FROM job_ended e JOIN jobs j USING (job_id)
        LEFT JOIN (
            SELECT job_id, count(*) FILTER (WHERE outcome IN ('failed', 'timed_out')) AS failures,
                   count(*) FILTER (WHERE outcome = 'lost') AS losses
            FROM attempts GROUP BY job_id
        ) a USING (job_id)
        CROSS JOIN LATERAL (  -- an attempt that was to be cancelled spends nothing
            SELECT CASE WHEN e.state = 'cancelled' THEN 1 ELSE 0 END AS spared
        ) s
        WHERE coalesce(a.failures, 0) - e.failures NOT BETWEEN 0 AND s.spared
           OR coalesce(a.losses, 0) - e.losses NOT BETWEEN 0 AND s.spared
           OR e.failures > j.max_attempts""",
    "I6 the state follows from the last outcome": """
        SELECT e.job_id FROM job_ended e
        LEFT JOIN attempts a ON a.job_id = e.job_id AND a.attempt = e.attempt
        WHERE NOT CASE e.state
            WHEN 'succeeded' THEN coalesce(a.outcome = 'succeeded', false)
            WHEN 'dead' THEN coalesce(a.outcome IN ('failed', 'timed_out', 'lost'), false)
            WHEN 'cancelled' THEN a.outcome IS DISTINCT FROM 'succeeded'
            ELSE false END""",
    "I6 nothing comes after a success": """
        SELECT a.job_id FROM attempts a JOIN job_ended e USING (job_id)
        WHERE a.outcome = 'succeeded' AND a.attempt <> e.attempt""",
    "I7 a job stands in exactly one place": """
        SELECT j.job_id FROM jobs j
        LEFT JOIN job_due d USING (job_id)
        LEFT JOIN job_running r USING (job_id)
        LEFT JOIN job_ended e USING (job_id)
        WHERE num_nonnulls(d.job_id, r.job_id, e.job_id) <> 1""",
    "I7 what stands in a place is a job": """
        SELECT p.job_id
        FROM (SELECT job_id FROM job_due UNION ALL SELECT job_id FROM job_running
              UNION ALL SELECT job_id FROM job_ended UNION ALL SELECT job_id FROM attempts) p
        LEFT JOIN jobs j USING (job_id) WHERE j.job_id IS NULL""",
    "I9 nothing starts before its time": """
        SELECT a.job_id FROM attempts a JOIN jobs j USING (job_id)
        WHERE a.attempt = 1 AND a.started_at < j.run_at
        UNION ALL
        SELECT a.job_id FROM attempts a
        JOIN attempts b ON b.job_id = a.job_id AND b.attempt = a.attempt + 1
        WHERE b.started_at < a.next_run_at OR b.started_at < a.finished_at""",
    "I13 attempts are numbered 1 to n": """
        SELECT job_id FROM attempts GROUP BY job_id
        HAVING min(attempt) <> 1 OR max(attempt) <> count(*)
        UNION ALL
        SELECT e.job_id FROM job_ended e
        LEFT JOIN (SELECT job_id, count(*) AS n FROM attempts GROUP BY job_id) a USING (job_id)
        WHERE e.attempt <> coalesce(a.n, 0)""",
    "the counts are those of the places": """
        SELECT NULL::uuid AS job_id
        FROM (SELECT queue, state, count(*) AS n FROM job_ended GROUP BY 1, 2) e
        FULL JOIN (SELECT queue, state, sum(delta) AS n FROM queue_counts GROUP BY 1, 2) c
             USING (queue, state)
        WHERE coalesce(e.n, 0) <> coalesce(c.n, 0)""",
}


class Said(StrEnum):
    """What a caller knows of his request."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Submitted:
    """One request. Its `marker` is a tag of each of its `count` jobs; requests that repeat an
    Idempotency-Key (`key`) have one marker. `ids`: what was answered, in order."""

    marker: str
    said: Said
    count: int = 1
    ids: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Drained:
    """A replica that was sent SIGTERM. Times in seconds since 1970; `status`: its exit status."""

    pid: int
    signalled_at: float
    exited_at: float
    status: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What to hold Postgres against. `unknown`: submissions of which nobody knows whether they
    were accepted; `overlaps_max`: how often two attempts of one job may have run at once."""

    accepted: Collection[str]
    events: Collection[Event]
    unknown: int = 0
    overlaps_max: int = 0
    submitted: Collection[Submitted] = ()
    drains: Collection[Drained] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; nothing of it is a fault."""

    jobs: int
    outcomes: dict[str, int]
    overlaps: int
    recovered: int  # unknown submissions that were accepted


class Violations(AssertionError):
    """The rules that don't hold: `broken`, by name, with all of their offenders."""

    def __init__(self, broken: dict[str, list[str]]) -> None:
        self.broken = broken
        super().__init__(_shown(broken))


async def keep_trail(con: Connection) -> None:
    """Must be called before the first job, for `check` to see every move."""
    await con.execute(_TRAIL)


async def drained(con: Connection, within_s: float) -> None:
    """Returns when nothing is due or running any more."""

    async def is_drained() -> bool:
        return await live(con) == 0

    await eventually(is_drained, "everything is over", within_s, every_s=0.1)


async def live(con: Connection) -> int:
    """How many jobs are due or running."""
    return int(await con.fetchval(_LIVE))


async def check(con: Connection, evidence: Evidence) -> Report:
    """Holds every rule against the evidence; raises Violations."""
    accepted = [UUID(id_) for id_ in evidence.accepted]
    found: dict[str, list[str]] = {}
    for name, query in RULES.items():
        rows = await con.fetch(query, *((accepted,) if "$1" in query else ()))
        found[name] = [str(row["job_id"]) for row in rows]
    outcomes = await _outcomes(con)
    kinds = {str(r[0]): str(r[1]) for r in await con.fetch("SELECT job_id, kind FROM jobs")}
    recovered = len(kinds.keys() - set(evidence.accepted))
    if recovered > evidence.unknown:
        found["I1b every job was submitted"] = sorted(kinds.keys() - set(evidence.accepted))
    found |= _rules_of_log(evidence.events, outcomes, kinds)
    overlaps = _overlaps(evidence.events)
    found["I6b only a lost attempt overlaps the next"] = [
        f"{job}/{n}" for job, n in overlaps if outcomes.get((job, n)) != "lost"
    ]
    if len(overlaps) > evidence.overlaps_max:
        found["I6b attempts of a job don't overlap"] = [f"{job}/{n}" for job, n in overlaps]
    if broken := {name: jobs for name, jobs in found.items() if jobs}:
        raise Violations(broken)
    return Report(len(kinds), dict(Counter(outcomes.values())), len(overlaps), recovered)


def _rules_of_log(
    events: Collection[Event], outcomes: dict[Attempt, str], kinds: dict[str, str]
) -> dict[str, list[str]]:
    starts = Counter(event.key for event in events if event.ev == "start")
    ends = Counter(event.key for event in events if event.ev == "end")
    logged = {key for key in outcomes if kinds.get(key[0]) in _LOGGING_KINDS}
    ended = {key for key in logged if outcomes[key] in ("succeeded", "failed")}
    return {
        "I4 the log has each attempt at most once": [
            f"{job}/{n}"
            for counts in (starts, ends)
            for (job, n), count in counts.items()
            if count > 1
        ],
        "I4 what the log started was counted": [
            f"{j}/{n}" for j, n in starts.keys() - outcomes.keys()
        ],
        "I6 what was settled had run to its end": [f"{job}/{n}" for job, n in ended - ends.keys()],
    }


def _overlaps(events: Collection[Event]) -> list[Attempt]:
    """Attempts that ended in the log after the next one of the same job had started."""
    started: dict[str, dict[int, float]] = defaultdict(dict)
    for event in events:
        if event.ev == "start":
            started[event.job][event.attempt] = event.t
    return [
        event.key
        for event in events
        if event.ev == "end" and event.t > started[event.job].get(event.attempt + 1, event.t)
    ]


async def _outcomes(con: Connection) -> dict[Attempt, str]:
    rows = await con.fetch("SELECT job_id, attempt, outcome FROM attempts")
    return {(str(row[0]), int(row[1])): str(row[2]) for row in rows}


def _shown(broken: dict[str, list[str]]) -> str:
    lines = [
        f"{name}: {len(jobs)} offend, such as {', '.join(jobs[:_SHOWN])}"
        for name, jobs in broken.items()
    ]
    return "\n".join(["these rules don't hold:", *lines])
