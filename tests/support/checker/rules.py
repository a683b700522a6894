"""Rules that PostgreSQL alone can answer. Names are those of reliability.md, section 2, where it
has one. Those of graphs (I3) are in graphs.py; I5 and I12 come with outlets, I10 with schedules.

Each query answers the jobs that break its rule. `$1`, where it is used: the accepted ids. They read
`last_moves`: the view `moves`, kept for the length of a check.
"""

from uuid import UUID

from penstock.store import queries

PREPARED = """
CREATE TEMPORARY TABLE last_moves AS SELECT * FROM moves;
CREATE INDEX ON last_moves (job_id, seq);
ANALYZE last_moves;
"""
FORGOTTEN = "DROP TABLE IF EXISTS last_moves"

# What an attempt's outcome costs: failures, losses, crashes. An ending that isn't here breaks I4.
_CHARGES = """
(VALUES ('succeeded', 0, 0, 0), ('failed', 1, 0, 0), ('timed_out', 1, 0, 0), ('lost', 0, 1, 0),
        ('crashed', 0, 0, 1), ('released', 0, 0, 0), ('cancelled', 0, 0, 0)
) AS c(outcome, failures, losses, crashes)"""

ACCEPTED = {
    "I1 what was accepted is there": """
        SELECT a AS job_id FROM unnest($1::uuid[]) a
        WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.job_id = a)""",
    "I1 what was accepted is over": """
        SELECT a AS job_id FROM unnest($1::uuid[]) a
        WHERE NOT EXISTS (SELECT 1 FROM job_ended e WHERE e.job_id = a)""",
    "I1 nothing is due or running": """
        SELECT job_id FROM job_due UNION ALL SELECT job_id FROM job_running""",
}

