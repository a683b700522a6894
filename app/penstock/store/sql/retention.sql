-- What is kept for a time and then let go of. Safe to run on several replicas at once: each takes
-- what no other has locked.

-- part: take(these; letters)
-- All that there is of jobs that are over, but for their edges. Their open dead letters are resolved: they can't
-- be replayed.
e AS (
    DELETE FROM job_ended WHERE job_id = ANY(ARRAY(SELECT job_id FROM @these))
    RETURNING queue, state, finished_at
),
j AS (DELETE FROM jobs WHERE job_id = ANY(ARRAY(SELECT job_id FROM @these))),
a AS (DELETE FROM attempts WHERE job_id = ANY(ARRAY(SELECT job_id FROM @these))),
l AS (DELETE FROM job_logs WHERE job_id = ANY(ARRAY(SELECT job_id FROM @these))),
p AS (DELETE FROM job_progress WHERE job_id = ANY(ARRAY(SELECT job_id FROM @these))),
d AS (
    UPDATE dead_letters SET resolved_at = clock_timestamp(), resolution = 'pruned'
    WHERE @letters job_id = ANY(ARRAY(SELECT job_id FROM @these))
      AND coalesce(resolved_at, 'infinity') = 'infinity'
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, state, clock_timestamp(), -count(*) FROM e GROUP BY queue, state
)

-- part: has_live_child
-- Not EXISTS: that might be answered by reading the whole of the other table.
((SELECT job_id FROM job_blocked b WHERE b.job_id = e.child_id) IS NOT NULL
 OR (SELECT job_id FROM job_due d WHERE d.job_id = e.child_id) IS NOT NULL
 OR (SELECT job_id FROM job_running r WHERE r.job_id = e.child_id) IS NOT NULL)

-- part: prune_oldest(table; id; time)
-- The oldest $2 of more than $1 seconds ago.
WITH k AS MATERIALIZED (
    SELECT @id FROM @table
    WHERE @time < (SELECT clock_timestamp() - make_interval(secs => $1))
    ORDER BY @time LIMIT $2 FOR UPDATE SKIP LOCKED
),
d AS (
    DELETE FROM @table WHERE @id = ANY(ARRAY(SELECT @id FROM k))
    RETURNING @id
)
SELECT count(*) FROM d;

-- name: prune_ended
-- ended -> nothing: the oldest $4 jobs of state $1 that ended more than $2
-- seconds ago, not before $3, and are part of no graph: they have neither parents nor children.
-- Whoever gives such a job a new life, or a child, first keeps it, whoever is second finds no such
-- job. What is still to be told of keeps it as well.
WITH k AS MATERIALIZED (
    SELECT job_id FROM job_ended p
    WHERE graph_id IS NULL AND state = $1 AND finished_at >= $3
      AND finished_at < (SELECT clock_timestamp() - make_interval(secs => $2))
      AND (SELECT f.effect_id FROM effects f WHERE f.job_id = p.job_id LIMIT 1) IS NULL
    ORDER BY finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
),
@take(k; $1 = 'dead' AND)
SELECT count(*), max(finished_at) FROM e;

-- name: prune_loose
-- The same of the loose graph, with their edges: of the oldest $4 that no child waits for or reads,
-- as many as have $5 edges together, but at least one. After lock_loose: so a retry or a new child
-- comes first, or finds no such job.
WITH k AS MATERIALIZED (
    SELECT job_id, finished_at FROM job_ended p
    WHERE graph_id = '00000000-0000-0000-0000-000000000000' AND state = $1 AND finished_at >= $3
      AND finished_at < (SELECT clock_timestamp() - make_interval(secs => $2))
      AND (SELECT e.parent_id FROM job_edges e
           WHERE e.parent_id = p.job_id
             AND @has_live_child
           LIMIT 1) IS NULL
      AND (SELECT f.effect_id FROM effects f WHERE f.job_id = p.job_id LIMIT 1) IS NULL
    ORDER BY finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
),
n AS (
    SELECT job_id, finished_at,
           (SELECT count(graph_id) FROM job_edges e WHERE e.parent_id = k.job_id)
           + (SELECT count(graph_id) FROM job_edges e WHERE uuid_send(e.child_id) = uuid_send(k.job_id))
           AS edges
    FROM k
),
g AS MATERIALIZED (
    SELECT job_id
    FROM (SELECT job_id, edges, sum(edges) OVER (ORDER BY finished_at, job_id) AS so_far FROM n) s
    WHERE so_far <= $5 OR so_far = edges
),
@take(g; $1 = 'dead' AND),
x AS (DELETE FROM job_edges WHERE parent_id = ANY(ARRAY(SELECT job_id FROM g))),
y AS (
    DELETE FROM job_edges WHERE uuid_send(child_id) = ANY(ARRAY(SELECT uuid_send(job_id) FROM g))
)
SELECT count(*), max(finished_at) FROM e;

