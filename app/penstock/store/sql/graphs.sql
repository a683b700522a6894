-- Transitions of jobs that others depend on, and of workflows. All of them run in transactions that
-- have locked their graphs first (decision 0018): so none needs a lock of its own.

-- name: lock_workflows
-- Locks these workflows and those that they are nested in, in one order for all.
WITH a AS MATERIALIZED (
    SELECT workflow_id, ancestors FROM workflows WHERE workflow_id = ANY($1::uuid[])
)
SELECT workflow_id, on_failure, holder_id, ancestors, state, total, succeeded, dead, cancelled,
       skipped, halt, halting
FROM workflows
WHERE workflow_id = ANY(ARRAY(SELECT workflow_id FROM a UNION SELECT unnest(ancestors) FROM a))
ORDER BY workflow_id FOR UPDATE;

-- name: lock_loose
-- Locks the loose graph; after workflows, never before one.
SELECT pg_advisory_xact_lock(hashtextextended('loose', 0));

-- name: edges_of
-- The first $3 edges of these ended parents, each after the child that was told last: the parent's
-- place in $1, the child and its graph.
SELECT s.i::int - 1, e.child_id, e.graph_id
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS s(parent_id, after, i)
CROSS JOIN LATERAL (
    SELECT child_id, graph_id FROM job_edges
    WHERE parent_id = s.parent_id AND child_id > s.after
    ORDER BY child_id LIMIT $3
) e
ORDER BY s.i, e.child_id LIMIT $3;

-- name: tell_children
-- blocked stays blocked: the children at the first $4 edges of these ended parents count them, each
-- after the child that was told last ($2); $3: how the parents ended. One edge that leads to the loose
-- graph, and none is told, unless that is locked ($5). A row a child that waits: how it stands. And the
-- one without a condition: the last of those edges (its child and its parent's place in $1, as
-- `succeeded`), how many they were (as `parents`), whether they were told (1, as `dead`).
WITH e AS MATERIALIZED (
    SELECT s.i, s.state, e.child_id, e.graph_id
    FROM unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY AS s(parent_id, after, state, i)
    CROSS JOIN LATERAL (
        SELECT child_id, graph_id FROM job_edges
        WHERE parent_id = s.parent_id AND child_id > s.after
        ORDER BY child_id LIMIT $4
    ) e
    ORDER BY s.i, e.child_id LIMIT $4
),
f AS MATERIALIZED (
    SELECT count(*) AS n,
           $5 OR count(*) FILTER (WHERE graph_id = '00000000-0000-0000-0000-000000000000') = 0 AS told
    FROM e
),
v AS MATERIALIZED (
    SELECT child_id, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE state = 'skipped') AS skipped
    FROM e WHERE (SELECT told FROM f) GROUP BY child_id
),
u AS (
    UPDATE job_blocked b
    SET succeeded = b.succeeded + v.succeeded, dead = b.dead + v.dead,
        cancelled = b.cancelled + v.cancelled, skipped = b.skipped + v.skipped
    FROM v WHERE b.job_id = ANY(ARRAY(SELECT child_id FROM v)) AND b.job_id = v.child_id
    RETURNING b.job_id, b.graph_id, b.run_if, b.parents, b.succeeded, b.dead, b.cancelled, b.skipped
)
SELECT job_id, graph_id, run_if, parents, succeeded, dead, cancelled, skipped FROM u
UNION ALL
SELECT l.child_id, NULL, NULL, f.n::int, l.i::int - 1, f.told::int, 0, 0
FROM f LEFT JOIN (SELECT child_id, i FROM e ORDER BY i DESC, child_id DESC LIMIT 1) l ON true;

-- name: count_parents
-- blocked stays blocked: so many more of its parents have succeeded, died, been cancelled, skipped.
-- What isn't blocked any more is passed over.
WITH v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::int[])
        AS v(job_id, succeeded, dead, cancelled, skipped)
)
UPDATE job_blocked b
SET succeeded = b.succeeded + v.succeeded, dead = b.dead + v.dead,
    cancelled = b.cancelled + v.cancelled, skipped = b.skipped + v.skipped
FROM v WHERE b.job_id = ANY($1::uuid[]) AND b.job_id = v.job_id
RETURNING b.job_id, b.graph_id, b.run_if, b.parents, b.succeeded, b.dead, b.cancelled, b.skipped;