MOVES = {
    # A caller's retry is the last of these: the end of a life and the birth of the next, by one
    # transaction. A row that leaves job_ended in any other way has no goal, or not this one.
    "I2 a job moves only from place to place": """
        SELECT job_id FROM last_moves
        WHERE concat(origin, '>', goal) NOT IN
              ('>job_due', 'job_due>job_running', 'job_running>job_due', 'job_running>job_ended',
               'job_due>job_ended', 'job_ended>job_due', '>job_blocked', 'job_blocked>job_due',
               'job_blocked>job_ended', 'job_ended>job_blocked', '>job_ended')""",
    "I2 a job is born once": """
        SELECT j.job_id FROM jobs j
        LEFT JOIN last_moves m ON m.job_id = j.job_id AND m.origin IS NULL
        GROUP BY j.job_id HAVING count(m.job_id) <> 1""",
    "I2 each move begins where the one before ended": """
        SELECT job_id FROM (
            SELECT job_id, origin, lag(goal) OVER (PARTITION BY job_id ORDER BY seq) AS before
            FROM last_moves
        ) m WHERE origin IS DISTINCT FROM before""",
    "I2 a new life is for what didn't succeed, and is fresh": """
        SELECT job_id FROM last_moves
        WHERE origin = 'job_ended'
          AND (note_before ~ '^succeeded' OR failures + losses + crashes <> 0
               OR attempt <> attempt_before)""",
    "I4 each start counts one up": """
        SELECT job_id FROM last_moves
        WHERE attempt <> attempt_before + CASE goal WHEN 'job_running' THEN 1 ELSE 0 END""",
    "I4 an attempt begins once": """
        SELECT job_id FROM last_moves WHERE goal ~ 'job_running'
        GROUP BY job_id, attempt HAVING count(*) > 1""",
    "I4 an attempt that began was settled": """
        SELECT m.job_id FROM last_moves m LEFT JOIN attempts a USING (job_id, attempt)
        WHERE m.goal ~ 'job_running' AND a.job_id IS NULL""",
    "I4 an attempt costs what its outcome costs": f"""
        SELECT m.job_id FROM last_moves m
        LEFT JOIN attempts a ON a.job_id = m.job_id AND a.attempt = m.attempt
             AND m.origin = 'job_running'
        LEFT JOIN {_CHARGES} ON c.outcome = coalesce(a.outcome, 'released')
        WHERE m.origin IN ('job_due', 'job_running') AND (
              c.outcome IS NULL
              OR m.failures - m.failures_before NOT IN (c.failures,
                     CASE WHEN m.note ~ '^cancelled' THEN 0 ELSE c.failures END)
              OR m.losses - m.losses_before NOT IN (c.losses,
                     CASE WHEN m.note ~ '^cancelled' THEN 0 ELSE c.losses END)
              OR m.crashes - m.crashes_before NOT IN (c.crashes,
                     CASE WHEN m.note ~ '^cancelled' THEN 0 ELSE c.crashes END))""",
    "I4 failures stay within the budget": """
        SELECT m.job_id FROM last_moves m JOIN jobs j USING (job_id)
        WHERE m.failures > j.max_attempts
           OR (m.origin = 'job_running' AND m.goal = 'job_due' AND m.failures >= j.max_attempts)
           OR (m.note = 'dead attempts-exhausted' AND m.failures < j.max_attempts)""",
    "I6 whoever began an attempt ended it": """
        SELECT m.job_id FROM last_moves m LEFT JOIN attempts a USING (job_id, attempt)
        WHERE m.origin = 'job_running' AND a.worker_id::text IS DISTINCT FROM m.worker_before
        UNION ALL
        SELECT m.job_id FROM last_moves m JOIN attempts a USING (job_id, attempt)
        WHERE m.goal = 'job_running' AND a.worker_id::text <> m.worker AND NOT EXISTS (
            SELECT 1 FROM workflows w
            WHERE w.holder_id = a.job_id AND w.workflow_id = a.worker_id)""",
    # Two seconds: the condemning statement reads the clock before it commits.
    "I6 nothing begins under a condemned name": """
        SELECT m.job_id FROM last_moves m
        JOIN trail w ON w.place = 'workers' AND w.op = 'CONDEMN' AND w.worker_id = m.worker::uuid
        WHERE m.goal = 'job_running' AND m.at > w.at + interval '2 s'""",
    "I6 what was asked to stop doesn't go on": """
        SELECT job_id FROM last_moves
        WHERE note_before = 'stop' AND (goal <> 'job_ended' OR note !~ '^(cancelled|succeeded)')""",
    # A new life begins at once, whatever time its job was submitted for.
    "I9 nothing starts before its time": """
        SELECT job_id FROM last_moves WHERE goal = 'job_running' AND at < at_before
        UNION ALL
        SELECT a.job_id FROM attempts a JOIN jobs j USING (job_id)
        WHERE a.attempt = 1 AND a.started_at < j.run_at AND NOT EXISTS (
            SELECT 1 FROM last_moves m WHERE m.job_id = a.job_id AND m.origin = 'job_ended')
        UNION ALL
        SELECT a.job_id FROM attempts a
        JOIN attempts b ON b.job_id = a.job_id AND b.attempt = a.attempt + 1
        WHERE b.started_at < a.next_run_at OR b.started_at < a.finished_at""",
    "I9 only what has not been started expires": """
        SELECT m.job_id FROM last_moves m JOIN jobs j USING (job_id)
        WHERE m.note = 'cancelled expired' AND (
              m.origin NOT IN ('job_due', 'job_blocked') OR j.expires_at IS NULL
              OR m.at < j.expires_at
              OR m.attempt > coalesce((SELECT max(l.attempt) FROM last_moves l
                                       WHERE l.job_id = m.job_id AND l.origin = 'job_ended'
                                         AND l.seq < m.seq), 0))""",
    "I9 nothing starts for the first time after its expiry": """
        SELECT m.job_id FROM last_moves m JOIN jobs j USING (job_id)
        WHERE m.goal = 'job_running' AND m.attempt = 1 AND m.at >= j.expires_at""",
    # Two seconds: start sees the queues as they were when its statement began.
    "nothing starts in a paused queue": """
        SELECT m.job_id FROM last_moves m JOIN jobs j USING (job_id)
        JOIN (SELECT note AS queue, op, at, lead(at, 1, 'infinity') OVER
                     (PARTITION BY note ORDER BY seq) AS until
              FROM trail WHERE place = 'queues') s ON s.queue = j.queue AND s.op = 'PAUSE'
        WHERE m.goal = 'job_running' AND m.at > s.at + interval '2 s' AND m.at < s.until""",
    # Lives by the order of the trail: whoever takes a key waits for the end of its last holder.
    "no two live jobs have one unique key": """
        SELECT job_id FROM (
            SELECT l.job_id, l.began, max(l.ended) OVER (
                       PARTITION BY j.queue, j.unique_key ORDER BY l.began
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ended_before
            FROM (
                SELECT job_id, seq AS began, goal,
                       lead(seq, 1, 9223372036854775807) OVER (PARTITION BY job_id ORDER BY seq)
                           AS ended
                FROM last_moves
                WHERE origin IS NULL OR origin = 'job_ended' OR goal = 'job_ended'
            ) l JOIN jobs j USING (job_id)
            WHERE j.unique_key IS NOT NULL AND l.goal <> 'job_ended'
        ) lives WHERE began < ended_before""",
}

