"""Rules of jobs that depend on one another and of workflows, as PostgreSQL alone can answer them:
I3 (order), I3b (completeness).

All that moves a job of a graph from or to its end locks the graph first. So the trail's order is
that of what happened, and how a job's parents stood when it was unlocked or skipped can be read
from it: as the transaction left them that did it. A retry may move parents on afterwards; what
their children were told stands.

Each query answers the jobs, or workflows, that break its rule.
"""

# Of n parents that many succeeded, died, were cancelled, were skipped: s, d, c, k.
HOLDS = """(CASE run_if
    WHEN 'all_succeeded' THEN s = n WHEN 'all_failed' THEN d = n WHEN 'all_skipped' THEN k = n
    WHEN 'all_finished' THEN s + d + c + k = n
    WHEN 'any_succeeded' THEN s > 0 WHEN 'any_failed' THEN d > 0
    WHEN 'none_failed' THEN s + c + k = n WHEN 'none_skipped' THEN s + d + c = n
    ELSE false END)"""
NEVER = """(CASE run_if
    WHEN 'all_succeeded' THEN d + c + k > 0 WHEN 'all_failed' THEN s + c + k > 0
    WHEN 'all_skipped' THEN s + d + c > 0
    WHEN 'any_succeeded' THEN d + c + k = n WHEN 'any_failed' THEN s + c + k = n
    WHEN 'none_failed' THEN d > 0 WHEN 'none_skipped' THEN k > 0
    ELSE false END)"""

_LOOSE = "'00000000-0000-0000-0000-000000000000'::uuid"
_SPARED = "('all_finished', 'any_failed', 'all_failed')"

# `ends`: since when and until when, by the trail, each job was over, and as what. `lasts`: the last
# line of each transaction. `asked`: which parents jobs asked for. `turns`: how each parent stood
# when a child of it was unlocked or skipped, counted. `eras`: from what happened to a workflow
# (BEGIN, HALT, …) until what happened to it next. `halts`: from when nothing more of a workflow
# waited that a halt lets go, until a retry.
PREPARED = f"""
CREATE TEMPORARY TABLE ends AS
SELECT job_id, state, since, until FROM (
    SELECT job_id, op, split_part(note, ' ', 1) AS state, seq AS since,
           lead(seq, 1, 9223372036854775807) OVER (PARTITION BY job_id ORDER BY seq) AS until
    FROM trail WHERE place = 'job_ended'
) e WHERE op = 'INSERT';
CREATE TEMPORARY TABLE lasts AS
SELECT xid, min(seq) AS first, max(seq) AS last FROM trail GROUP BY xid;
CREATE TEMPORARY TABLE asked AS
SELECT j.job_id, coalesce(p.job_id, CASE WHEN j.workflow_id IS NULL THEN d.parent::uuid END)
       AS parent_id, coalesce(j.workflow_id, {_LOOSE}) AS graph_id
FROM jobs j CROSS JOIN LATERAL (SELECT DISTINCT unnest(j.depends_on) AS parent) d
LEFT JOIN jobs p ON p.workflow_id = j.workflow_id AND p.name = d.parent;
ANALYZE ends; ANALYZE lasts; ANALYZE asked;
CREATE TEMPORARY TABLE turns AS
SELECT m.job_id, j.run_if, m.goal = 'job_due' AS runs, l.last, count(*) AS n,
       count(*) FILTER (WHERE e.state = 'succeeded') AS s,
       count(*) FILTER (WHERE e.state = 'dead') AS d,
       count(*) FILTER (WHERE e.state = 'cancelled') AS c,
       count(*) FILTER (WHERE e.state = 'skipped') AS k
FROM last_moves m JOIN jobs j USING (job_id) JOIN lasts l USING (xid)
JOIN asked a USING (job_id)
LEFT JOIN ends e ON e.job_id = a.parent_id AND e.since <= l.last AND l.last < e.until
WHERE (m.goal = 'job_due' AND m.origin IS DISTINCT FROM 'job_running')
   OR (m.goal = 'job_ended' AND m.note ~ '^skipped')
GROUP BY m.job_id, m.xid, j.run_if, m.goal, l.last;
CREATE TEMPORARY TABLE eras AS
SELECT t.worker_id AS workflow_id, t.op, t.note, t.xid, t.seq, l.first, l.last,
       lead(l.first, 1, 9223372036854775807) OVER w AS until,
       lag(t.op) OVER w = 'HALTED' AND lag(t.xid) OVER w = t.xid AS was_halt
FROM trail t JOIN lasts l USING (xid)
WHERE t.place = 'workflows' WINDOW w AS (PARTITION BY t.worker_id ORDER BY t.seq);
CREATE TEMPORARY TABLE halts AS
SELECT e.workflow_id, e.note AS halt, e.last AS since, coalesce(min(r.first), 9223372036854775807)
       AS until
FROM eras e
LEFT JOIN eras r ON r.workflow_id = e.workflow_id AND r.op = 'UNHALT' AND r.seq > e.seq
WHERE e.op = 'HALTED' GROUP BY e.workflow_id, e.seq, e.note, e.last;
ANALYZE turns; ANALYZE eras;
"""
FORGOTTEN = "DROP TABLE IF EXISTS ends, lasts, asked, turns, eras, halts"

