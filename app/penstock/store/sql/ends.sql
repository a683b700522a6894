-- Jobs as they were at an end that is told of, though they may have been replayed since.

-- name: jobs_at_their_ends
-- Jobs $1 as they were when attempt $2 had ended them in state $3; a payload or result of more than $4 characters
-- is left out. What a replay has taken is counted from the attempts.
SELECT v.*
FROM unnest($1::uuid[], $2::int[], $3::text[]) WITH ORDINALITY AS i(job_id, attempt, state, n)
CROSS JOIN LATERAL (
    SELECT j.job_id, j.queue, j.kind, i.state, j.priority,
           CASE WHEN length(j.payload::text) <= $4 THEN j.payload ELSE 'null' END AS payload,
           CASE WHEN i.state = 'succeeded' AND length(e.result::text) <= $4 THEN e.result END AS result,
           CASE WHEN i.state <> 'succeeded' THEN coalesce(e.error, a.error) END AS error,
           i.attempt, coalesce(e.failures, c.failures, 0) AS failures,
           coalesce(e.crashes, c.crashes, 0) AS crashes,
           j.max_attempts, j.on_lost, j.backoff, j.timeout_s, j.follows,
           least(j.run_at, a.started_at) AS run_at, a.started_at, e.finished_at, e.reason,
           a.worker_id, j.tags, j.traceparent, j.created_by, j.unique_key, j.expires_at,
           j.workflow_id, j.name, j.run_if, j.depends_on, j.notify, p.percent, p.message,
           length(j.payload::text) > $4
               OR coalesce(i.state = 'succeeded' AND length(e.result::text) > $4, false) AS is_cut
    FROM jobs j
    LEFT JOIN job_ended e
           ON e.job_id = j.job_id AND e.attempt = i.attempt AND e.state = i.state
    LEFT JOIN LATERAL (
        SELECT started_at, worker_id, error FROM attempts
        WHERE job_id = j.job_id AND attempt <= i.attempt ORDER BY attempt DESC LIMIT 1
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT (count(*) FILTER (WHERE outcome IN ('failed', 'timed_out')))::int AS failures,
               (count(*) FILTER (WHERE outcome = 'crashed'))::int AS crashes
        FROM attempts
        WHERE job_id = j.job_id AND attempt <= i.attempt AND e.job_id IS NULL
          AND attempt > greatest( -- of that life alone
              (SELECT max(attempt) FROM dead_letters d
               WHERE d.job_id = j.job_id AND d.attempt < i.attempt),
              (SELECT max(attempt) FROM attempts b
               WHERE b.job_id = j.job_id AND b.attempt < i.attempt AND b.outcome = 'cancelled'),
              0)
    ) c ON true
    LEFT JOIN job_progress p ON p.job_id = j.job_id AND p.attempt = i.attempt
    WHERE j.job_id = i.job_id LIMIT 1
) v
ORDER BY i.n;

-- name: attempts_until
-- The last $3 attempts of jobs $1 up to number $2 each, oldest first.
SELECT i.job_id, i.attempt, v.attempt, v.worker_id, v.started_at, v.finished_at, v.outcome, v.error,
       v.next_run_at
FROM unnest($1::uuid[], $2::int[]) AS i(job_id, attempt)
CROSS JOIN LATERAL (
    SELECT attempt, worker_id, started_at, finished_at, outcome, error, next_run_at FROM attempts
    WHERE job_id = i.job_id AND attempt <= i.attempt ORDER BY attempt DESC LIMIT $3
) v
ORDER BY i.job_id, i.attempt, v.attempt;