STATES = {
    "I6 the state follows from the last outcome": """
        SELECT e.job_id FROM job_ended e
        LEFT JOIN attempts a ON a.job_id = e.job_id AND a.attempt = e.attempt
        WHERE NOT CASE e.state
            WHEN 'succeeded' THEN coalesce(a.outcome = 'succeeded', false)
            WHEN 'dead' THEN coalesce(a.outcome NOT IN ('succeeded', 'released', 'cancelled'),
                                      false)
            WHEN 'cancelled' THEN a.outcome IS DISTINCT FROM 'succeeded'
            WHEN 'skipped' THEN a.outcome IS DISTINCT FROM 'succeeded'
            ELSE false END""",
    "I6 nothing comes after a success": """
        SELECT a.job_id FROM attempts a JOIN job_ended e USING (job_id)
        WHERE a.outcome = 'succeeded' AND a.attempt <> e.attempt""",
    # `logged` fails its first attempts, as many as its payload says, and no other.
    "I6 an outcome is that of its own attempt": """
        SELECT a.job_id FROM attempts a JOIN jobs j USING (job_id)
        WHERE j.kind = 'logged' AND json_typeof(j.payload) = 'object'
          AND (a.outcome = 'succeeded' AND a.attempt <= (j.payload ->> 'failures')::int
               OR a.outcome = 'failed' AND a.attempt > coalesce((j.payload ->> 'failures')::int, 0)
              )""",
    "I7 an attempt is one of a job": """
        SELECT a.job_id FROM attempts a LEFT JOIN jobs j USING (job_id) WHERE j.job_id IS NULL""",
    "I7 a live job holds its unique key": """
        SELECT p.job_id
        FROM (SELECT job_id FROM job_due UNION ALL SELECT job_id FROM job_running
              UNION ALL SELECT job_id FROM job_blocked) p
        JOIN jobs j USING (job_id)
        LEFT JOIN job_unique u ON u.job_id = p.job_id
             AND u.unique_id = job_unique_id(j.queue, j.unique_key)
        WHERE j.unique_key IS NOT NULL AND u.job_id IS NULL""",
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

# Those of the self-audit, whose pages are as large as the tables here. Columns that no page tells
# of stay where they are: the last row of a look is its cursor, which needs a full page.
_SQL = queries.load()
_PLACES, _KEYS = (
    _SQL[name].rstrip(";").replace("$1", f"'{UUID(int=0)}'::uuid").replace("$2", "2147483647")
    for name in ("audit_places", "audit_keys")
)
_BY_RULE = "SELECT job_id FROM ({}) AS p(job_id, rule) WHERE rule = '{}'"

AUDITED = {
    "I7 a job stands in a place": _BY_RULE.format(_PLACES, "no_place"),
    "I7 a job stands in no two places": _BY_RULE.format(_PLACES, "two_places"),
    "I7 what stands in a place is a job": _BY_RULE.format(_PLACES, "no_job"),
    "I7 a unique key is held by a live job": f"SELECT job_id FROM ({_KEYS}) AS k(key, job_id)",
}

RULES = {**ACCEPTED, **MOVES, **STATES, **AUDITED}