EDGES = {
    "I3 edges are those that were asked for": """
        SELECT coalesce(a.job_id, e.child_id) AS job_id FROM asked a
        FULL JOIN job_edges e
             ON (e.child_id, e.parent_id, e.graph_id) = (a.job_id, a.parent_id, a.graph_id)
        WHERE a.job_id IS NULL OR e.child_id IS NULL""",
    "I3 what has parents has a condition": """
        SELECT job_id FROM jobs WHERE (run_if IS NULL) <> (depends_on IS NULL)""",
}

ORDER = {
    "I3 a job is unlocked when its condition holds": f"""
        SELECT job_id FROM turns WHERE runs AND NOT {HOLDS}""",
    "I3 a job is skipped when its condition can't hold": f"""
        SELECT job_id FROM turns WHERE NOT runs AND NOT {NEVER}""",
    "I3 what ends before it was due was skipped or cancelled": """
        SELECT m.job_id FROM last_moves m JOIN jobs j USING (job_id)
        WHERE m.goal = 'job_ended' AND CASE WHEN m.note ~ '^skipped'
              THEN coalesce(m.origin, 'job_blocked') <> 'job_blocked' OR j.run_if IS NULL
              ELSE coalesce(m.origin, 'job_blocked') = 'job_blocked' AND m.note !~ '^cancelled'
              END""",
    # By the clock, of jobs in their first life whose parents are in theirs.
    "I3 an attempt begins after the parents that it waited for": """
        SELECT a.job_id FROM (
            SELECT a.job_id, j.run_if, min(a.started_at) AS began FROM attempts a
            JOIN jobs j USING (job_id) WHERE j.run_if IS NOT NULL
              AND NOT EXISTS (SELECT 1 FROM last_moves m
                              WHERE m.job_id = a.job_id AND m.origin = 'job_ended')
            GROUP BY a.job_id, j.run_if
        ) a JOIN asked p USING (job_id) JOIN job_ended e ON e.job_id = p.parent_id
        GROUP BY a.job_id, a.run_if, a.began
        HAVING NOT bool_or(EXISTS (SELECT 1 FROM last_moves m WHERE m.job_id = e.job_id
                                   AND m.origin = 'job_ended'))
           AND a.began < CASE a.run_if
               WHEN 'any_succeeded' THEN min(e.finished_at) FILTER (WHERE e.state = 'succeeded')
               WHEN 'any_failed' THEN min(e.finished_at) FILTER (WHERE e.state = 'dead')
               ELSE max(e.finished_at) END""",
}

COMPLETE = {
    "I3b nothing is blocked": "SELECT job_id FROM job_blocked",
    "I3b all children were told": "SELECT parent_id AS job_id FROM job_spreads",
    "I3b every halt came to its end": "SELECT workflow_id AS job_id FROM workflows WHERE halting",
    # Of workflows: a retry of a parent takes up what lies below it.
    "I3b what was skipped can't hold": f"""
        SELECT job_id FROM (
            SELECT c.job_id, j.run_if, count(*) AS n,
                   count(*) FILTER (WHERE e.state = 'succeeded') AS s,
                   count(*) FILTER (WHERE e.state = 'dead') AS d,
                   count(*) FILTER (WHERE e.state = 'cancelled') AS c,
                   count(*) FILTER (WHERE e.state = 'skipped') AS k
            FROM job_ended c JOIN jobs j USING (job_id) JOIN asked a USING (job_id)
            JOIN job_ended e ON e.job_id = a.parent_id
            WHERE c.state = 'skipped' AND j.workflow_id IS NOT NULL GROUP BY c.job_id, j.run_if
        ) f WHERE NOT {NEVER}""",
}

