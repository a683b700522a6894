-- Dead letters: each death of a job, open until it is dealt with. Transitions are the engine's; lists are
-- read on the readers' pool.

-- name: resolve_letters
-- open -> resolved: those of these jobs. ("coalesce", or it might look through the index of all that are open.)
UPDATE dead_letters SET resolved_at = clock_timestamp(), resolution = $2, resolved_by = $3
WHERE job_id = ANY($1::uuid[]) AND coalesce(resolved_at, 'infinity') = 'infinity'
RETURNING job_id;

-- name: change_job
-- What a dead job is to run with in its next life: payload and queue, each kept where it is null. The lock
-- on its place comes first, as with who prunes it.
WITH k AS MATERIALIZED (
    SELECT job_id FROM job_ended WHERE job_id = $1 AND state <> 'succeeded' FOR UPDATE
)
UPDATE jobs SET payload = coalesce($2::json, payload), queue = coalesce($3::text, queue)
WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
RETURNING workflow_id;

-- name: replay_plain
-- ended (dead) -> due, of jobs of no graph that have an open letter, as retry_ended: many at once, each not
-- before its share of $2 seconds from now. $3: by whom. What isn't in the answer wasn't moved.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
v AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::float8[]) AS v(job_id, delay_s)),
k AS MATERIALIZED (
    SELECT job_id FROM job_ended
    WHERE job_id = ANY($1::uuid[]) AND (graph_id IS NULL) IS TRUE AND state <> 'succeeded'
    ORDER BY job_id FOR UPDATE
),
o AS MATERIALIZED (
    SELECT job_id FROM dead_letters
    WHERE job_id = ANY(ARRAY(SELECT job_id FROM k)) AND coalesce(resolved_at, 'infinity') = 'infinity'
    ORDER BY job_id FOR UPDATE
),
j AS MATERIALIZED (
    SELECT job_id, queue, priority, job_unique_id(queue, unique_key) AS unique_id,
           CASE WHEN expires_at > t.now THEN expires_at END AS expires_at
    FROM jobs, t WHERE job_id = ANY(ARRAY(SELECT job_id FROM o))
),
u AS ( -- of twins the newest
    INSERT INTO job_unique (unique_id, job_id)
    SELECT DISTINCT ON (unique_id) unique_id, job_id FROM j WHERE unique_id IS NOT NULL
    ORDER BY unique_id, job_id DESC
    ON CONFLICT (unique_id) DO UPDATE SET job_id = excluded.job_id
        WHERE job_unique.job_id = excluded.job_id
    RETURNING job_id
),
e AS (
    DELETE FROM job_ended
    WHERE job_id = ANY(ARRAY(
        SELECT job_id FROM j WHERE unique_id IS NULL UNION ALL SELECT job_id FROM u
    ))
    RETURNING job_id, queue, kind, state, attempt
),
l AS (
    UPDATE dead_letters SET resolved_at = t.now, resolution = 'replayed', resolved_by = $3
    FROM t
    WHERE job_id = ANY(ARRAY(SELECT job_id FROM e)) AND coalesce(resolved_at, 'infinity') = 'infinity'
),
d AS (
    INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                         unique_id, expires_at)
    SELECT e.job_id, j.queue, e.kind, j.priority, t.now + make_interval(secs => v.delay_s), e.attempt,
           0, 0, j.unique_id, j.expires_at
    FROM e JOIN j USING (job_id) JOIN v USING (job_id), t
    RETURNING job_id, queue, kind, priority, ready_at
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, state, (SELECT now FROM t), -count(*) FROM e GROUP BY queue, state
)
SELECT job_id, queue, kind, priority, ready_at FROM d;

-- part: wanted
    ($6::text[] IS NULL OR queue IN (SELECT unnest($6::text[])))
      AND ($7::text[] IS NULL OR kind IN (SELECT unnest($7::text[])))
      AND ($8::text[] IS NULL OR error_type IN (SELECT unnest($8::text[])))
      AND ($9::text[] IS NULL OR fingerprint IN (SELECT unnest($9::text[])))

