-- What readers ask for of workflows; on their own pool, as reads.sql.
--
-- A workflow's counts of jobs that are over stand in its row. Of the others, those that are due or
-- running are counted by the indexes of their graph, and what is left is blocked.

-- name: workflow_page
-- The newest workflows below id $1: of names $5 and with queues among $6 only, each null for any.
-- $2 so many are looked at, $3 so many answered; $4 is for workflow_page_of_states.
-- Rows: (workflow_id, live); and, when $2 stopped the search, one without `live`: from this id
-- on everything was looked at.
WITH m AS MATERIALIZED (
    SELECT workflow_id, live
    FROM (
        SELECT workflow_id, name, queues, state,
               total - succeeded - dead - cancelled - skipped AS live
        FROM workflows WHERE workflow_id < $1 ORDER BY workflow_id DESC LIMIT $2
    ) w
    WHERE ($4::text[] IS NULL OR state = ANY ($4::text[]))
      AND ($5::text[] IS NULL OR name IN (SELECT unnest($5::text[])))
      AND ($6::text[] IS NULL OR NOT EXISTS (
          SELECT 1 FROM unnest(queues) AS q(queue)
          WHERE queue NOT IN (SELECT unnest($6::text[]))))
    ORDER BY workflow_id DESC LIMIT $3
)
SELECT workflow_id, live FROM m
UNION ALL
SELECT workflow_id, NULL FROM (
    SELECT workflow_id FROM workflows WHERE workflow_id < $1
    ORDER BY workflow_id DESC OFFSET $2::int - 1 LIMIT 1
) r WHERE (SELECT count(*) FROM m) < $3;

-- name: workflow_page_of_states
-- The same by the index of states, which share what may be looked at.
WITH l AS MATERIALIZED (
    SELECT s.state, greatest($2::int / count(*) OVER (), 1) AS rows
    FROM unnest($4::text[]) AS s(state)
),
m AS MATERIALIZED (
    SELECT e.workflow_id, e.live, l.state
    FROM l CROSS JOIN LATERAL (
        SELECT workflow_id, live
        FROM (
            SELECT workflow_id, name, queues, uuid_send(workflow_id) AS key,
                   total - succeeded - dead - cancelled - skipped AS live
            FROM workflows
            WHERE state = l.state AND uuid_send(workflow_id) < uuid_send($1)
            ORDER BY uuid_send(workflow_id) DESC LIMIT l.rows
        ) w
        WHERE ($5::text[] IS NULL OR name IN (SELECT unnest($5::text[])))
          AND ($6::text[] IS NULL OR NOT EXISTS (
              SELECT 1 FROM unnest(queues) AS q(queue)
              WHERE queue NOT IN (SELECT unnest($6::text[]))))
        ORDER BY key DESC LIMIT $3
    ) e
)
(SELECT workflow_id, live FROM m ORDER BY workflow_id DESC LIMIT $3)
UNION ALL
(SELECT r.workflow_id, NULL
 FROM l CROSS JOIN LATERAL (
     SELECT workflow_id FROM workflows
     WHERE state = l.state AND uuid_send(workflow_id) < uuid_send($1)
     ORDER BY uuid_send(workflow_id) DESC OFFSET l.rows - 1 LIMIT 1
 ) r
 WHERE (SELECT count(*) FROM m WHERE m.state = l.state) < $3
 ORDER BY r.workflow_id DESC LIMIT 1);

-- name: workflows
-- These workflows, in this order, with their jobs counted.
SELECT w.workflow_id, w.name, w.state, w.on_failure, w.queues, w.halt, w.holder_id, w.created_by,
       w.traceparent, w.finished_at, w.notify, w.total, w.succeeded, w.dead, w.cancelled, w.skipped,
       d.ready, d.scheduled, r.running
FROM unnest($1::uuid[]) WITH ORDINALITY AS i(workflow_id, n)
CROSS JOIN LATERAL (
    SELECT * FROM workflows WHERE workflow_id = i.workflow_id LIMIT 1
) w
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE ready_at <= now()) AS ready,
           count(*) FILTER (WHERE ready_at > now()) AS scheduled
    FROM job_due WHERE graph_id = w.workflow_id AND w.state = 'running'
) d
CROSS JOIN LATERAL (
    SELECT count(*) AS running
    FROM job_running WHERE graph_id = w.workflow_id AND w.state = 'running'
) r
ORDER BY i.n;