-- name: lane_by_age
-- The next $6 ended jobs of one lane, queue $2, kind $3 and state $1, by age of their ids, after $5;
-- and whether each may go: it ended more than $4 seconds ago and is part of no graph. An id is as old
-- as its job: none behind the first one that is younger than that has ended longer ago.
SELECT job_id,
       graph_id IS NULL
       AND finished_at < (SELECT clock_timestamp() - make_interval(secs => $4)) AS is_old
FROM job_ended
WHERE queue = $2 AND kind = $3 AND state = $1 AND uuid_send(job_id) > uuid_send($5)
  AND uuid_send(job_id) < (
      SELECT decode(lpad(to_hex((1000 * extract(epoch FROM
          clock_timestamp() - make_interval(secs => $4)))::bigint), 12, '0'), 'hex'))
ORDER BY uuid_send(job_id) LIMIT $6;

-- name: prune_these
-- The same as prune_ended of these jobs $3, those that still are as they were seen.
WITH k AS MATERIALIZED (
    SELECT job_id FROM job_ended p
    WHERE job_id = ANY($3::uuid[])
      -- In a form that no index by state and age has: else one would be read whole for this.
      AND num_nulls(graph_id) = 1 AND state || '' = $1
      AND finished_at < (SELECT clock_timestamp() - make_interval(secs => $2))
      AND (SELECT f.effect_id FROM effects f WHERE f.job_id = p.job_id LIMIT 1) IS NULL
    FOR UPDATE SKIP LOCKED
),
@take(k; $1 = 'dead' AND)
SELECT count(*) FROM e;

-- name: ended_lanes
-- Queue and kind of all ended jobs, each pair once, by hops from one to the next: $3 of them after
-- queue $1, kind $2.
WITH RECURSIVE hop(queue, kind) AS (
    SELECT n.queue, n.kind
    FROM (SELECT e.queue, e.kind FROM job_ended e
          WHERE (e.queue, e.kind) > ($1, $2) ORDER BY e.queue, e.kind LIMIT 1) n
    UNION ALL
    SELECT n.queue, n.kind
    FROM hop CROSS JOIN LATERAL (
        SELECT e.queue, e.kind FROM job_ended e
        WHERE (e.queue, e.kind) > (hop.queue, hop.kind) ORDER BY e.queue, e.kind LIMIT 1
    ) n
)
SELECT queue, kind FROM hop LIMIT $3;

-- name: old_workflows
-- Locks the oldest $2 workflows that are nested in none and ended more than $1 seconds ago, but for
-- those that a loose job waits for or reads, and those of which, or of one of whose jobs, something is
-- still to be told. Whoever locks such a row first, to run the workflow again or to add to it, keeps it.
WITH q AS MATERIALIZED ( -- no loose job is live: then none need be looked for
    SELECT (SELECT job_id FROM job_blocked
            WHERE graph_id = '00000000-0000-0000-0000-000000000000' LIMIT 1) IS NULL
           AND (SELECT job_id FROM job_due
                WHERE graph_id = '00000000-0000-0000-0000-000000000000' LIMIT 1) IS NULL
           AND (SELECT job_id FROM job_running
                WHERE graph_id = '00000000-0000-0000-0000-000000000000' LIMIT 1) IS NULL
           AS is_quiet,
           (SELECT effect_id FROM effects WHERE job_id IS NOT NULL LIMIT 1) IS NULL AS is_told
)
SELECT workflow_id FROM workflows w
WHERE finished_at IS NOT NULL AND ancestors = '{}'
  AND finished_at < (SELECT clock_timestamp() - make_interval(secs => $1))
  AND ((SELECT is_quiet FROM q)
       OR (SELECT j.job_id FROM jobs j
           WHERE j.workflow_id = w.workflow_id
             AND (SELECT e.parent_id FROM job_edges e
                  WHERE e.parent_id = j.job_id
                    AND e.graph_id = '00000000-0000-0000-0000-000000000000'
                    AND @has_live_child
                  LIMIT 1) IS NOT NULL
           LIMIT 1) IS NULL)
  AND (SELECT f.effect_id FROM effects f WHERE f.workflow_id = w.workflow_id LIMIT 1) IS NULL
  AND ((SELECT is_told FROM q)
       OR (SELECT j.job_id FROM jobs j
           WHERE j.workflow_id = w.workflow_id
             AND (SELECT f.effect_id FROM effects f WHERE f.job_id = j.job_id LIMIT 1) IS NOT NULL
           LIMIT 1) IS NULL)
ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: prune_workflows
-- over -> pruned: these, which are locked. Whoever comes now finds no such workflow. From here on
-- nobody can bring it back, so what is left of it may go in as many steps as it takes.
WITH d AS (
    DELETE FROM workflows WHERE workflow_id = ANY($1::uuid[]) RETURNING workflow_id
),
p AS (
    INSERT INTO pruned_workflows (workflow_id) SELECT workflow_id FROM d ON CONFLICT DO NOTHING
)
SELECT count(*) FROM d;

