-- What readers ask for; on their own pool, never in the way of a settlement.

-- name: set_planner
-- Allows what readers otherwise do without, or forbids it again; until the transaction ends.
SELECT set_config($1, $2, true);

-- name: jobs
-- These jobs, in this order; payloads, results and depends_on only if $2. `now()`, not clock_timestamp(): what
-- is read in one snapshot is told of one moment.
SELECT v.*
FROM unnest($1::uuid[]) WITH ORDINALITY AS i(job_id, n)
CROSS JOIN LATERAL (
SELECT j.job_id, j.queue, j.kind,
       CASE WHEN d.job_id IS NOT NULL AND d.ready_at > now() THEN 'scheduled'
            WHEN d.job_id IS NOT NULL THEN 'ready'
            WHEN r.job_id IS NOT NULL THEN 'running'
            WHEN b.job_id IS NOT NULL THEN 'blocked'
            ELSE e.state END AS state,
       j.priority, CASE WHEN $2 THEN j.payload ELSE 'null' END AS payload,
       CASE WHEN $2 THEN e.result END AS result, coalesce(e.error, a.error) AS error,
       coalesce(d.attempt, r.attempt, e.attempt, b.attempt) AS attempt,
       coalesce(d.failures, r.failures, e.failures, 0) AS failures,
       coalesce(d.crashes, r.crashes, e.crashes, 0) AS crashes,
       j.max_attempts, j.on_lost, j.backoff, j.timeout_s, j.follows,
       coalesce(d.ready_at, r.ready_at, b.run_at, least(j.run_at, a.started_at)) AS run_at,
       coalesce(r.started_at, a.started_at) AS started_at, e.finished_at, e.reason,
       coalesce(r.worker_id, a.worker_id) AS worker_id, j.tags, j.traceparent, j.created_by,
       j.unique_key, j.expires_at, j.workflow_id, j.name, j.run_if, j.notify,
       CASE WHEN $2 THEN j.depends_on END AS depends_on, p.percent, p.message
FROM jobs j
LEFT JOIN job_due d USING (job_id)
LEFT JOIN job_running r USING (job_id)
LEFT JOIN job_blocked b USING (job_id)
LEFT JOIN job_ended e USING (job_id)
LEFT JOIN LATERAL (
    SELECT started_at, worker_id, CASE WHEN e.state = 'succeeded' THEN NULL ELSE error END AS error
    FROM attempts t WHERE t.job_id = j.job_id ORDER BY attempt DESC LIMIT 1
) a ON true
LEFT JOIN job_progress p
       ON p.job_id = j.job_id AND p.attempt = coalesce(d.attempt, r.attempt, e.attempt)
WHERE j.job_id = i.job_id LIMIT 1
) v
ORDER BY i.n;

-- name: attempts
-- The first $3 attempts of a job after number $2, the one under way among them.
SELECT attempt, worker_id, started_at, finished_at, outcome, error, next_run_at
FROM (
    (SELECT attempt, worker_id, started_at, finished_at, outcome, error, next_run_at
     FROM attempts WHERE job_id = $1 AND attempt > $2 ORDER BY attempt LIMIT $3)
    UNION ALL
    SELECT attempt, worker_id, started_at, NULL, NULL, NULL, NULL
    FROM job_running WHERE job_id = $1 AND attempt > $2
) a
ORDER BY attempt LIMIT $3;

-- name: logs
-- The first $4 lines of a job after line $3 of attempt $2.
SELECT at, attempt, level, message, seq FROM job_logs
WHERE job_id = $1 AND (attempt, seq) > ($2, $3) ORDER BY attempt, seq LIMIT $4;

-- name: states_among
-- Where these jobs stand.
SELECT j.job_id,
       CASE WHEN d.job_id IS NOT NULL AND d.ready_at > clock_timestamp() THEN 'scheduled'
            WHEN d.job_id IS NOT NULL THEN 'ready'
            WHEN r.job_id IS NOT NULL THEN 'running'
            WHEN b.job_id IS NOT NULL THEN 'blocked'
            ELSE e.state END
FROM jobs j
LEFT JOIN job_due d USING (job_id)
LEFT JOIN job_running r USING (job_id)
LEFT JOIN job_blocked b USING (job_id)
LEFT JOIN job_ended e USING (job_id)
WHERE j.job_id = ANY($1::uuid[]);

-- name: depends_on_of
-- Whom these jobs depend on, as was asked for.
SELECT job_id, depends_on FROM jobs WHERE job_id = ANY($1::uuid[]);

-- name: queues_of
-- The queues of those of these jobs that there are.
SELECT job_id, queue FROM jobs WHERE job_id = ANY($1::uuid[]);

-- name: ended_among
-- Which of these jobs and workflows are over, for those who wait for them.
SELECT job_id FROM job_ended WHERE job_id = ANY($1::uuid[])
UNION ALL
SELECT workflow_id FROM workflows WHERE workflow_id = ANY($1::uuid[]) AND state <> 'running';
