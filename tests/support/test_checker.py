"""The checker itself: it passes what is right, and each rule catches what breaks it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import asyncpg
import pytest

from tests.support.checker import RULES, Connection, Evidence, Violations, check, keep_trail
from tests.support.execution_log import Event

# One job succeeded at once, one after a failure and a loss, one died, one was cancelled in time.
A, B, C, D = (f"00000000-0000-7000-8000-00000000000{n}" for n in range(1, 5))
STRANGER = "00000000-0000-7000-8000-000000000009"

_WELL = f"""
INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s, on_lost,
                  created_by)
SELECT id::uuid, 'q', 'logged', 5, 'null', '2026-01-01 00:00:00Z', 2, 60, 'retry', 'me'
FROM unnest(ARRAY['{A}', '{B}', '{C}', '{D}']) id;

INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at, failures,
                         losses, started_at)
SELECT id::uuid, 1, id::uuid, 'q', 'logged', 5, '2026-01-01Z', 0, 0, '2026-01-01Z'
FROM unnest(ARRAY['{A}', '{B}', '{C}']) id;
DELETE FROM job_running;
INSERT INTO job_running VALUES
    ('{B}', 2, '{B}', 'q', 'logged', 5, '2026-01-01Z', 0, 0, '2026-01-01Z', NULL);
DELETE FROM job_running;
INSERT INTO job_running VALUES
    ('{B}', 3, '{B}', 'q', 'logged', 5, '2026-01-01Z', 0, 0, '2026-01-01Z', NULL);
DELETE FROM job_running;

INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome, next_run_at)
VALUES
    ('{A}', 1, '{A}', '2026-01-01 00:00:01Z', '2026-01-01 00:00:02Z', 'succeeded', NULL),
    ('{B}', 1, '{B}', '2026-01-01 00:00:01Z', '2026-01-01 00:00:02Z', 'failed',
     '2026-01-01 00:00:03Z'),
    ('{B}', 2, '{B}', '2026-01-01 00:00:03Z', '2026-01-01 00:00:04Z', 'lost',
     '2026-01-01 00:00:03Z'),
    ('{B}', 3, '{B}', '2026-01-01 00:00:05Z', '2026-01-01 00:00:06Z', 'succeeded', NULL),
    ('{C}', 1, '{C}', '2026-01-01 00:00:01Z', '2026-01-01 00:00:02Z', 'failed', NULL);

INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at)
VALUES ('{A}', 'q', 'logged', 'succeeded', 1, 0, 0, '2026-01-01 00:00:02Z'),
       ('{B}', 'q', 'logged', 'succeeded', 3, 1, 1, '2026-01-01 00:00:06Z'),
       ('{C}', 'q', 'logged', 'dead', 1, 1, 0, '2026-01-01 00:00:02Z'),
       ('{D}', 'q', 'logged', 'cancelled', 0, 0, 0, '2026-01-01 00:00:02Z');

INSERT INTO queue_counts (queue, state, at, delta)
VALUES ('q', 'succeeded', NULL, 1), ('q', 'succeeded', NULL, 1), ('q', 'dead', NULL, 1),
       ('q', 'cancelled', NULL, 1);
