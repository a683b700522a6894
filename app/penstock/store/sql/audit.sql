-- What a replica checks of its own accord (decision 0017). Each look is one statement and so one
-- snapshot: a move is one transaction, so whoever looks sees it whole or not at all, and what is
-- found needs no second look. Pages go by a cursor; the tests' checker takes one page of everything.

-- name: audit_places
-- Of the next ids after $1, at most $2 a table: those that stand in no place (no_place) or in more
-- than one (two_places), and those of which there is no job (no_job). The row without a rule, if
-- there is one, says where to go on; none: the end is reached.
WITH j AS MATERIALIZED (SELECT job_id FROM jobs WHERE job_id > $1 ORDER BY job_id LIMIT $2),
d AS MATERIALIZED (SELECT job_id FROM job_due WHERE job_id > $1 ORDER BY job_id LIMIT $2),
r AS MATERIALIZED (SELECT job_id FROM job_running WHERE job_id > $1 ORDER BY job_id LIMIT $2),
e AS MATERIALIZED (SELECT job_id FROM job_ended WHERE job_id > $1 ORDER BY job_id LIMIT $2),
w AS MATERIALIZED (SELECT job_id FROM job_blocked WHERE job_id > $1 ORDER BY job_id LIMIT $2),
-- Up to the least of what full pages reach, each page holds all that its table has.
b AS MATERIALIZED (
    SELECT least((SELECT job_id FROM j OFFSET $2 - 1), (SELECT job_id FROM d OFFSET $2 - 1),
                 (SELECT job_id FROM r OFFSET $2 - 1), (SELECT job_id FROM e OFFSET $2 - 1),
                 (SELECT job_id FROM w OFFSET $2 - 1)) AS job_id
),
n AS (
    SELECT job_id, sum(is_job) AS jobs, sum(1 - is_job) AS places
    FROM (SELECT job_id, 1 AS is_job FROM j UNION ALL SELECT job_id, 0 FROM d
          UNION ALL SELECT job_id, 0 FROM r UNION ALL SELECT job_id, 0 FROM e
          UNION ALL SELECT job_id, 0 FROM w) u
    GROUP BY job_id
)
SELECT n.job_id,
       CASE WHEN n.jobs = 0 THEN 'no_job' WHEN n.places = 0 THEN 'no_place' ELSE 'two_places' END
FROM n, b
WHERE (n.jobs <> 1 OR n.places <> 1) AND (b.job_id IS NULL OR n.job_id <= b.job_id)
UNION ALL
SELECT job_id, NULL FROM b WHERE job_id IS NOT NULL;

-- name: audit_keys
-- Of the next $2 unique keys after $1: those of no live job, which would keep a key for ever. The
-- last row, without a job, says where to go on; none: the end is reached.
WITH u AS MATERIALIZED (
    SELECT unique_id, job_id FROM job_unique WHERE unique_id > $1 ORDER BY unique_id LIMIT $2
),
live AS (
    SELECT job_id FROM job_due WHERE job_id = ANY(ARRAY(SELECT job_id FROM u))
    UNION ALL
    SELECT job_id FROM job_running WHERE job_id = ANY(ARRAY(SELECT job_id FROM u))
    UNION ALL
    SELECT job_id FROM job_blocked WHERE job_id = ANY(ARRAY(SELECT job_id FROM u))
)
SELECT (array_agg(unique_id) FILTER (WHERE unique_id IS NOT NULL))[1], job_id
FROM (SELECT unique_id, job_id FROM u UNION ALL SELECT NULL, job_id FROM live) k
GROUP BY job_id HAVING count(*) FILTER (WHERE unique_id IS NULL) = 0
UNION ALL
SELECT unique_id, NULL FROM (SELECT unique_id FROM u OFFSET $2 - 1) last;

-- name: lock_keys_found
-- Holds these keys against a retry, which would take one again; what another has locked is busy.
SELECT unique_id FROM job_unique WHERE unique_id = ANY($1::uuid[])
ORDER BY unique_id FOR UPDATE SKIP LOCKED;

-- name: free_keys
-- Deletes those of these keys that no live job holds. After lock_keys_found, in its transaction: this
-- statement sees what was committed before the locks were given.
WITH u AS MATERIALIZED (
    SELECT job_id FROM job_unique WHERE unique_id = ANY($1::uuid[])
)
DELETE FROM job_unique
WHERE unique_id = ANY($1::uuid[])
  AND job_id <> ALL (ARRAY(
      SELECT job_id FROM job_due WHERE job_id = ANY(ARRAY(SELECT job_id FROM u))
      UNION ALL
      SELECT job_id FROM job_running WHERE job_id = ANY(ARRAY(SELECT job_id FROM u))
      UNION ALL
      SELECT job_id FROM job_blocked WHERE job_id = ANY(ARRAY(SELECT job_id FROM u))))