-- name: unlock_blocked
-- blocked -> due: a new place in line, not before its own time.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
d AS (
    DELETE FROM job_blocked WHERE job_id = ANY($1::uuid[])
    RETURNING job_id, graph_id, queue, kind, priority, run_at, attempt, unique_id, expires_at
)
INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses, unique_id,
                     expires_at, graph_id)
SELECT job_id, queue, kind, priority, greatest(run_at, t.now), attempt, 0, 0, unique_id, expires_at,
       graph_id
FROM d, t
RETURNING job_id, queue, kind, priority, ready_at;

-- name: end_blocked
-- blocked -> ended as $2 (skipped, cancelled) for reason $3; of $1 only what has expired, if $4.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
d AS (
    DELETE FROM job_blocked
    WHERE job_id = ANY($1::uuid[]) AND (NOT $4 OR expires_at <= (SELECT now FROM t))
    RETURNING job_id, graph_id, queue, kind, priority, attempt, unique_id
),
u AS (
    DELETE FROM job_unique WHERE unique_id = ANY(ARRAY(
        SELECT unique_id FROM d WHERE unique_id IS NOT NULL
    ))
),
e AS (
    INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, reason,
                           finished_at, graph_id)
    SELECT job_id, queue, kind, $2::text, attempt, 0, 0, $3::text, t.now, graph_id FROM d, t
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, $2::text, (SELECT now FROM t), count(*) FROM d GROUP BY queue
)
SELECT job_id, graph_id, queue, kind, priority, attempt FROM d;

-- name: end_due
-- due -> ended (cancelled, $2); of $1 only what has expired, if $3.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
d AS (
    DELETE FROM job_due
    WHERE job_id = ANY($1::uuid[]) AND (NOT $3 OR expires_at <= (SELECT now FROM t))
    RETURNING job_id, graph_id, queue, kind, priority, attempt, failures, losses, crashes, unique_id
),
u AS (
    DELETE FROM job_unique WHERE unique_id = ANY(ARRAY(
        SELECT unique_id FROM d WHERE unique_id IS NOT NULL
    ))
),
e AS (
    INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, crashes, reason,
                           finished_at, graph_id)
    SELECT job_id, queue, kind, 'cancelled', attempt, failures, losses, crashes, $2::text,
           t.now, graph_id
    FROM d, t
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, 'cancelled', (SELECT now FROM t), count(*) FROM d GROUP BY queue
)
SELECT job_id, graph_id, queue, kind, priority, attempt FROM d;

-- name: halt_next
-- The next $3 jobs that a halted workflow lets go: those that don't run; of a stop ($2) only those
-- that haven't started in this life and whose condition isn't among $4. Whether each is blocked.
(SELECT job_id, true FROM job_blocked
 WHERE graph_id = $1 AND (NOT $2 OR run_if <> ALL ($4::text[]))
 ORDER BY graph_id, uuid_send(job_id) LIMIT $3)
UNION ALL
(SELECT d.job_id, false FROM job_due d
 WHERE d.graph_id = $1
   AND (NOT $2 OR (d.failures = 0 AND d.losses = 0 AND d.crashes = 0
                   AND NOT EXISTS (SELECT 1 FROM jobs j
                                   WHERE j.job_id = d.job_id AND j.run_if = ANY ($4::text[]))))
 ORDER BY d.graph_id, uuid_send(d.job_id) LIMIT $3)
LIMIT $3;

-- name: ask_to_stop
-- running stays running: the workers of this workflow's jobs are asked to stop.
UPDATE job_running SET cancel_requested_at = clock_timestamp()
WHERE graph_id = $1 AND cancel_requested_at IS NULL
RETURNING job_id;