"""

_RUNNING = f"INSERT INTO job_running SELECT '{A}', 2, '{A}', 'q', 'logged', 5, now(), 0, 0, now()"
_TRAIL = "INSERT INTO trail VALUES"

# What breaks each rule.
_BREAKS = {
    "I1 what was accepted is there": f"DELETE FROM jobs WHERE job_id = '{D}'",
    "I1 what was accepted is over": f"DELETE FROM job_ended WHERE job_id = '{D}'",
    "I1 nothing is due or running": _RUNNING,
    "I2 a job ends once and stays ended": f"{_TRAIL} ('job_ended', 'INSERT', '{A}', 1)",
    "I4 an attempt begins once": f"{_TRAIL} ('job_running', 'INSERT', '{A}', 1)",
    "I4 an attempt that began was settled": f"{_RUNNING}; DELETE FROM job_running",
    "I4 failures and losses are counted, within the budget": "UPDATE job_ended SET losses = 2",
    "I6 the state follows from the last outcome": "UPDATE job_ended SET state = 'dead'",
    "I6 nothing comes after a success": "UPDATE attempts SET outcome = 'succeeded'",
    "I7 a job stands in exactly one place": _RUNNING,
    "I7 what stands in a place is a job": f"DELETE FROM jobs WHERE job_id = '{C}'",
    "I9 nothing starts before its time": "UPDATE jobs SET run_at = '2026-01-01 00:00:01.5Z'",
    "I13 attempts are numbered 1 to n": "DELETE FROM attempts WHERE attempt = 2",
    "the counts are those of the places": "UPDATE queue_counts SET delta = 2",
}


def _event(job: str, attempt: int, ev: str, t: float) -> Event:
    return Event(t, 1, job, attempt, ev)


_EVENTS = [
    _event(A, 1, "start", 1),
    _event(A, 1, "end", 2),
    _event(B, 1, "start", 1),
    _event(B, 1, "end", 2),
    _event(B, 2, "start", 3),
    _event(B, 3, "start", 5),
    _event(B, 3, "end", 6),
    _event(C, 1, "start", 1),
    _event(C, 1, "end", 2),
]
_EVIDENCE = Evidence([A, B, C, D], _EVENTS)


@pytest.fixture
async def con(dsn: str) -> AsyncIterator[Connection]:
    con = await asyncpg.connect(dsn)
    await keep_trail(con)
    await con.execute(_WELL)
    yield con
    await con.close()


async def test_what_is_right_passes(con: Connection) -> None:
    report = await check(con, _EVIDENCE)
    assert report.jobs == 4
    assert report.outcomes == {"succeeded": 2, "failed": 2, "lost": 1}


async def test_each_rule_catches_what_breaks_it(con: Connection) -> None:
    assert _BREAKS.keys() == RULES.keys()
    for rule, statements in _BREAKS.items():
        broken = con.transaction()
        await broken.start()
        await con.execute(statements)
        with pytest.raises(Violations, match=rule):
            await check(con, _EVIDENCE)
        await broken.rollback()


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("I4 the log has each attempt at most once", [_event(A, 1, "start", 7)]),
        ("I4 the log has each attempt at most once", [_event(A, 1, "end", 7)]),
        ("I4 what the log started was counted", [_event(A, 2, "start", 7)]),
        ("I6b attempts of a job don't overlap", [_event(B, 2, "end", 5.5)]),
        ("I6b only a lost attempt overlaps the next", [_event(B, 1, "end", 3.5)]),
    ],
)
async def test_the_log_is_held_against_the_attempts(
    con: Connection, rule: str, more: Sequence[Event]
) -> None:
    with pytest.raises(Violations, match=rule):
        await check(con, replace(_EVIDENCE, events=[*_EVENTS, *more]))


async def test_an_outcome_without_an_end_in_the_log_is_caught(con: Connection) -> None:
    events = [event for event in _EVENTS if event.key != (A, 1)]
    with pytest.raises(Violations, match="I6 what was settled had run to its end"):
        await check(con, replace(_EVIDENCE, events=events))


async def test_a_job_that_nobody_submitted_is_caught(con: Connection) -> None:
    evidence = replace(_EVIDENCE, accepted=[A, B, C])
    with pytest.raises(Violations, match="I1b every job was submitted"):
        await check(con, evidence)
    assert (await check(con, replace(evidence, unknown=1))).recovered == 1


async def test_an_accepted_job_that_is_nowhere_is_caught(con: Connection) -> None:
    with pytest.raises(Violations, match="I1 what was accepted is there"):
        await check(con, replace(_EVIDENCE, accepted=[A, B, C, D, STRANGER]))
