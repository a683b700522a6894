-- What is kept for a time and then let go of. Safe to run on several replicas at once: each takes
-- what no other has locked.

-- name: prune_ended
-- ended -> nothing: all that there is of the oldest $4 jobs of state $1 that ended more than $2
-- seconds ago, not before $3. Whoever gives such a job a new life first keeps it, whoever is second
-- finds no such job.
WITH k AS MATERIALIZED (
    SELECT job_id FROM job_ended
    WHERE state = $1 AND finished_at >= $3
      AND finished_at < (SELECT clock_timestamp() - make_interval(secs => $2))
    -- Here will stand: AND no effect that still has to leave the house refers to it, AND it belongs
    -- to no workflow that is open.
    ORDER BY finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
),
e AS (
    DELETE FROM job_ended WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
    RETURNING queue, state, finished_at
),
j AS (DELETE FROM jobs WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))),
a AS (DELETE FROM attempts WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))),
l AS (DELETE FROM job_logs WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))),
p AS (DELETE FROM job_progress WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, state, clock_timestamp(), -count(*) FROM e GROUP BY queue, state
)
SELECT count(*), max(finished_at) FROM e;

-- name: prune_idempotency_keys
-- The oldest $2 answers that were stored more than $1 seconds ago.
WITH k AS MATERIALIZED (
    SELECT key_id FROM idempotency_keys
    WHERE stored_at < (SELECT clock_timestamp() - make_interval(secs => $1))
    ORDER BY stored_at LIMIT $2 FOR UPDATE SKIP LOCKED
),
d AS (
    DELETE FROM idempotency_keys WHERE key_id = ANY(ARRAY(SELECT key_id FROM k))
    RETURNING key_id
)
SELECT count(*) FROM d;