-- part: letters_where(condition)
-- The newest letters below ($1, $2, $3), of queues $6, kinds $7, error types $8 and fingerprints $9, each
-- null for any; with $10 only those that were resolved. $4 so many are looked at, $5 so many answered.
-- Rows: (job_id, attempt, died_at, true); and, when $4 stopped the search, one with false: down to this one
-- all were looked at.
WITH m AS MATERIALIZED (
    SELECT job_id, attempt, died_at
    FROM (
        SELECT job_id, attempt, died_at, queue, kind, error_type, fingerprint, resolved_at,
               uuid_send(job_id) AS key
        FROM dead_letters
        WHERE @condition (died_at, uuid_send(job_id), attempt) < ($1, uuid_send($2), $3)
        ORDER BY died_at DESC, uuid_send(job_id) DESC, attempt DESC LIMIT $4
    ) w
    WHERE @wanted
      AND (NOT $10::bool OR resolved_at IS NOT NULL)
    ORDER BY died_at DESC, key DESC, attempt DESC LIMIT $5
)
SELECT job_id, attempt, died_at, true FROM m
UNION ALL
SELECT job_id, attempt, died_at, false FROM (
    SELECT job_id, attempt, died_at FROM dead_letters
    WHERE @condition (died_at, uuid_send(job_id), attempt) < ($1, uuid_send($2), $3)
    ORDER BY died_at DESC, uuid_send(job_id) DESC, attempt DESC OFFSET $4::int - 1 LIMIT 1
) r WHERE (SELECT count(*) FROM m) < $5;

-- name: open_letters
@letters_where(resolved_at IS NULL AND)

-- name: all_letters
@letters_where()

-- part: jobs_of(job; workflow)
SELECT @job::uuid AS job_id
WHERE @job::uuid IS NOT NULL
  AND (@workflow::uuid IS NULL OR EXISTS (SELECT 1 FROM jobs WHERE job_id = @job AND workflow_id = @workflow))
UNION ALL
SELECT job_id FROM (
    SELECT job_id FROM jobs WHERE workflow_id = @workflow ORDER BY workflow_id, name
) j WHERE @job::uuid IS NULL

-- name: letters_of
-- Letters of job $1, of the jobs of workflow $2, or of that job of it, below ($3, $4, $5), $6 at most; $7 to $10 as
-- $6 to $9 of letters_where; open ones, resolved ones ($11) or both (null). Few enough to look at all of them, the
-- last 1,000 of a job.
SELECT d.job_id, d.attempt, d.died_at, true
FROM (@jobs_of($1; $2)) i
CROSS JOIN LATERAL (
    SELECT job_id, attempt, died_at, queue, kind, error_type, fingerprint, resolved_at
    FROM dead_letters WHERE job_id = i.job_id ORDER BY job_id DESC, attempt DESC LIMIT 1000
) d
WHERE (d.died_at, uuid_send(d.job_id), d.attempt) < ($3, uuid_send($4::uuid), $5::int)
  AND ($7::text[] IS NULL OR d.queue = ANY ($7::text[]))
  AND ($8::text[] IS NULL OR d.kind = ANY ($8::text[]))
  AND ($9::text[] IS NULL OR d.error_type = ANY ($9::text[]))
  AND ($10::text[] IS NULL OR d.fingerprint = ANY ($10::text[]))
  AND ($11::bool IS NULL OR (d.resolved_at IS NOT NULL) = $11)
ORDER BY d.died_at DESC, uuid_send(d.job_id) DESC, d.attempt DESC LIMIT $6;

-- name: letters_to_replay
-- The oldest open letters above ($1, $2, $3), otherwise as letters_where; besides, whether the job is of no graph.
WITH m AS MATERIALIZED (
    SELECT job_id, attempt, died_at
    FROM (
        SELECT job_id, attempt, died_at, queue, kind, error_type, fingerprint, uuid_send(job_id) AS key
        FROM dead_letters
        WHERE resolved_at IS NULL AND (died_at, uuid_send(job_id), attempt) > ($1, uuid_send($2), $3)
        ORDER BY died_at, uuid_send(job_id), attempt LIMIT $4
    ) w
    WHERE @wanted
    ORDER BY died_at, key, attempt LIMIT $5
)
SELECT job_id, attempt, died_at, true,
       (SELECT graph_id FROM job_ended e WHERE e.job_id = m.job_id) IS NULL