RETURNING unique_id;

-- name: audit_blocked
-- Of the next $2 blocked jobs after $1 as many as have $3 parents together, but at least one: what they
-- count, and what they should: how many edges lead there, and from how many parents that are over, by
-- state, and have told them; whether their workflow is letting them go. All of them: a condition isn't
-- judged here.
WITH b AS MATERIALIZED (
    SELECT job_id, graph_id, run_if, parents, succeeded, dead, cancelled, skipped
    FROM (SELECT *, sum(parents) OVER (ORDER BY job_id) AS so_far
          FROM (SELECT * FROM job_blocked WHERE job_id > $1 ORDER BY job_id LIMIT $2) n) s
    WHERE so_far <= $3 OR so_far = parents
)
SELECT b.job_id, b.run_if, b.parents, b.succeeded, b.dead, b.cancelled, b.skipped,
       f.edges, f.succeeded, f.dead, f.cancelled, f.skipped,
       coalesce((SELECT halting FROM workflows w WHERE w.workflow_id = b.graph_id), false)
FROM b CROSS JOIN LATERAL (
    SELECT count(*) AS edges,
           count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE state = 'skipped') AS skipped
    FROM (
        SELECT CASE WHEN coalesce(e.child_id <= (SELECT after FROM job_spreads s
                                                 WHERE s.parent_id = e.parent_id), true)
               THEN (SELECT state FROM job_ended p WHERE p.job_id = e.parent_id) END AS state
        FROM job_edges e
        WHERE uuid_send(e.child_id) = uuid_send(b.job_id)
          -- always so; else an index-only scan of all of (parent_id, child_id) would seem as cheap
          AND uuid_send(e.graph_id) = uuid_send(b.graph_id)
        OFFSET 0
    ) t
) f
ORDER BY b.job_id;

-- name: audit_workflows
-- Of the next $2 workflows after $1 as many as have $3 jobs together, if they run, but at least one:
-- those that count other jobs than they have (workflow_counts), and those that run though all of their
-- jobs are over (stuck_workflow). Of those that don't run, only whether they count all jobs as over.
-- The row without a rule says where to go on; none: the end is reached.
WITH w AS MATERIALIZED (
    SELECT * FROM (
        SELECT workflow_id, state, halting, total, succeeded, dead, cancelled, skipped,
               sum(CASE WHEN state = 'running' THEN total ELSE 0 END) OVER (ORDER BY workflow_id)
               AS so_far, count(*) OVER () AS page, row_number() OVER (ORDER BY workflow_id) AS nth
        FROM (SELECT * FROM workflows WHERE workflow_id > $1 ORDER BY workflow_id LIMIT $2) n
    ) s WHERE so_far <= $3 OR nth = 1
),
j AS MATERIALIZED (
    SELECT workflow_id, job_id FROM jobs
    WHERE workflow_id = ANY(ARRAY(SELECT workflow_id FROM w WHERE state = 'running'))
),
n AS MATERIALIZED ( -- grouped, not joined: an empty table's plan would compare each with each
    SELECT workflow_id, max(state) AS state, bool_or(halting) AS halting,
           ARRAY[max(total), max(succeeded), max(dead), max(cancelled), max(skipped)] AS kept,
           ARRAY[count(*) FILTER (WHERE is_job), count(*) FILTER (WHERE over = 'succeeded'),
                 count(*) FILTER (WHERE over = 'dead'), count(*) FILTER (WHERE over = 'cancelled'),
                 count(*) FILTER (WHERE over = 'skipped')]::int[] AS found, count(over) AS ended
    FROM (SELECT workflow_id, state, halting, total, succeeded, dead, cancelled, skipped,
                 false AS is_job, NULL AS over FROM w
          UNION ALL
          SELECT workflow_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true, NULL FROM j
          UNION ALL
          SELECT graph_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, state
          FROM job_ended WHERE job_id = ANY(ARRAY(SELECT job_id FROM j))) u
    GROUP BY workflow_id
)
SELECT workflow_id, 'workflow_counts' FROM n
WHERE CASE WHEN state = 'running' THEN kept <> found
           ELSE kept[1] <> kept[2] + kept[3] + kept[4] + kept[5] END
UNION ALL
SELECT workflow_id, 'stuck_workflow' FROM n
WHERE state = 'running' AND NOT halting AND found[1] = ended
UNION ALL
SELECT workflow_id, NULL
FROM (SELECT workflow_id, page, nth, max(nth) OVER () AS last FROM w) l
WHERE nth = last AND (page = $2 OR nth < page);