-- name: workflow_jobs
-- The first $3 jobs of workflow $1 behind name $2, by name.
SELECT j.job_id, j.name, j.kind, j.queue, p.state, j.depends_on, j.run_if, p.attempt,
       coalesce(p.started_at, a.started_at) AS started_at, p.finished_at
FROM (
    SELECT job_id, name, kind, queue, depends_on, run_if
    FROM jobs WHERE workflow_id = $1 AND name > $2 ORDER BY workflow_id, name LIMIT $3
) j
CROSS JOIN LATERAL (
    SELECT state, attempt, NULL::timestamptz AS started_at, finished_at
    FROM job_ended WHERE job_id = j.job_id
    UNION ALL
    SELECT 'blocked', attempt, NULL, NULL FROM job_blocked WHERE job_id = j.job_id
    UNION ALL
    SELECT CASE WHEN ready_at > now() THEN 'scheduled' ELSE 'ready' END, attempt, NULL, NULL
    FROM job_due WHERE job_id = j.job_id
    UNION ALL
    SELECT 'running', attempt, started_at, NULL FROM job_running WHERE job_id = j.job_id
    LIMIT 1
) p
LEFT JOIN LATERAL (
    SELECT started_at FROM attempts t WHERE t.job_id = j.job_id AND p.attempt > 0
    ORDER BY attempt DESC LIMIT 1
) a ON true
ORDER BY j.name;

-- name: dead_jobs
-- The jobs of workflow $1 that are dead, $2 at most, the first to die first; $3: characters of a message.
SELECT j.job_id, j.name, e.kind, e.error ->> 'type' AS error_type,
       left(e.error ->> 'message', $3) AS message
FROM (SELECT job_id, name FROM jobs WHERE workflow_id = $1 ORDER BY workflow_id, name) j
CROSS JOIN LATERAL (
    SELECT kind, error, finished_at FROM job_ended
    WHERE job_id = j.job_id AND (state = 'dead') IS TRUE LIMIT 1
) e
ORDER BY e.finished_at, j.job_id LIMIT $2;

-- name: dead_jobs_then
-- The same of workflows $1 as they stood at $2 each, by dead letters: $3 jobs a workflow, $4 characters. One that
-- was discarded is dead, unless it was tried again.
SELECT i.workflow_id, i.at, v.job_id, v.name, v.kind, v.error_type, v.message
FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS i(workflow_id, at, n)
CROSS JOIN LATERAL (
    SELECT j.job_id, j.name, l.kind, l.error_type, l.died_at,
           left((SELECT error ->> 'message' FROM attempts a
                 WHERE a.job_id = j.job_id AND a.attempt = l.attempt), $4) AS message
    FROM (
        SELECT job_id, name FROM jobs WHERE workflow_id = i.workflow_id ORDER BY workflow_id, name
    ) j
    CROSS JOIN LATERAL (
        SELECT d.kind, d.attempt, d.error_type, d.died_at, d.resolved_at, d.resolution
        FROM dead_letters d WHERE d.job_id = j.job_id AND d.died_at <= i.at
        ORDER BY d.job_id DESC, d.attempt DESC LIMIT 1
    ) l
    WHERE l.resolved_at IS NULL OR l.resolved_at > i.at
       OR (l.resolution = 'discarded' AND NOT EXISTS (
           SELECT 1 FROM attempts a
           WHERE a.job_id = j.job_id AND a.attempt > l.attempt AND a.started_at <= i.at))
    ORDER BY l.died_at, j.job_id LIMIT $3
) v
ORDER BY i.n, v.died_at, v.job_id;

-- name: workflow_members
-- The jobs of workflow $1 that have these names: their ids, and whether each can ever be skipped.
SELECT name, job_id, run_if IS NOT NULL AND run_if <> 'all_finished'
FROM jobs WHERE workflow_id = $1 AND name = ANY($2::text[]);