FROM m
UNION ALL
SELECT job_id, attempt, died_at, false, false FROM (
    SELECT job_id, attempt, died_at FROM dead_letters
    WHERE resolved_at IS NULL AND (died_at, uuid_send(job_id), attempt) > ($1, uuid_send($2), $3)
    ORDER BY died_at, uuid_send(job_id), attempt OFFSET $4::int - 1 LIMIT 1
) r WHERE (SELECT count(*) FROM m) < $5;

-- name: letters
-- These letters (jobs, attempts), in this order, with their errors and where their messages are. ("IS TRUE", or
-- an index of another order would be looked through for the attempt.)
SELECT l.job_id, l.attempt, l.queue, l.kind, l.error_type, l.fingerprint, l.reason, l.died_at,
       l.resolved_at, l.resolution, l.resolved_by,
       (SELECT error FROM attempts a WHERE a.job_id = l.job_id AND a.attempt = l.attempt) AS error,
       (SELECT 'pending' FROM effects f
        WHERE f.job_id = l.job_id AND (f.channel = 'dead-letter') IS TRUE AND f.attempt = l.attempt
        LIMIT 1) AS pending,
       (SELECT outcome FROM deliveries f
        WHERE f.job_id = l.job_id AND (f.channel = 'dead-letter') IS TRUE AND f.attempt = l.attempt
        LIMIT 1) AS outcome
FROM unnest($1::uuid[], $2::int[]) WITH ORDINALITY AS i(job_id, attempt, n)
CROSS JOIN LATERAL (
    SELECT * FROM dead_letters d WHERE d.job_id = i.job_id AND (d.attempt = i.attempt) IS TRUE LIMIT 1
) l
ORDER BY i.n;

-- name: latest_letter
-- The attempt of a job's last death.
SELECT attempt FROM dead_letters WHERE job_id = $1 ORDER BY job_id DESC, attempt DESC LIMIT 1;

-- name: letter_groups
-- Of the newest $1 open letters, or of all of job $8 or workflow $9, of queues $5, kinds $6 and error types $7:
-- those that are alike, the newest death first, below ($2, $3), $4 at most. Then a row without fingerprint: how many
-- were looked at.
WITH w AS MATERIALIZED (
    (SELECT job_id, attempt, died_at, queue, kind, error_type, fingerprint
     FROM dead_letters WHERE resolved_at IS NULL AND $8::uuid IS NULL AND $9::uuid IS NULL
     ORDER BY died_at DESC, uuid_send(job_id) DESC, attempt DESC LIMIT $1)
    UNION ALL
    SELECT d.job_id, d.attempt, d.died_at, d.queue, d.kind, d.error_type, d.fingerprint
    FROM (@jobs_of($8; $9)) i
    CROSS JOIN LATERAL (
        SELECT * FROM dead_letters WHERE job_id = i.job_id ORDER BY job_id DESC, attempt DESC LIMIT 1
    ) d
    WHERE d.resolved_at IS NULL
),
g AS (
    SELECT fingerprint, count(*)::int AS count, min(died_at) AS first, max(died_at) AS last,
           (array_agg(job_id ORDER BY died_at DESC, job_id DESC))[1] AS job_id,
           (array_agg(attempt ORDER BY died_at DESC, job_id DESC))[1] AS attempt
    FROM w
    WHERE ($5::text[] IS NULL OR queue IN (SELECT unnest($5::text[])))
      AND ($6::text[] IS NULL OR kind IN (SELECT unnest($6::text[])))
      AND ($7::text[] IS NULL OR error_type IN (SELECT unnest($7::text[])))
    GROUP BY fingerprint
    HAVING (max(died_at), fingerprint) < ($2::timestamptz, $3::text)
    ORDER BY max(died_at) DESC, fingerprint DESC LIMIT $4
)
SELECT fingerprint, count, first, last, job_id, attempt FROM g
UNION ALL
SELECT NULL, count(*)::int, NULL, NULL, NULL, NULL FROM w;