WORKFLOWS = {
    "I3 a workflow counts its jobs": """
        SELECT w.workflow_id AS job_id FROM workflows w
        LEFT JOIN (
            SELECT j.workflow_id, count(*) AS total,
                   count(*) FILTER (WHERE e.state = 'succeeded') AS succeeded,
                   count(*) FILTER (WHERE e.state = 'dead') AS dead,
                   count(*) FILTER (WHERE e.state = 'cancelled') AS cancelled,
                   count(*) FILTER (WHERE e.state = 'skipped') AS skipped
            FROM jobs j LEFT JOIN job_ended e USING (job_id) WHERE j.workflow_id IS NOT NULL
            GROUP BY j.workflow_id
        ) c USING (workflow_id)
        WHERE (w.total, w.succeeded, w.dead, w.cancelled, w.skipped)
              IS DISTINCT FROM (c.total, c.succeeded, c.dead, c.cancelled, c.skipped)""",
    "I3 a workflow's job belongs to one": """
        SELECT j.job_id FROM jobs j LEFT JOIN workflows w USING (workflow_id)
        WHERE j.workflow_id IS NOT NULL AND w.workflow_id IS NULL""",
    "I3b a workflow is over when its jobs are": """
        SELECT w.workflow_id AS job_id FROM workflows w
        WHERE (w.state = 'running') <> (w.finished_at IS NULL)
           OR (w.state = 'running') <> (w.halting OR EXISTS (
                  SELECT 1 FROM jobs j LEFT JOIN job_ended e USING (job_id)
                  WHERE j.workflow_id = w.workflow_id AND e.job_id IS NULL))""",
    "I3 a workflow ends as its jobs did": """
        SELECT workflow_id AS job_id FROM workflows w
        WHERE state <> 'running' AND state <> CASE
              WHEN halt = 'cancel' THEN 'cancelled'
              WHEN EXISTS (SELECT 1 FROM jobs j JOIN job_ended e USING (job_id)
                           WHERE j.workflow_id = w.workflow_id AND e.state = 'dead')
              THEN 'failed' ELSE 'succeeded' END""",
    "I3 a workflow ends once a life": """
        SELECT workflow_id AS job_id FROM (
            SELECT workflow_id, op, lag(op) OVER (PARTITION BY workflow_id ORDER BY seq) AS before
            FROM eras WHERE op IN ('BEGIN', 'END', 'REOPEN')
        ) e
        WHERE (op = 'BEGIN') <> (before IS NULL) OR (op = 'REOPEN' AND before <> 'END')
           OR (op = 'END' AND before = 'END')""",
    "I3 nothing of a workflow moves after its end": """
        SELECT m.job_id FROM eras e JOIN jobs j USING (workflow_id)
        JOIN last_moves m ON m.job_id = j.job_id AND m.seq > e.last AND m.seq < e.until
        WHERE e.op = 'END' AND m.xid <> e.xid""",
    # A halt of many may find in its last step that nothing is left.
    "I3 a workflow ends with the last of its jobs": """
        SELECT e.workflow_id AS job_id FROM eras e
        WHERE e.op = 'END' AND e.was_halt IS NOT TRUE AND NOT EXISTS (
            SELECT 1 FROM jobs j JOIN last_moves m USING (job_id)
            WHERE j.workflow_id = e.workflow_id AND m.xid = e.xid AND m.goal = 'job_ended')""",
}