-- name: settle_holder
-- running -> ended: the job whose attempt was the workflow $2, exactly once. One that was asked to stop
-- is cancelled unless it succeeded, as any other job.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
gone AS (
    DELETE FROM job_running WHERE job_id = $1 AND worker_id = $2
    RETURNING job_id, attempt, worker_id, queue, kind, priority, started_at, failures, losses,
              crashes, unique_id, graph_id,
              cancel_requested_at IS NOT NULL AND $4::text <> 'succeeded' AS is_cancelled
),
m AS MATERIALIZED (
    SELECT gone.*, t.now, CASE WHEN is_cancelled THEN 'cancelled' ELSE $4::text END AS state,
           CASE WHEN is_cancelled THEN 'requested' ELSE $7::text END AS reason
    FROM gone, t
),
a AS (
    INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome, error)
    SELECT job_id, attempt, worker_id, started_at, now, $3::text, $6::json FROM m
),
e AS (
    INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, crashes, result,
                           error, reason, finished_at, graph_id)
    SELECT job_id, queue, kind, state, attempt,
           failures + CASE WHEN state = 'dead' THEN 1 ELSE 0 END, losses, crashes, $5::json,
           $6::json, reason, now, graph_id
    FROM m
),
u AS (DELETE FROM job_unique WHERE unique_id = ANY(ARRAY(SELECT unique_id FROM gone))),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, state, now, 1 FROM m
)
SELECT job_id, graph_id, queue, kind, priority, state, attempt FROM m;

-- name: write_workflows
-- Writes locked workflows anew. One that has just ended gets its time, one that runs again loses it.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::int[], $6::int[],
                         $7::int[], $8::text[], $9::bool[])
        AS v(workflow_id, state, total, succeeded, dead, cancelled, skipped, halt, halting)
)
UPDATE workflows w
SET state = v.state, total = v.total, succeeded = v.succeeded, dead = v.dead,
    cancelled = v.cancelled, skipped = v.skipped, halt = v.halt, halting = v.halting,
    finished_at = CASE WHEN v.state = 'running' THEN NULL
                       ELSE coalesce(w.finished_at, t.now) END
FROM v, t WHERE w.workflow_id = ANY($1::uuid[]) AND w.workflow_id = v.workflow_id;

-- name: store_spreads
-- What a step had no room for: children after these are still to be told.
INSERT INTO job_spreads (parent_id, graph_id, state, after)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
ON CONFLICT (parent_id) DO UPDATE SET after = excluded.after;

-- name: delete_spreads
DELETE FROM job_spreads WHERE parent_id = ANY($1::uuid[]);

-- name: unfinished_graphs
-- Graphs with children to tell or jobs to let go, at most $1.
SELECT DISTINCT graph_id FROM (
    (SELECT graph_id FROM job_spreads ORDER BY parent_id LIMIT $1)
    UNION ALL
    (SELECT workflow_id FROM workflows WHERE halting ORDER BY workflow_id LIMIT $1)
) g LIMIT $1;

-- name: spreads_of
-- What is left to tell in a graph, at most $2; after it was locked.
SELECT parent_id, state, after FROM job_spreads WHERE graph_id = $1 ORDER BY parent_id LIMIT $2;

-- name: holders_to_stop
-- Nested workflows whose job was asked to stop and that don't yet; at most $1.
SELECT w.workflow_id FROM workflows w
WHERE w.holder_id IS NOT NULL AND w.state = 'running' AND w.halt IS DISTINCT FROM 'cancel'
  AND (SELECT r.cancel_requested_at FROM job_running r -- not EXISTS, which would join with all
       WHERE r.job_id = w.holder_id AND r.worker_id = w.workflow_id) IS NOT NULL
ORDER BY w.workflow_id LIMIT $1;

-- name: expired_in_graphs
-- Jobs of graphs that have expired before they started, at most $1: job, graph, whether it is blocked.
-- Of those in line it looks at the first $1 only: the others before them are ended by expire_due.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now)
(SELECT job_id, graph_id, true FROM job_blocked WHERE expires_at <= (SELECT now FROM t)
 ORDER BY expires_at LIMIT $1)
UNION ALL
(SELECT job_id, graph_id, false
 FROM (SELECT job_id, graph_id FROM job_due WHERE expires_at <= (SELECT now FROM t)
       ORDER BY expires_at LIMIT $1) d
 WHERE graph_id IS NOT NULL)
LIMIT $1;

-- name: add_workflow
-- nothing -> running. No row: it is there already. $9: all of its jobs.
INSERT INTO workflows (workflow_id, name, on_failure, queues, created_by, traceparent, holder_id,
                       ancestors, total, notify)
VALUES ($1, $2, $3, $4::text[], $5, $6, $7, $8::uuid[], $9, $10)
ON CONFLICT (workflow_id) DO NOTHING
RETURNING clock_timestamp();

