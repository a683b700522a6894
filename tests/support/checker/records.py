"""Rules that hold what others wrote down against what Postgres says: the execution log, the
submission log, drains, samples, logs."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import asyncpg

from tests.support.checker.evidence import Drained, Evidence, Said, Sample, Submitted
from tests.support.execution_log import Attempt, Event

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Found = dict[str, list[str]]

_LOGGING_KINDS = ("logged", "logged-thread", "scripted", "blocking")
_LATE_END_S = 5.0  # what a drain may take beyond its grace
_LAST_START_S = 0.1

_OF_MARKERS = """
SELECT marker, array_agg(job_id::text) FROM jobs, unnest(tags) AS marker
WHERE marker = ANY($1::text[]) GROUP BY marker
"""
_LOST_BY_PID = """
SELECT DISTINCT w.note::int AS pid, a.job_id::text || '/' || a.attempt AS attempt
FROM trail w JOIN attempts a USING (worker_id)
WHERE w.place = 'workers' AND w.op = 'INSERT' AND w.note = ANY($1::text[]) AND a.outcome = 'lost'
"""
_LATE = """
SELECT job_id, extract(epoch FROM at - at_before)::float8 AS late_s FROM last_moves
WHERE goal = 'job_running' AND origin = 'job_due'
UNION ALL
SELECT job_id, extract(epoch FROM clock_timestamp() - ready_at)::float8 FROM job_due
WHERE ready_at < clock_timestamp()
ORDER BY late_s DESC
"""
_SAID_ABROAD = """
SELECT job_id FROM attempts WHERE strpos(error::text, $1) > 0
UNION ALL SELECT job_id FROM job_ended WHERE strpos(error::text, $1) > 0
UNION ALL SELECT job_id FROM job_logs WHERE strpos(message, $1) > 0
"""


def of_log(
    events: Collection[Event], outcomes: Mapping[Attempt, str], kinds: Mapping[str, str]
) -> Found:
    """`outcomes`: of the attempts that Postgres knows; `kinds`: of the jobs."""
    starts = Counter(event.key for event in events if event.ev == "start")
    ends = Counter(event.key for event in events if event.ev == "end")
    logged = {key for key in outcomes if kinds.get(key[0]) in _LOGGING_KINDS}
    ended = {key for key in logged if outcomes[key] in ("succeeded", "failed")}
    twice = [key for counts in (starts, ends) for key, count in counts.items() if count > 1]
    return {
        "I4 the log has each attempt at most once": _shown(twice),
        "I4 what the log started was counted": _shown(starts.keys() - outcomes.keys()),
        "I6 what was settled had run to its end": _shown(ended - ends.keys()),
    }


def overlaps(events: Collection[Event]) -> list[Attempt]:
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


def of_overlaps(evidence: Evidence, outcomes: Mapping[Attempt, str]) -> Found:
    found = overlaps(evidence.events)
    lost = [key for key, outcome in outcomes.items() if outcome == "lost"]
    return {
        "I6b only a lost attempt overlaps the next": _shown(
            key for key in found if outcomes.get(key) != "lost"
        ),
        "I6b attempts of a job don't overlap": _shown(
            found if len(found) > evidence.overlaps_max else ()
        ),
        "I6b nothing is lost while its worker lives": _shown(
            lost if evidence.lost_max is not None and len(lost) > evidence.lost_max else ()
        ),
    }


def of_ghosts(evidence: Evidence, jobs: Collection[str]) -> Found:
    strangers = sorted(set(jobs) - set(evidence.accepted))
    return {
        "I1b every job was submitted": strangers if len(strangers) > evidence.unknown else [],
    }


async def of_submissions(con: Connection, submitted: Collection[Submitted]) -> Found:
    """A request is stored whole or not at all, whatever became of its answer; one key is stored
    once, however often it was sent."""
    markers = list({one.marker for one in submitted})
    stored = {row[0]: set(row[1]) for row in await con.fetch(_OF_MARKERS, markers)}
    said: dict[str, set[Said]] = defaultdict(set)
    answers: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for one in submitted:
        said[one.marker].add(one.said)
        if one.key is not None and one.said is Said.OK:
            answers[one.key].add(one.ids)
    return {
        "I1 a submission is stored whole or not at all": sorted(
            {
                one.marker
                for one in submitted
                if len(stored.get(one.marker, ())) not in (0, one.count)
            }
        ),
        "I1 what was answered is what was stored": sorted(
            {
                one.marker
                for one in submitted
                if one.said is Said.OK and stored.get(one.marker, set()) != set(one.ids)
            }
        ),
        "I1b what was refused is not there": sorted(
            marker for marker, ways in said.items() if ways == {Said.FAILED} and marker in stored
        ),
        "I11 a key has one answer": sorted(key for key, ids in answers.items() if len(ids) > 1),
    }


async def of_drains(
    con: Connection, drains: Collection[Drained], events: Collection[Event]
) -> Found:
    """A process id that was used twice counts for its last process."""
    by_pid = {one.pid: one for one in drains}
    late = [
        f"{one.pid}: status {one.status} after {one.exited_at - one.signalled_at:.1f} s"
        for one in by_pid.values()
        if one.status != 0 or one.exited_at - one.signalled_at > one.grace_s + _LATE_END_S
    ]
    started = [
        event.key
        for event in events
        if event.ev == "start"
        and event.pid in by_pid
        and event.t > by_pid[event.pid].signalled_at + _LAST_START_S
    ]
    left = await con.fetch(
        _LOST_BY_PID, [str(pid) for pid, one in by_pid.items() if not one.status]
    )
    return {
        "I15 a drain ends in time": late,
        "I15 nothing starts in a drain": _shown(started),
        "I15 a drain hands back what it had": [row["attempt"] for row in left],
    }


def of_samples(samples: Collection[Sample], caps: Mapping[str, float]) -> Found:
    beyond = [
        f"{one.replica}: {name} {used:g} > {caps[name]:g}"
        for one in samples
        for name, used in one.used.items()
        if name in caps and used > caps[name]
    ]
    return {"I17 each sample is below its cap": beyond}


async def of_secrets(con: Connection, evidence: Evidence) -> Found:
    """Offenders are told by where they stand: a report must not say the secret once more."""
    found = []
    for path in evidence.texts:
        text = path.read_bytes()
        found += [str(path) for canary in evidence.canaries if canary.encode() in text]
    for canary in evidence.canaries:
        found += [str(row["job_id"]) for row in await con.fetch(_SAID_ABROAD, canary)]
    return {"I18 secrets are told to nobody": found}


async def of_lateness(con: Connection, late_max_s: float | None) -> tuple[Found, float]:
    """How late the latest start was, in seconds."""
    rows = await con.fetch(_LATE)
    late = [
        f"{row['job_id']}: {row['late_s']:.2f} s"
        for row in rows
        if late_max_s is not None and row["late_s"] > late_max_s
    ]
    return {"I9 what is due starts soon": late}, max(rows[0]["late_s"], 0.0) if rows else 0.0


def _shown(attempts: Iterable[Attempt]) -> list[str]:
    return [f"{job}/{number}" for job, number in attempts]
