"""The checker itself: it passes what is right, and each rule catches what breaks it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from tests.support.checker import (
    Connection,
    Drained,
    Evidence,
    Said,
    Sample,
    Submitted,
    Violations,
    check,
    keep_trail,
)
from tests.support.checker.rules import RULES
from tests.support.execution_log import Event

# One job succeeded at once, one after a failure and a loss, one died, was retried by a caller and
# succeeded in its second life, one was cancelled in time. A and D had one unique key after another.
A, B, C, D = (f"00000000-0000-7000-8000-00000000000{n}" for n in range(1, 5))
STRANGER = "00000000-0000-7000-8000-000000000009"
WORKER = "00000000-0000-7000-8000-0000000000aa"


def at(second: float) -> str:
    return f"'2026-01-01 00:00:{second:04.1f}Z'"


def submitted(job: str, key: str = "NULL", failures: int = 0) -> str:
    return f"""
        INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s,
                          on_lost, created_by, unique_key, tags)
        VALUES ('{job}', 'q', 'logged', 5, '{{"failures":{failures}}}', {at(0)}, 2, 60,
                'retry', 'me', {key}, ARRAY['marker {job}']);
        INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
        VALUES ('{job}', 'q', 'logged', 5, {at(0)}, 0, 0, 0);"""


def started(job: str, when: float, up: int = 1) -> str:
    return f"""
        WITH d AS (DELETE FROM job_due WHERE job_id = '{job}' RETURNING *)
        INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at,
                                 failures, losses, started_at)
        SELECT job_id, attempt + {up}, '{WORKER}', queue, kind, priority, ready_at, failures,
               losses, {at(when)} FROM d"""


def settled(job: str, when: float, outcome: str, state: str | None = None) -> str:
    charged = f"""failures + {int(outcome == "failed")}, losses + {int(outcome == "lost")}"""
    there = (
        f"""INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
            SELECT job_id, queue, kind, priority, {at(when)}, attempt, {charged} FROM r"""
        if state is None
        else f"""INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses,
                                        finished_at)
            SELECT job_id, queue, kind, '{state}', attempt, {charged}, {at(when)} FROM r"""
    )
    return f"""
        WITH r AS (DELETE FROM job_running WHERE job_id = '{job}' RETURNING *),
        a AS (INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome,
                                    next_run_at)
              SELECT job_id, attempt, worker_id, started_at, {at(when)}, '{outcome}',
                     {"NULL" if state else at(when)} FROM r)
        {there};
        {counted(state) if state else ""}"""


def counted(state: str, delta: int = 1) -> str:
    return f"INSERT INTO queue_counts (queue, state, delta) VALUES ('q', '{state}', {delta})"


def ended_at_once(job: str, reason: str) -> str:
    return f"""
        WITH d AS (DELETE FROM job_due WHERE job_id = '{job}' RETURNING *)
        INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, reason,
                               finished_at)
        SELECT job_id, queue, kind, 'cancelled', attempt, failures, losses, '{reason}', {at(9)}
        FROM d; {counted("cancelled")}"""


def retried(job: str) -> str:
    return f"""
        WITH e AS (DELETE FROM job_ended WHERE job_id = '{job}' RETURNING *)
        INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
        SELECT job_id, queue, kind, 5, {at(3)}, attempt, 0, 0 FROM e;
        {counted("dead", -1)}"""


# Each is a transaction of its own.
_WELL = [
    *(submitted(A, "'one'"), submitted(B, failures=1), submitted(C, failures=3)),
    *(started(A, 1), settled(A, 2, "succeeded", "succeeded")),
    *(started(B, 1), settled(B, 2, "failed"), started(B, 3), settled(B, 4, "lost")),
    *(started(B, 5), settled(B, 6, "succeeded", "succeeded")),
    *(started(C, 1), settled(C, 2, "failed"), started(C, 2.5), settled(C, 2.6, "failed", "dead")),
    *(retried(C), started(C, 4), settled(C, 5, "failed")),
    *(started(C, 5), settled(C, 6, "succeeded", "succeeded")),
    *(submitted(D, "'one'"), ended_at_once(D, "requested")),
]

_AGAIN = f"""
INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
VALUES ('{B}', 'q', 'logged', 5, {at(7)}, 3, 1, 1)"""
_UP = f"DELETE FROM job_ended WHERE job_id = '{B}'"  # a life that goes on, as nothing may
_NEW = "00000000-0000-7000-8000-000000000011"
_CONDEMNED = f"""
INSERT INTO workers (worker_id, host, pid, version, queues, kinds, slots, started_at, beat_at,
                     expires_at)