-- name: prune_workflow_jobs
-- ended -> nothing: the next of what is left of pruned workflows, at most $1 of each sort: workflows
-- nested in them (which end before what they are nested in), edges, and when there are few of those,
-- jobs. A workflow of which nothing is left is forgotten. How many rows that were, of the sort of which
-- there were most ($1: there may be more), then a row a state: how many jobs ended so.
-- Edges by where they lie: nothing else takes some of them without a join. They are never updated, and
-- a row that this snapshot sees gives its place to no other.
WITH w AS MATERIALIZED (
    SELECT workflow_id FROM pruned_workflows ORDER BY workflow_id LIMIT $1 FOR UPDATE SKIP LOCKED
),
i AS MATERIALIZED (
    SELECT workflow_id FROM workflows
    WHERE ancestors <> '{}' AND ancestors[1] = ANY(ARRAY(SELECT workflow_id FROM w)) LIMIT $1
),
n AS (
    DELETE FROM workflows WHERE workflow_id = ANY(ARRAY(SELECT workflow_id FROM i))
    RETURNING workflow_id
),
m AS (
    INSERT INTO pruned_workflows (workflow_id) SELECT workflow_id FROM n ON CONFLICT DO NOTHING
),
k AS MATERIALIZED (
    SELECT job_id FROM jobs WHERE workflow_id = ANY(ARRAY(SELECT workflow_id FROM w)) LIMIT $1
),
x AS MATERIALIZED (
    SELECT ctid AS lies FROM job_edges WHERE parent_id = ANY(ARRAY(SELECT job_id FROM k)) LIMIT $1
),
y AS (DELETE FROM job_edges WHERE ctid = ANY(ARRAY(SELECT lies FROM x))),
g AS MATERIALIZED (SELECT job_id FROM k WHERE (SELECT count(*) FROM x) < $1),
@take(g;),
r AS MATERIALIZED (
    SELECT greatest((SELECT count(*) FROM i), (SELECT count(*) FROM k), (SELECT count(*) FROM x))
           AS rows
),
f AS (
    DELETE FROM pruned_workflows
    WHERE workflow_id = ANY(ARRAY(SELECT workflow_id FROM w)) AND (SELECT rows FROM r) < $1
)
SELECT greatest(rows, (SELECT count(*) FROM w)), NULL FROM r
UNION ALL
SELECT count(*), state FROM e GROUP BY state;

-- name: prune_idempotency_keys
@prune_oldest(idempotency_keys; key_id; stored_at)

-- name: prune_letters
-- The oldest $2 dead letters that were resolved more than $1 seconds ago. Open ones go with their jobs, which
-- resolves them.
WITH k AS MATERIALIZED (
    SELECT job_id, attempt FROM dead_letters
    WHERE resolved_at IS NOT NULL
      AND resolved_at < (SELECT clock_timestamp() - make_interval(secs => $1))
    ORDER BY resolved_at LIMIT $2 FOR UPDATE SKIP LOCKED
),
d AS (
    DELETE FROM dead_letters
    WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
      AND (job_id, attempt) IN (SELECT job_id, attempt FROM k)
    RETURNING job_id
)
SELECT count(*) FROM d;

-- name: prune_deliveries
@prune_oldest(deliveries; effect_id; finished_at)
