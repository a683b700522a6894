-- Queues: their switch, their settings, their counts.

-- name: add_queues
-- Enters those names that are new, all or none, if that makes no more than $2 queues.
WITH n AS MATERIALIZED (
    SELECT u.queue FROM unnest($1::text[]) AS u(queue)
    WHERE NOT EXISTS (SELECT 1 FROM queues q WHERE q.queue = u.queue)
)
INSERT INTO queues (queue)
SELECT queue FROM n
WHERE (SELECT count(*) FROM queues) + (SELECT count(*) FROM n) <= $2::bigint
ORDER BY queue
ON CONFLICT DO NOTHING;

-- name: queues_among
-- Which of these names there are. A statement of its own: it must see what another session
-- committed while add_queues waited for it.
SELECT queue FROM queues WHERE queue = ANY($1::text[]);

-- name: set_paused
-- Answers what it was before.
WITH k AS MATERIALIZED (SELECT queue, paused FROM queues WHERE queue = $1 FOR UPDATE),
u AS (UPDATE queues SET paused = $2 WHERE queue = ANY(ARRAY(SELECT queue FROM k)))
SELECT paused FROM k;

-- name: queue_settings
SELECT queue, paused, priority_aging_s FROM queues ORDER BY queue;

-- name: queue_names
SELECT queue FROM queues;

-- name: queue_page
-- The first $2 queues after name $1.
SELECT queue, paused, priority_aging_s FROM queues WHERE queue > $1 ORDER BY queue LIMIT $2;

-- name: queues_named
SELECT queue, paused, priority_aging_s FROM queues WHERE queue = ANY($1::text[]) ORDER BY queue;

-- name: fold_counts
-- Deltas that no longer count for the throughput join the one that has no time. Safe to run on
-- several replicas at once: each takes what no other has locked.
WITH old AS MATERIALIZED (
    SELECT ctid, queue, state FROM queue_counts
    WHERE at < (SELECT clock_timestamp() - interval '1 minute')
    LIMIT 10000 FOR UPDATE SKIP LOCKED
),
sums AS MATERIALIZED (
    SELECT ctid FROM queue_counts
    WHERE at IS NULL AND (queue, state) IN (SELECT queue, state FROM old)
    FOR UPDATE SKIP LOCKED
),
d AS (
    DELETE FROM queue_counts
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM old UNION ALL SELECT ctid FROM sums))
    RETURNING queue, state, delta
)
INSERT INTO queue_counts (queue, state, at, delta)
SELECT queue, state, NULL, sum(delta) FROM d GROUP BY queue, state;

-- name: live_counts
-- Jobs in the live places, by queue: ready, scheduled, running, blocked; and for how long the oldest
-- ready one has waited. All of them are counted: with seq scans allowed, 10 ms for 100,000.
SELECT queue, count(*) FILTER (WHERE ready_at <= now()), count(*) FILTER (WHERE ready_at > now()),
       0, 0,
       extract(epoch FROM now() - min(ready_at) FILTER (WHERE ready_at <= now()))::float8
FROM job_due GROUP BY queue
UNION ALL
SELECT queue, 0, 0, count(*), 0, NULL FROM job_running GROUP BY queue
UNION ALL
SELECT queue, 0, 0, 0, count(*), NULL FROM job_blocked GROUP BY queue;

-- name: ended_counts
-- Ended jobs by queue and state: all, and those of the last minute.
SELECT queue, state, sum(delta)::bigint,
       coalesce(sum(delta) FILTER (WHERE delta > 0
                                   AND at > clock_timestamp() - interval '1 minute'), 0)::bigint
FROM queue_counts
GROUP BY queue, state;

-- name: capacity
-- Slots of the workers that live, by the queues that they serve (globs).
SELECT queues, count(*), sum(slots)::bigint
FROM workers
WHERE condemned_at IS NULL AND expires_at > clock_timestamp() AND slots > 0
GROUP BY queues;

-- name: busy_slots
-- Attempts that hold a slot, by queue: a job that stands for a workflow holds none.
SELECT queue, count(*) FROM job_running r
WHERE EXISTS (SELECT 1 FROM workers w WHERE w.worker_id = r.worker_id)
GROUP BY queue;
