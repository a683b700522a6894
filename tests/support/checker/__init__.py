"""The checker: what must hold of Postgres, of Redis, of the logs and of what was accepted.

After all faults are healed and everything has drained: `keep_trail` before the first job, `check`
after the last. `index.converges` holds Redis against Postgres, with jobs still in line. The rules'
names are those of reliability.md, section 2; `audit.sql` of the package has those among them that a
replica checks in production too.
"""

from collections import Counter
from typing import TypeAlias
from uuid import UUID

import asyncpg

from tests.support.checker import graphs, records, rules
from tests.support.checker.evidence import (
    Drained,
    Evidence,
    Report,
    Said,
    Sample,
    Submitted,
    Violations,
)
from tests.support.checker.trail import TRAIL
from tests.support.execution_log import Attempt
from tests.support.waiting import eventually

__all__ = [
    "RULES",
    "Connection",
    "Drained",
    "Evidence",
    "Report",
    "Said",
    "Sample",
    "Submitted",
    "Violations",
    "check",
    "drained",
    "keep_trail",
    "live",
]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

RULES = {**rules.RULES, **graphs.RULES}
_LIVE = """
SELECT (SELECT count(*) FROM job_due) + (SELECT count(*) FROM job_running)
     + (SELECT count(*) FROM job_blocked) + (SELECT count(*) FROM job_spreads)
     + (SELECT count(*) FROM workflows WHERE state = 'running')
"""
# Submitted by jobs: those of workflows in workflows, and those that a handler tells of by a tag.
_WITHIN = """
SELECT j.job_id::text FROM jobs j LEFT JOIN workflows w USING (workflow_id)
WHERE w.holder_id IS NOT NULL OR 'within' = ANY(j.tags)
"""


async def keep_trail(con: Connection) -> None:
    """Must be called before the first job, for `check` to see every move."""
    await con.execute(TRAIL)


async def drained(con: Connection, within_s: float) -> None:
    """Returns when nothing is due, running or blocked any more, and no workflow either."""

    async def is_drained() -> bool:
        return await live(con) == 0

    await eventually(is_drained, "everything is over", within_s, every_s=0.1)


async def live(con: Connection) -> int:
    """How many jobs are due, running or blocked; and workflows that aren't over."""
    return int(await con.fetchval(_LIVE))


async def check(con: Connection, evidence: Evidence) -> Report:
    """Holds every rule against the evidence; raises Violations."""
    for statements in (rules.FORGOTTEN, graphs.FORGOTTEN, rules.PREPARED, graphs.PREPARED):
        await con.execute(statements)
    found = await _rules_of_postgres(con, evidence)
    outcomes = await _outcomes(con)
    kinds = {str(r[0]): str(r[1]) for r in await con.fetch("SELECT job_id, kind FROM jobs")}
    within = {str(r[0]) for r in await con.fetch(_WITHIN)}
    found |= records.of_ghosts(evidence, kinds.keys() - within)
    found |= records.of_log(evidence.events, outcomes, kinds)
    found |= records.of_overlaps(evidence, outcomes)
    found |= await records.of_submissions(con, evidence.submitted)
    found |= await records.of_drains(con, evidence.drains, evidence.events)
    found |= records.of_samples(evidence.samples, evidence.caps)
    found |= await records.of_secrets(con, evidence)
    late, late_s = await records.of_lateness(con, evidence.late_max_s)
    found |= late
    if broken := {name: offenders for name, offenders in found.items() if offenders}:
        raise Violations(broken)
    overlaps = len(records.overlaps(evidence.events))
    recovered = len(kinds.keys() - within - set(evidence.accepted))
    return Report(len(kinds), dict(Counter(outcomes.values())), overlaps, recovered, late_s)


async def _rules_of_postgres(con: Connection, evidence: Evidence) -> dict[str, list[str]]:
    accepted = [UUID(id_) for id_ in evidence.accepted]
    found = {}
    for name, query in RULES.items():
        rows = await con.fetch(query, *((accepted,) if "$1" in query else ()))
        found[name] = [str(row["job_id"]) for row in rows]
    return found


async def _outcomes(con: Connection) -> dict[Attempt, str]:
    rows = await con.fetch("SELECT job_id, attempt, outcome FROM attempts")
    return {(str(row[0]), int(row[1])): str(row[2]) for row in rows}