VALUES ('{WORKER}', '', 7, '', '{{}}', '{{}}', 1, now(), now(), now());
UPDATE workers SET condemned_at = {at(2)}"""
_PAUSED = "INSERT INTO queues (queue) VALUES ('q'); UPDATE queues SET paused = true"
_STOP = f"UPDATE job_running SET cancel_requested_at = now() WHERE job_id = '{_NEW}'"

# What breaks each rule, transaction by transaction.
_BREAKS = {
    "I1 what was accepted is there": [f"DELETE FROM jobs WHERE job_id = '{D}'"],
    "I1 what was accepted is over": [f"DELETE FROM job_ended WHERE job_id = '{D}'"],
    "I1 nothing is due or running": [submitted(_NEW)],
    "I2 a job moves only from place to place": [_UP],
    "I2 a job is born once": [_AGAIN],
    "I2 each move begins where the one before ended": [_AGAIN],
    "I2 a new life is for what didn't succeed, and is fresh": [f"{_UP}; {_AGAIN}"],
    "I4 each start counts one up": [submitted(_NEW), started(_NEW, 1, up=2)],
    "I4 an attempt begins once": [submitted(_NEW), started(_NEW, 1, 0), _AGAIN, started(B, 8, 0)],
    "I4 an attempt that began was settled": [submitted(_NEW), started(_NEW, 1)],
    "I4 an attempt costs what its outcome costs": [
        *(submitted(_NEW), started(_NEW, 1), settled(_NEW, 2, "released")),
        f"UPDATE attempts SET outcome = 'lost' WHERE job_id = '{_NEW}'",
    ],
    "I4 failures stay within the budget": ["UPDATE jobs SET max_attempts = 1"],
    "I6 whoever began an attempt ended it": [f"UPDATE attempts SET worker_id = '{A}'"],
    "I6 nothing begins under a condemned name": [_CONDEMNED],
    "I6 what was asked to stop doesn't go on": [
        *(submitted(_NEW), started(_NEW, 1), _STOP, settled(_NEW, 2, "lost")),
    ],
    "I6 the state follows from the last outcome": ["UPDATE job_ended SET state = 'dead'"],
    "I6 nothing comes after a success": ["UPDATE attempts SET outcome = 'succeeded'"],
    "I6 an outcome is that of its own attempt": [
        f"""UPDATE jobs SET payload = '{{"failures":1}}' WHERE job_id = '{A}'"""
    ],
    "I7 a job stands in a place": [_UP],
    "I7 a job stands in no two places": [_AGAIN],
    "I7 an attempt is one of a job": [f"DELETE FROM jobs WHERE job_id = '{C}'"],
    "I7 what stands in a place is a job": [f"DELETE FROM jobs WHERE job_id = '{C}'"],
    "I7 a unique key is held by a live job": [f"INSERT INTO job_unique VALUES ('{A}', '{A}')"],
    "I7 a live job holds its unique key": [submitted(_NEW, "'two'")],
    "I9 nothing starts before its time": ["UPDATE jobs SET run_at = " + at(1.5)],
    "I9 only what has not been started expires": [
        *(submitted(_NEW), started(_NEW, 1), settled(_NEW, 2, "lost")),
        ended_at_once(_NEW, "expired"),
    ],
    "I9 nothing starts for the first time after its expiry": [
        f"UPDATE jobs SET expires_at = {at(1)} WHERE job_id = '{A}'"
    ],
    "I13 attempts are numbered 1 to n": ["DELETE FROM attempts WHERE attempt = 2"],
    "nothing starts in a paused queue": [
        _PAUSED,
        f"UPDATE trail SET at = {at(0)} WHERE place = 'queues'",
    ],
    "no two live jobs have one unique key": [
        *(submitted(_NEW, "'two'"), submitted(STRANGER, "'two'")),
        *(ended_at_once(_NEW, "requested"), ended_at_once(STRANGER, "requested")),
    ],
    "the counts are those of the places": ["UPDATE queue_counts SET delta = 2"],
}


def _event(job: str, attempt: int, ev: str, t: float, pid: int = 1) -> Event:
    return Event(t, pid, job, attempt, ev)


def _ran(job: str, attempt: int, since: float, until: float) -> list[Event]:
    return [_event(job, attempt, "start", since), _event(job, attempt, "end", until)]


_EVENTS = [
    *(_ran(A, 1, 1, 2) + _ran(B, 1, 1, 2) + [_event(B, 2, "start", 3)] + _ran(B, 3, 5, 6)),
    *(_ran(C, 1, 1, 2) + _ran(C, 2, 2.5, 2.6) + _ran(C, 3, 4, 5) + _ran(C, 4, 5, 6)),
]
_EVIDENCE = Evidence([A, B, C, D], _EVENTS)


@pytest.fixture
async def con(dsn: str) -> AsyncIterator[Connection]:
    con = await asyncpg.connect(dsn)
    await keep_trail(con)
    for transaction in _WELL:
        await con.execute(transaction)
    yield con
    await con.close()


async def test_what_is_right_passes(con: Connection) -> None:
    report = await check(con, _EVIDENCE)
    assert report.jobs == 4
    assert report.outcomes == {"succeeded": 3, "failed": 4, "lost": 1}
    assert report.late_s == 1.0


async def test_every_rule_is_broken_below() -> None:
    assert _BREAKS.keys() == RULES.keys()


@pytest.mark.parametrize("rule", _BREAKS)
async def test_each_rule_catches_what_breaks_it(con: Connection, rule: str) -> None:
    for transaction in _BREAKS[rule]:
        await con.execute(transaction)
    with pytest.raises(Violations, match=rule):
        await check(con, _EVIDENCE)


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


def _said(job: str, said: Said, **fields: object) -> Submitted:
    return replace(Submitted(f"marker {job}", said), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "log"),
    [
        ("I1 a submission is stored whole", [_said(A, Said.UNKNOWN, count=2)]),
        ("I1 a submission is stored whole", [_said(STRANGER, Said.OK), _said(A, Said.OK, count=3)]),
        ("I1 what was answered is what was stored", [_said(A, Said.OK, ids=(B,))]),
        ("I1 what was answered is what was stored", [_said(STRANGER, Said.OK, ids=(STRANGER,))]),
        ("I1b what was refused is not there", [_said(A, Said.FAILED)]),
        (
            "I11 a key has one answer",
            [_said(A, Said.OK, ids=(A,), key="k"), _said(B, Said.OK, ids=(B,), key="k")],
        ),
    ],
)
async def test_the_submission_log_is_held_against_the_jobs(
    con: Connection, rule: str, log: list[Submitted]
) -> None:
    with pytest.raises(Violations, match=rule):
        await check(con, replace(_EVIDENCE, submitted=log))


async def test_a_submission_log_that_fits_passes(con: Connection) -> None:
    log = [
        _said(A, Said.OK, ids=(A,), key="k"),
        _said(A, Said.UNKNOWN, key="k"),
        _said(A, Said.FAILED, key="k"),  # refused the third time: it had been stored before
        _said(B, Said.UNKNOWN),
        _said(STRANGER, Said.UNKNOWN),
        Submitted("marker of nothing", Said.FAILED),
    ]
    await check(con, replace(_EVIDENCE, submitted=log))


_DRAINED = Drained(pid=1, signalled_at=6.0, exited_at=7.0, status=0, grace_s=1.0)


@pytest.mark.parametrize(
    ("rule", "drained"),
    [
        ("I15 a drain ends in time", replace(_DRAINED, status=1)),
        ("I15 a drain ends in time", replace(_DRAINED, exited_at=12.5)),
        ("I15 nothing starts in a drain", replace(_DRAINED, signalled_at=4.8, exited_at=5.0)),
    ],
)
async def test_drains_are_held_against_the_log(
    con: Connection, rule: str, drained: Drained
) -> None:
    await check(con, replace(_EVIDENCE, drains=[_DRAINED]))
    with pytest.raises(Violations, match=rule):
        await check(con, replace(_EVIDENCE, drains=[drained]))


async def test_what_a_drained_replica_left_to_be_lost_is_caught(con: Connection) -> None:
    await con.execute(_CONDEMNED.partition(";")[0])  # its pid is 7, and B was lost under its name
    with pytest.raises(Violations, match="I15 a drain hands back what it had"):
        await check(con, replace(_EVIDENCE, drains=[replace(_DRAINED, pid=7)]))
    await check(con, replace(_EVIDENCE, drains=[_DRAINED]))


async def test_a_sample_beyond_its_cap_is_caught(con: Connection) -> None:
    samples = [Sample("one", {"fds": 40, "rss_bytes": 9e9}), Sample("two", {"fds": 50})]
    await check(con, replace(_EVIDENCE, samples=samples, caps={"fds": 50}))
    with pytest.raises(Violations, match="two: fds 50 > 49"):
        await check(con, replace(_EVIDENCE, samples=samples, caps={"fds": 49}))


async def test_a_secret_in_a_log_or_an_error_is_caught_and_not_repeated(
    con: Connection, tmp_path: Path
) -> None:
    log = tmp_path / "replica.log"
    log.write_text("all is well\n")
    evidence = replace(_EVIDENCE, canaries=["hush-hush"], texts=[log])
    await check(con, evidence)
    log.write_text("the password is hush-hush\n")
    with pytest.raises(Violations, match="I18") as caught:
        await check(con, evidence)
    assert "hush-hush" not in str(caught.value)
    log.write_text("")
    await con.execute("""UPDATE attempts SET error = '{"message":"hush-hush"}'""")
    with pytest.raises(Violations, match="I18"):
        await check(con, evidence)


async def test_a_loss_is_caught_where_nobody_died(con: Connection) -> None:
    await check(con, replace(_EVIDENCE, lost_max=1))
    with pytest.raises(Violations, match="I6b nothing is lost while its worker lives"):
        await check(con, replace(_EVIDENCE, lost_max=0))


async def test_a_late_start_is_caught_where_a_limit_is_given(con: Connection) -> None:
    await check(con, replace(_EVIDENCE, late_max_s=1.0))
    with pytest.raises(Violations, match="I9 what is due starts soon"):
        await check(con, replace(_EVIDENCE, late_max_s=0.9))