-- name: submit_graph
-- nothing -> due (no parents) or blocked. As submit_jobs; besides: graph, workflow, name, what was
-- asked of parents, how many there are and of how many what has become. Answers the time, the ids
-- that are new, and how many unique keys were taken: then the caller must roll back.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
i AS MATERIALIZED (
    SELECT *, job_unique_id(queue, unique_key) AS unique_id
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::json[],
                $6::timestamptz[], $7::float8[], $8::smallint[], $9::json[], $10::float8[],
                $11::text[], $12::json[], $13::text[], $14::text[], $15::text[],
                $16::timestamptz[], $17::float8[], $18::json[], $19::smallint[], $20::uuid[],
                $21::uuid[], $22::text[], $23::json[], $24::text[], $25::int[], $26::int[],
                $27::int[], $28::int[], $29::int[])
         AS i(job_id, queue, kind, priority, payload, run_at, delay_s, max_attempts, backoff,
              timeout_s, on_lost, tags, traceparent, created_by, unique_key, expires_at, ttl_s,
              notify, follows, graph_id, workflow_id, name, depends_on, run_if, parents, succeeded, dead,
              cancelled, skipped)
),
j AS (
    INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, backoff,
                      timeout_s, on_lost, tags, traceparent, created_by, unique_key, expires_at,
                      workflow_id, name, depends_on, run_if, notify, follows)
    SELECT i.job_id, i.queue, i.kind, i.priority, i.payload,
           greatest(i.run_at, t.now + make_interval(secs => i.delay_s), t.now),
           i.max_attempts, i.backoff, i.timeout_s, i.on_lost,
           CASE WHEN i.tags IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(i.tags)) END,
           i.traceparent, i.created_by, i.unique_key,
           greatest(i.expires_at, t.now + make_interval(secs => i.ttl_s)),
           i.workflow_id, i.name,
           CASE WHEN i.depends_on IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(i.depends_on)) END,
           i.run_if, i.notify, i.follows
    FROM i, t
    ON CONFLICT (job_id) DO NOTHING
    RETURNING job_id, queue, kind, priority, run_at, expires_at
),
n AS MATERIALIZED (
    SELECT j.job_id, j.queue, j.kind, j.priority, j.run_at, j.expires_at, i.unique_id, i.graph_id,
           i.run_if, i.parents, coalesce(i.succeeded, 0) AS succeeded, coalesce(i.dead, 0) AS dead,
           coalesce(i.cancelled, 0) AS cancelled, coalesce(i.skipped, 0) AS skipped
    FROM j JOIN i USING (job_id)
),
u AS (
    INSERT INTO job_unique (unique_id, job_id)
    SELECT unique_id, job_id FROM n WHERE unique_id IS NOT NULL ORDER BY unique_id
    ON CONFLICT DO NOTHING RETURNING job_id
),
d AS (
    INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                         unique_id, expires_at, graph_id)
    SELECT job_id, queue, kind, priority, run_at, 0, 0, 0, unique_id, expires_at, graph_id
    FROM n WHERE parents IS NULL
),
b AS (
    INSERT INTO job_blocked (job_id, graph_id, queue, kind, priority, run_at, run_if, parents,
                             succeeded, dead, cancelled, skipped, attempt, unique_id, expires_at)
    SELECT job_id, graph_id, queue, kind, priority, run_at, run_if, parents, succeeded, dead,
           cancelled, skipped, 0, unique_id, expires_at
    FROM n WHERE parents IS NOT NULL
)
SELECT t.now, ARRAY(SELECT job_id FROM n),
       (SELECT count(*) FROM n WHERE unique_id IS NOT NULL) - (SELECT count(*) FROM u)
FROM t;

-- name: add_edges
INSERT INTO job_edges (parent_id, child_id, graph_id)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) ON CONFLICT DO NOTHING;

-- name: link_due
-- due stays due, as part of the graph $2 if it is part of none: it has a child there. Locks the rows, so
-- that who moves them on sees it.
WITH k AS MATERIALIZED (
    SELECT job_id FROM job_due WHERE job_id = ANY($1::uuid[]) ORDER BY job_id FOR UPDATE
)
UPDATE job_due SET graph_id = coalesce(graph_id, $2)
WHERE job_id = ANY(ARRAY(SELECT job_id FROM k)) RETURNING job_id;