NESTED = {
    "I3 a job ends with the workflow that it holds": """
        SELECT w.holder_id AS job_id FROM workflows w
        JOIN eras e ON e.workflow_id = w.workflow_id AND e.op = 'END'
        LEFT JOIN last_moves m ON m.job_id = w.holder_id AND m.xid = e.xid
             AND m.origin = 'job_running' AND m.goal = 'job_ended'
        WHERE w.holder_id IS NOT NULL AND m.job_id IS NULL
        UNION ALL
        SELECT m.job_id FROM last_moves m
        JOIN attempts a ON a.job_id = m.job_id AND a.attempt = m.attempt_before
        JOIN workflows w ON w.holder_id = m.job_id AND w.workflow_id = a.worker_id
        LEFT JOIN eras e ON e.workflow_id = w.workflow_id AND e.op = 'END' AND e.xid = m.xid
        WHERE m.origin = 'job_running' AND e.workflow_id IS NULL""",
    "I3 a job ends as the workflow that it holds": """
        SELECT m.job_id FROM workflows w
        JOIN eras e ON e.workflow_id = w.workflow_id AND e.op = 'END'
        JOIN last_moves m ON m.job_id = w.holder_id AND m.xid = e.xid AND m.goal = 'job_ended'
        WHERE NOT CASE e.note
              WHEN 'succeeded' THEN m.note ~ '^succeeded'
              WHEN 'failed' THEN m.note ~ '^dead' OR (m.note_before = 'stop'
                                                      AND m.note ~ '^cancelled')
              ELSE m.note ~ '^cancelled' END""",
    "I3 a workflow is held by a job of its kind": """
        SELECT w.workflow_id AS job_id FROM workflows w LEFT JOIN jobs j ON j.job_id = w.holder_id
        WHERE w.holder_id IS NOT NULL AND j.kind IS DISTINCT FROM 'workflow'""",
}

HALTS = {
    "I3 a stop spares what has begun, what cleans up and what nobody asked it for": f"""
        SELECT m.job_id FROM last_moves m JOIN jobs j USING (job_id)
        LEFT JOIN workflows w USING (workflow_id)
        WHERE m.note = 'cancelled workflow-stopped' AND (
              w.on_failure IS DISTINCT FROM 'stop' OR j.run_if IN {_SPARED}
              OR coalesce(m.origin, '') NOT IN ('job_due', 'job_blocked')
              OR m.failures + m.losses + m.crashes > 0
              OR NOT EXISTS (SELECT 1 FROM jobs o JOIN ends e USING (job_id) JOIN lasts l
                                  ON l.xid = m.xid
                             WHERE o.workflow_id = j.workflow_id AND e.state = 'dead'
                               AND e.since <= l.last))""",
    "I3 a death halts a workflow that stops": """
        SELECT m.job_id FROM last_moves m JOIN jobs j USING (job_id)
        JOIN workflows w USING (workflow_id)
        WHERE w.on_failure = 'stop' AND m.goal = 'job_ended' AND m.note ~ '^dead'
          AND NOT EXISTS (SELECT 1 FROM eras e WHERE e.workflow_id = w.workflow_id
                          AND e.op = 'HALT' AND e.xid = m.xid)
          AND coalesce((SELECT e.op FROM eras e WHERE e.workflow_id = w.workflow_id
                        AND e.op IN ('HALT', 'UNHALT') AND e.seq < m.seq
                        ORDER BY e.seq DESC LIMIT 1), '') <> 'HALT'""",
    "I3 a cancel asks what runs to stop": """
        SELECT m.job_id FROM halts h JOIN jobs j USING (workflow_id)
        JOIN last_moves m ON m.job_id = j.job_id AND m.seq > h.since AND m.seq < h.until
        WHERE h.halt = 'cancel' AND m.origin = 'job_running'
          AND m.note_before IS DISTINCT FROM 'stop'""",
    # What has begun before may begin again, if it was a stop.
    "I3 nothing begins in a workflow that was halted": f"""
        SELECT m.job_id FROM halts h JOIN jobs j USING (workflow_id)
        JOIN last_moves m ON m.job_id = j.job_id AND m.seq > h.since AND m.seq < h.until
        WHERE m.goal = 'job_running' AND (h.halt = 'cancel' OR (
              coalesce(j.run_if, '') NOT IN {_SPARED} AND NOT EXISTS (
                  SELECT 1 FROM last_moves b
                  WHERE b.job_id = m.job_id AND b.goal = 'job_running' AND b.seq < m.seq
                    AND b.seq > coalesce((SELECT max(l.seq) FROM last_moves l
                                          WHERE l.job_id = m.job_id AND l.origin = 'job_ended'
                                            AND l.seq < m.seq), 0))))""",
}

RULES = {**EDGES, **ORDER, **COMPLETE, **WORKFLOWS, **NESTED, **HALTS}