-- name: audit_counts
-- Of the next $2 queues after $1: those whose counts aren't those of job_ended, by state. A queue
-- that counts more than $3 is passed over, and no more than that is counted of any.
WITH q AS MATERIALIZED (SELECT queue FROM queues WHERE queue > $1 ORDER BY queue LIMIT $2),
k AS MATERIALIZED (
    SELECT queue, state, sum(delta)::bigint AS count FROM queue_counts
    WHERE queue = ANY(ARRAY(SELECT queue FROM q)) GROUP BY queue, state
),
small AS MATERIALIZED (
    SELECT queue FROM (SELECT queue, count FROM k UNION ALL SELECT queue, 0 FROM q) a
    GROUP BY queue HAVING sum(abs(count)) <= $3::bigint
),
f AS MATERIALIZED (
    SELECT e.queue, e.state, count(*) AS count
    FROM small s CROSS JOIN LATERAL (
        SELECT queue, state FROM job_ended WHERE queue = s.queue LIMIT $3 + 1
    ) e GROUP BY e.queue, e.state
),
n AS (
    SELECT queue, state, sum(kept) AS kept, sum(found) AS found
    FROM (SELECT queue, state, count AS kept, 0 AS found FROM k
          UNION ALL SELECT queue, state, 0, count FROM f) a
    GROUP BY queue, state
)
SELECT queue, state, kept::bigint, found::bigint FROM n
WHERE kept <> found AND queue = ANY(ARRAY(SELECT queue FROM small))
UNION ALL
SELECT queue, NULL, NULL, NULL FROM (SELECT queue FROM q OFFSET $2 - 1) last;

-- name: audit_orphans
-- What stands under names that are condemned or gone, or of workflows that don't run, at most $1 jobs
-- a name. The reaper is quick:
-- who is here in two looks isn't reaped.
WITH RECURSIVE w(worker_id) AS (
    (SELECT worker_id FROM job_running ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT n.worker_id
    FROM w CROSS JOIN LATERAL (
        SELECT r.worker_id FROM job_running r
        WHERE r.worker_id > w.worker_id ORDER BY r.worker_id LIMIT 1
    ) n
)
SELECT o.worker_id, r.job_id
FROM (
    SELECT worker_id FROM w WHERE NOT EXISTS (
        SELECT 1 FROM workers l WHERE l.worker_id = w.worker_id AND l.condemned_at IS NULL
    )
    AND (SELECT f.workflow_id FROM workflows f
         WHERE f.workflow_id = w.worker_id AND f.state = 'running') IS NULL
) o CROSS JOIN LATERAL (
    SELECT job_id FROM job_running WHERE worker_id = o.worker_id LIMIT $1
) r;

-- name: audit_heads
-- The oldest job of each priority in the first $1 lines that aren't paused, if it has been due for
-- $2 seconds, and whether one that came after it in that line is among 10,000 that run.
WITH RECURSIVE l(queue, kind) AS (
    (SELECT queue, kind FROM job_due ORDER BY queue, kind LIMIT 1)
    UNION ALL
    SELECT n.queue, n.kind
    FROM l CROSS JOIN LATERAL (
        SELECT d.queue, d.kind FROM job_due d
        WHERE (d.queue, d.kind) > (l.queue, l.kind) ORDER BY d.queue, d.kind LIMIT 1
    ) n
),
o AS MATERIALIZED (SELECT queue, kind FROM l LIMIT $1),
h AS MATERIALIZED (
    SELECT o.queue, o.kind, p.priority, d.job_id, d.ready_at
    FROM o CROSS JOIN generate_series(0, 9) AS p(priority)
    CROSS JOIN LATERAL (
        SELECT job_id, ready_at FROM job_due d
        WHERE d.queue = o.queue AND d.kind = o.kind AND d.priority = p.priority
        ORDER BY d.ready_at, uuid_send(d.job_id) LIMIT 1
    ) d
    WHERE d.ready_at < (SELECT clock_timestamp() - make_interval(secs => $2))
      AND o.queue <> ALL (ARRAY(SELECT queue FROM queues WHERE paused))
),
r AS MATERIALIZED (
    SELECT queue, kind, priority, max(ready_at) AS ready_at
    FROM (SELECT queue, kind, priority, ready_at FROM job_running LIMIT 10000) sample
    GROUP BY queue, kind, priority
)
SELECT h.queue, h.kind, h.job_id, coalesce(r.ready_at > h.ready_at, false)
FROM h LEFT JOIN r USING (queue, kind, priority);

-- name: audit_workers
-- At most $1 living workers: what they serve, and whether they run nothing at all.
SELECT queues, kinds, NOT EXISTS (SELECT 1 FROM job_running r WHERE r.worker_id = w.worker_id)
FROM workers w WHERE condemned_at IS NULL AND expires_at > clock_timestamp() LIMIT $1;