-- name: link_running
-- The same of running jobs.
WITH k AS MATERIALIZED (
    SELECT job_id FROM job_running WHERE job_id = ANY($1::uuid[]) ORDER BY job_id FOR UPDATE
)
UPDATE job_running SET graph_id = coalesce(graph_id, $2)
WHERE job_id = ANY(ARRAY(SELECT job_id FROM k)) RETURNING job_id;

-- name: link_blocked
-- A blocked job is part of a graph already.
-- ("IS TRUE", or it would look through its whole graph.)
SELECT job_id FROM job_blocked WHERE job_id = ANY($1::uuid[]) AND (graph_id = $2) IS TRUE;

-- name: link_ended
-- The same of ended jobs: they aren't pruned as plain ones from here on. Locks the rows: who prunes
-- one comes first, and it is gone, or second, and sees the child.
WITH k AS MATERIALIZED (
    SELECT job_id, graph_id FROM job_ended WHERE job_id = ANY($1::uuid[]) ORDER BY job_id FOR UPDATE
)
UPDATE job_ended SET graph_id = $2
WHERE job_id = ANY(ARRAY(SELECT job_id FROM k WHERE graph_id IS NULL)) RETURNING job_id;

-- name: ended_parents
-- Of these jobs those that are over; the last child that each has told, where it has more to tell.
SELECT e.job_id, e.state, s.after
FROM job_ended e
LEFT JOIN (SELECT parent_id, after FROM job_spreads WHERE parent_id = ANY($1::uuid[])) s
       ON s.parent_id = e.job_id
WHERE e.job_id = ANY($1::uuid[]);

-- name: graphs_of
-- Which workflows these jobs belong to, and whether they have parents; a job without a row isn't there.
SELECT job_id, workflow_id, run_if IS NOT NULL, name FROM jobs WHERE job_id = ANY($1::uuid[]);

-- name: graph_of
-- The graph that a job stands in, by its place. No row: there is no such job.
SELECT graph_id FROM job_due WHERE job_id = $1
UNION ALL SELECT graph_id FROM job_running WHERE job_id = $1
UNION ALL SELECT graph_id FROM job_blocked WHERE job_id = $1
UNION ALL SELECT graph_id FROM job_ended WHERE job_id = $1;

-- name: has_edges
SELECT EXISTS (SELECT 1 FROM job_edges WHERE parent_id = $1)
    OR (SELECT graph_id FROM job_edges WHERE uuid_send(child_id) = uuid_send($1) LIMIT 1) IS NOT NULL;

-- name: names_taken
-- Which jobs of a workflow have these names. (One by one: by = ANY, a plan made on an empty table would
-- compare each of its jobs with each name.)
SELECT j.name, j.job_id
FROM unnest($2::text[]) AS n(name)
CROSS JOIN LATERAL (
    SELECT name, job_id FROM jobs WHERE workflow_id = $1 AND name = n.name LIMIT 1
) j;

-- name: edge_count
SELECT coalesce(sum(cardinality(depends_on)), 0)::int FROM jobs WHERE workflow_id = $1;

-- name: add_queues_to_workflow
UPDATE workflows SET queues = ARRAY(SELECT DISTINCT unnest(queues || $2::text[]) ORDER BY 1)
WHERE workflow_id = $1;

-- name: nodes_of
-- All jobs of a workflow, as they were submitted: id, name, condition, state where it is over. (Joined by themselves: a join of
-- the tables was one of all their rows, by their ids.)
WITH j AS MATERIALIZED (SELECT job_id, name, run_if FROM jobs WHERE workflow_id = $1),
e AS MATERIALIZED (
    SELECT job_id, state FROM job_ended WHERE job_id = ANY(ARRAY(SELECT job_id FROM j))
)
SELECT j.job_id, j.name, j.run_if, e.state FROM j LEFT JOIN e USING (job_id) ORDER BY j.job_id;

-- name: run_if_of
SELECT run_if FROM jobs WHERE job_id = $1;

-- name: edges_into
-- The edges into these jobs. (The graph too: else an index-only scan of all would seem as cheap.)
SELECT child_id, parent_id, graph_id FROM job_edges
WHERE uuid_send(child_id) = ANY(ARRAY(SELECT uuid_send(id) FROM unnest($1::uuid[]) i(id)));

