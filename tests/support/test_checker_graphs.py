"""The checker's rules of graphs: they pass what is right, and each catches what breaks it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.checker import Connection, Evidence, Violations, check, graphs, keep_trail

LOOSE = "00000000-0000-0000-0000-000000000000"
WORKER = "00000000-0000-7000-8000-0000000000aa"
# One workflow of which a job dies; one that stops; one that is held by a job; two loose jobs.
W, S, N = (f"00000000-0000-7000-9000-00000000000{n}" for n in range(1, 4))
_JOBS = [*"abcdefghijklm"]
ID = {name: f"00000000-0000-7000-8000-0000000000{n:02}" for n, name in enumerate(_JOBS, start=1)}


def at(second: float) -> str:
    return f"'2026-01-01 00:00:{second:04.1f}Z'"


def workflow(id_: str, total: int, on_failure: str = "continue", holder: str = "") -> str:
    held = f"'{ID[holder]}'" if holder else "NULL"
    return f"""
        INSERT INTO workflows (workflow_id, name, on_failure, queues, created_by, holder_id,
                               ancestors, total)
        VALUES ('{id_}', 'w', '{on_failure}', '{{q}}', 'me', {held}, '{{}}', {total});"""


def job(name: str, graph: str, *parents: str, run_if: str = "", kind: str = "echo") -> str:
    """A job that was submitted; with parents, a blocked one."""
    is_loose = graph == LOOSE
    asked = [ID[one] if is_loose else one for one in parents]
    depends_on = f"ARRAY[{','.join(repr(one) for one in asked)}]" if parents else "NULL"
    condition = run_if or ("all_succeeded" if parents else "")
    head = f"'{ID[name]}', 'q', '{kind}', 5"
    spec = f"""
        INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s,
                          on_lost, created_by, workflow_id, name, depends_on, run_if)
        VALUES ({head}, 'null', {at(0)}, 1, 60, 'retry', 'me',
                nullif('{graph}', '{LOOSE}')::uuid, {"NULL" if is_loose else f"'{name}'"},
                {depends_on}, nullif('{condition}', ''));"""
    if not parents:
        return f"""{spec}
            INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                                 graph_id)
            VALUES ({head}, {at(0)}, 0, 0, 0, '{graph}');"""
    edges = ",".join(f"('{ID[one]}', '{ID[name]}', '{graph}')" for one in parents)
    return f"""{spec}
        INSERT INTO job_blocked (job_id, queue, kind, priority, graph_id, run_at, run_if, parents,
                                 succeeded, dead, cancelled, skipped, attempt)
        VALUES ({head}, '{graph}', {at(0)}, '{condition}', {len(parents)}, 0, 0, 0, 0, 0);
        INSERT INTO job_edges (parent_id, child_id, graph_id) VALUES {edges};"""


def started(name: str, when: float, worker: str = WORKER) -> str:
    return f"""
        WITH d AS (DELETE FROM job_due WHERE job_id = '{ID[name]}' RETURNING *)
        INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at,
                                 failures, losses, started_at, graph_id)
        SELECT job_id, attempt + 1, '{WORKER}', queue, kind, priority, ready_at, failures, losses,
               {at(when)}, graph_id FROM d;
        UPDATE job_running SET worker_id = '{worker}' WHERE job_id = '{ID[name]}';"""


def unlocked(name: str) -> str:
    return f"""
        WITH b AS (DELETE FROM job_blocked WHERE job_id = '{ID[name]}' RETURNING *)
        INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                             graph_id)
        SELECT job_id, queue, kind, priority, run_at, 0, 0, 0, graph_id FROM b;"""


def settled(name: str, when: float, state: str = "succeeded") -> str:
    failures = int(state == "dead")
    return f"""
        WITH r AS (DELETE FROM job_running WHERE job_id = '{ID[name]}' RETURNING *),
        a AS (INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)
              SELECT job_id, attempt, worker_id, started_at, {at(when)},
                     '{"failed" if failures else state}' FROM r)
        INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at,
                               graph_id)
        SELECT job_id, queue, kind, '{state}', attempt, {failures}, 0, {at(when)}, graph_id FROM r;
        {counted(state)}"""


def ended(name: str, place: str, state: str, reason: str = "NULL") -> str:
    """A job that ended before it began."""
    return f"""
        WITH b AS (DELETE FROM {place} WHERE job_id = '{ID[name]}' RETURNING *)
        INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, reason,
                               finished_at, graph_id)
        SELECT job_id, queue, kind, '{state}', 0, 0, 0, {reason}, {at(9)}, graph_id FROM b;
        {counted(state)}"""


def counted(state: str) -> str:
    return f"INSERT INTO queue_counts (queue, state, delta) VALUES ('q', '{state}', 1);"


def changed(id_: str, sets: str) -> str:
    return f"UPDATE workflows SET {sets} WHERE workflow_id = '{id_}';"


def over(state: str, **counts: int) -> str:
    sets = ", ".join(f"{name} = {count}" for name, count in counts.items())
    return f"state = '{state}', finished_at = {at(9)}, {sets}"


# Each is a transaction of its own.
_WELL = [
    workflow(W, 5)
    + (job("a", W) + job("b", W, "a") + job("c", W) + job("d", W, "c"))
    + job("e", W, "a", "c", run_if="any_failed"),
    *(started("a", 1), started("c", 1)),
    settled("a", 2) + unlocked("b"),
    settled("c", 2.5, "dead") + unlocked("e") + ended("d", "job_blocked", "skipped"),
    *(started("b", 3), started("e", 3), settled("b", 4)),
    settled("e", 5) + changed(W, over("failed", succeeded=3, dead=1, skipped=1)),
    workflow(S, 4, "stop")
    + (job("f", S) + job("g", S) + job("h", S, "f", run_if="all_finished") + job("i", S, "g")),
    started("f", 1),
    settled("f", 2, "dead")
    + unlocked("h")
    + ended("g", "job_due", "cancelled", "'workflow-stopped'")
    + ended("i", "job_blocked", "cancelled", "'workflow-stopped'")
    + changed(S, "halt = 'stop', dead = 1, cancelled = 2"),
    started("h", 3),
    settled("h", 4) + changed(S, over("failed", succeeded=1)),
    job("j", LOOSE, kind="workflow") + job("k", LOOSE, "j"),
    started("j", 1, N) + workflow(N, 1, holder="j") + job("l", N),
    started("l", 2),
    settled("l", 3) + changed(N, over("succeeded", succeeded=1)) + settled("j", 3) + unlocked("k"),
    *(started("k", 4), settled("k", 5)),
    # Its parent was over when it came.
    job("m", LOOSE, "j", run_if="all_failed") + ended("m", "job_blocked", "skipped"),
]
_EVIDENCE = Evidence([id_ for name, id_ in ID.items() if name != "l"], [])
_END = f"""INSERT INTO trail (place, op, worker_id, note)
           VALUES ('workflows', 'END', '{W}', 'failed')"""

# What breaks each rule, transaction by transaction.
_BREAKS = {
    "I3 edges are those that were asked for": [f"DELETE FROM job_edges WHERE graph_id = '{LOOSE}'"],
    "I3 what has parents has a condition": ["UPDATE jobs SET run_if = NULL WHERE name = 'b'"],
    "I3 a job is unlocked when its condition holds": [
        "UPDATE jobs SET run_if = 'all_succeeded' WHERE name = 'e'"
    ],
    "I3 a job is skipped when its condition can't hold": [
        "UPDATE jobs SET run_if = 'any_failed' WHERE name = 'd'"
    ],
    "I3 what ends before it was due was skipped or cancelled": [
        f"UPDATE trail SET note = 'dead' WHERE note = 'skipped' AND job_id = '{ID['m']}'"
    ],
    "I3 an attempt begins after the parents that it waited for": [
        f"UPDATE attempts SET started_at = {at(1.9)} WHERE job_id = '{ID['b']}'"
    ],
    "I3b nothing is blocked": [
        f"""INSERT INTO job_blocked (job_id, queue, kind, priority, graph_id, run_at, run_if,
                                     parents, succeeded, dead, cancelled, skipped, attempt)
            VALUES ('{ID["d"]}', 'q', 'echo', 5, '{W}', now(), '', 1, 0, 0, 0, 0, 0)"""
    ],
    "I3b all children were told": [
        f"INSERT INTO job_spreads VALUES ('{ID['a']}', '{W}', 'succeeded', '{ID['b']}')"
    ],
    "I3b every halt came to its end": [changed(S, "halting = true")],
    "I3b what was skipped can't hold": [
        f"UPDATE job_ended SET state = 'succeeded' WHERE job_id = '{ID['c']}'"
    ],
    "I3 a workflow counts its jobs": [changed(W, "succeeded = 2")],
    "I3 a workflow's job belongs to one": [f"DELETE FROM workflows WHERE workflow_id = '{W}'"],
    "I3b a workflow is over when its jobs are": [
        changed(W, "state = 'running', finished_at = NULL")
    ],
    "I3 a workflow ends as its jobs did": [changed(W, "state = 'succeeded'")],
    "I3 a workflow ends once a life": [_END],
    "I3 nothing of a workflow moves after its end": [
        f"DELETE FROM job_ended WHERE job_id = '{ID['a']}'"
    ],
    "I3 a workflow ends with the last of its jobs": [_END],
    "I3 a job ends with the workflow that it holds": [
        f"""UPDATE trail SET xid = pg_current_xact_id()
            WHERE job_id = '{ID["j"]}' AND (place, op) IN (('job_running', 'DELETE'),
                                                           ('job_ended', 'INSERT'))"""
    ],
    "I3 a job ends as the workflow that it holds": [
        f"UPDATE trail SET note = 'dead' WHERE note = 'succeeded' AND job_id = '{ID['j']}'"
    ],
    "I3 a workflow is held by a job of its kind": [
        f"UPDATE jobs SET kind = 'logged' WHERE job_id = '{ID['j']}'"
    ],
    "I3 a stop spares what has begun, what cleans up and what nobody asked it for": [
        "UPDATE jobs SET run_if = 'any_failed' WHERE name = 'i'"
    ],
    "I3 a death halts a workflow that stops": ["UPDATE workflows SET on_failure = 'stop'"],
    "I3 a cancel asks what runs to stop": [
        f"UPDATE trail SET note = 'cancel' WHERE op ~ 'HALT' AND worker_id = '{S}'"
    ],
    "I3 nothing begins in a workflow that was halted": [
        f"DELETE FROM job_ended WHERE job_id = '{ID['g']}'",
        f"""INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
            VALUES ('{ID["g"]}', 'q', 'logged', 5, {at(0)}, 0, 0, 0)""",
        started("g", 9),
    ],
}


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
    assert report.jobs == len(ID)
    assert report.recovered == 0


async def test_every_rule_is_broken_below() -> None:
    assert _BREAKS.keys() == graphs.RULES.keys()


@pytest.mark.parametrize("rule", _BREAKS)
async def test_each_rule_catches_what_breaks_it(con: Connection, rule: str) -> None:
    for transaction in _BREAKS[rule]:
        await con.execute(transaction)
    with pytest.raises(Violations, match=rule):
        await check(con, _EVIDENCE)