-- name: reopen_jobs
-- ended (dead, cancelled, skipped) -> due or blocked: a new life, its budget fresh, attempts going on.
-- $2: no parents to wait for; $3 on: how many parents there are and what has become of how many.
-- Takes unique keys again; who doesn't get his isn't moved, and the caller must roll back. Not before $9
-- seconds from now; queues as in retry_ended.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::bool[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[])
        AS v(job_id, is_due, parents, succeeded, dead, cancelled, skipped)
),
k AS MATERIALIZED (
    SELECT job_id FROM job_ended WHERE job_id = ANY($1::uuid[]) AND state <> 'succeeded'
    ORDER BY job_id FOR UPDATE
),
j AS MATERIALIZED (
    SELECT job_id, queue, priority, run_if, job_unique_id(queue, unique_key) AS unique_id,
           CASE WHEN expires_at > t.now THEN expires_at END AS expires_at
    FROM jobs, t WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
),
u AS (
    INSERT INTO job_unique (unique_id, job_id)
    SELECT unique_id, job_id FROM j WHERE unique_id IS NOT NULL ORDER BY unique_id
    ON CONFLICT (unique_id) DO UPDATE SET job_id = excluded.job_id
        WHERE job_unique.job_id = excluded.job_id -- its own, that something left behind
    RETURNING job_id
),
e AS (
    DELETE FROM job_ended
    WHERE job_id = ANY(ARRAY(
        SELECT job_id FROM j WHERE unique_id IS NULL UNION ALL SELECT job_id FROM u
    ))
    RETURNING job_id, queue, kind, state, attempt
),
m AS MATERIALIZED (
    SELECT e.job_id, j.queue, e.queue AS was_in, e.kind, e.state, e.attempt, j.priority, j.run_if, j.unique_id,
           j.expires_at, v.is_due, v.parents, v.succeeded, v.dead, v.cancelled, v.skipped
    FROM e JOIN j USING (job_id) JOIN v USING (job_id)
),
d AS (
    INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                         unique_id, expires_at, graph_id)
    SELECT job_id, queue, kind, priority, t.now + make_interval(secs => $9), attempt, 0, 0, unique_id,
           expires_at, $8
    FROM m, t WHERE is_due
),
b AS (
    INSERT INTO job_blocked (job_id, graph_id, queue, kind, priority, run_at, run_if, parents,
                             succeeded, dead, cancelled, skipped, attempt, unique_id, expires_at)
    SELECT job_id, $8, queue, kind, priority, t.now + make_interval(secs => $9), run_if, parents, succeeded, dead, cancelled,
           skipped, attempt, unique_id, expires_at
    FROM m, t WHERE NOT is_due
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT was_in, state, (SELECT now FROM t), -count(*) FROM m GROUP BY was_in, state
)
SELECT job_id, queue, kind, priority, t.now + make_interval(secs => $9), is_due, state FROM m, t;

-- name: give_to_workflow
-- running stays running: this attempt is the workflow $4 from now on, which holds no slot. No row: it
-- isn't ours any more, or was asked to stop. ("IS TRUE": else it might go through all that the worker
-- runs.)
UPDATE job_running SET worker_id = $4
WHERE job_id = $1 AND attempt = $2 AND (worker_id = $3) IS TRUE AND cancel_requested_at IS NULL
RETURNING graph_id;

-- name: nested_in
-- The workflow that is an attempt of this job.
SELECT workflow_id FROM workflows WHERE holder_id = $1;

-- name: now
SELECT clock_timestamp();

-- name: blocked_counts
-- How blocked jobs stand, as count_parents tells; only those of which a parent is over.
SELECT job_id, graph_id, run_if, parents, succeeded, dead, cancelled, skipped FROM job_blocked
WHERE job_id = ANY($1::uuid[]) AND succeeded + dead + cancelled + skipped > 0;

-- name: running_now
-- Whether this attempt still runs under this worker's name.
WITH r AS MATERIALIZED ( -- else it might go through all that the worker runs
    SELECT job_id, attempt, worker_id FROM job_running WHERE job_id = $1
)
SELECT job_id FROM r WHERE attempt = $2 AND worker_id = $3;
