-- The transitions of a job. Each is one statement: rows leave one place and enter the next, and a
-- row that isn't there any more means that somebody else was first.
--
-- Shape of the hot ones (pitfalls.md A1): a materialised, ordered, locking k; then
-- "= ANY(ARRAY(SELECT … FROM k))". Small sets are joined only with each other, never with a table.

-- name: submit_jobs
-- nothing -> due. Safe to repeat: an id that exists is passed over, with its place and its key.
-- Answers the time, and how many unique keys were taken: then the caller must roll back. Adds the
-- entries of the audit log that tell of it, as add_entries.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
j AS (
    INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, backoff,
                      timeout_s, on_lost, tags, traceparent, created_by, unique_key, expires_at,
                      notify, follows)
    SELECT i.job_id, i.queue, i.kind, i.priority, i.payload,
           greatest(i.run_at, t.now + make_interval(secs => i.delay_s), t.now),
           i.max_attempts, i.backoff, i.timeout_s, i.on_lost,
           CASE WHEN i.tags IS NOT NULL
                THEN ARRAY(SELECT json_array_elements_text(i.tags)) END,
           i.traceparent, i.created_by, i.unique_key,
           greatest(i.expires_at, t.now + make_interval(secs => i.ttl_s)), i.notify, i.follows
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::json[],
                $6::timestamptz[], $7::float8[], $8::smallint[], $9::json[], $10::float8[],
                $11::text[], $12::json[], $13::text[], $14::text[], $15::text[],
                $16::timestamptz[], $17::float8[], $18::json[], $19::smallint[])
         AS i(job_id, queue, kind, priority, payload, run_at, delay_s, max_attempts, backoff,
              timeout_s, on_lost, tags, traceparent, created_by, unique_key, expires_at, ttl_s,
              notify, follows), t
    ON CONFLICT (job_id) DO NOTHING
    RETURNING job_id, queue, kind, priority, run_at, unique_key, expires_at,
              job_unique_id(queue, unique_key) AS unique_id
),
u AS (
    INSERT INTO job_unique (unique_id, job_id)
    SELECT unique_id, job_id FROM j WHERE unique_id IS NOT NULL ORDER BY unique_id
    ON CONFLICT DO NOTHING RETURNING job_id
),
d AS (
    INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                         unique_id, expires_at)
    SELECT job_id, queue, kind, priority, run_at, 0, 0, 0, unique_id, expires_at FROM j
),
l AS (
    INSERT INTO audit_log (audit_id, action, actor, roles, address, request_id, object_id, queue,
                           outcome, details)
    SELECT i.*
    FROM unnest($20::uuid[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[],
                $26::text[], $27::text[], $28::text[], $29::json[]) AS i
    ON CONFLICT (audit_id) DO NOTHING
)
SELECT now, (SELECT count(*) FROM j WHERE unique_id IS NOT NULL) - (SELECT count(*) FROM u)
FROM t;

-- name: lock_keys
-- Which of these keys no other transaction is taking just now: those are ours until the commit.
-- Never waits, so that nobody in a batch waits for somebody's twin (pitfalls.md, A11). The second
-- answer: whether no submission with too many keys to lock them (lock_large) is under way.
SELECT clock_timestamp(), pg_try_advisory_xact_lock_shared(hashtextextended('large', 0)), ARRAY(
    SELECT pg_try_advisory_xact_lock(hashtextextended(k.key, 0))
    FROM unnest($1::text[]) WITH ORDINALITY AS k(key, i) ORDER BY k.i
);

-- name: lock_large
-- Waits until no other transaction takes unique keys, and keeps all from it until the commit.
SELECT clock_timestamp(), pg_advisory_xact_lock(hashtextextended('large', 0));

-- name: jobs_among
-- Which of these ids are stored jobs.
SELECT job_id FROM jobs WHERE job_id = ANY($1::uuid[]);

-- name: unique_holders
-- Which live jobs hold these keys, by the keys' place in the arrays.
WITH k AS MATERIALIZED (
    SELECT i, job_unique_id(queue, unique_key) AS unique_id
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k(queue, unique_key, i)
),
u AS MATERIALIZED (
    SELECT unique_id, job_id FROM job_unique WHERE unique_id = ANY(ARRAY(SELECT unique_id FROM k))
)
SELECT k.i::int - 1, u.job_id FROM k JOIN u USING (unique_id);

-- name: stored_answers
-- What requests with these keys were answered in the last $2 seconds.
SELECT key_id, body, stored_at, job_ids, holders FROM idempotency_keys
WHERE key_id = ANY($1::uuid[])
  AND stored_at + make_interval(secs => $2) > clock_timestamp();

-- name: store_answer
-- In place of one that no longer counts, if there is one.
INSERT INTO idempotency_keys (key_id, body, stored_at, job_ids, holders)
VALUES ($1, $2, $3, $4::uuid[], $5::uuid[])
ON CONFLICT (key_id) DO UPDATE
SET body = excluded.body, stored_at = excluded.stored_at, job_ids = excluded.job_ids,
    holders = excluded.holders;

-- name: start_jobs
-- due -> running, for a worker that isn't condemned, what is due, not expired and in no paused
-- queue. Expiry counts until here: the place it may return to has none. Last, of those that are tried
-- again: when their life's first attempt began.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
k AS MATERIALIZED (
    SELECT job_id FROM job_due
    WHERE job_id = ANY($1::uuid[])
      AND (SELECT now FROM t) - ready_at >= interval '0' -- "<=" would tempt it to job_due_line
      AND (expires_at IS NULL OR expires_at > (SELECT now FROM t))
      AND queue <> ALL (ARRAY(SELECT queue FROM queues WHERE paused))
      AND EXISTS (SELECT 1 FROM workers WHERE worker_id = $2 AND condemned_at IS NULL)
    ORDER BY job_id FOR UPDATE SKIP LOCKED
),
d AS (
    DELETE FROM job_due WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
    RETURNING job_id, queue, kind, priority, ready_at, attempt + 1 AS attempt, failures, losses,
              crashes, unique_id, graph_id
),
r AS (
    INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at,
                             failures, losses, crashes, started_at, unique_id, graph_id)
    SELECT job_id, attempt, $2, queue, kind, priority, ready_at, failures, losses, crashes,
           (SELECT now FROM t), unique_id, graph_id
    FROM d
),
j AS MATERIALIZED (
    SELECT job_id, payload, max_attempts, backoff, timeout_s, on_lost, tags, traceparent,
           created_by, notify, follows
    FROM jobs WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
)
SELECT d.job_id, d.attempt, $2::uuid, d.queue, d.kind, d.priority, j.payload, d.failures,
       d.losses, j.max_attempts, j.backoff, j.timeout_s, j.on_lost, d.ready_at,
       (SELECT now FROM t), j.tags, j.traceparent, j.created_by, d.crashes,
       d.graph_id, j.notify, j.follows,
       CASE WHEN d.failures + d.losses + d.crashes > 0 THEN (
           SELECT min(a.started_at) FROM attempts a
           WHERE a.job_id = d.job_id AND a.attempt > coalesce((
               SELECT max(b.attempt) FROM attempts b
               WHERE b.job_id = d.job_id AND b.next_run_at IS NULL), 0)
       ) END
FROM d JOIN j USING (job_id);

-- name: left_due
-- Why start didn't move these: a row here is early, paused, expired or was locked; no row, it is
-- gone.
SELECT d.job_id, d.queue, d.kind, d.priority, d.ready_at,
       (d.queue = ANY (ARRAY(SELECT queue FROM queues WHERE paused))),
       coalesce(d.expires_at <= clock_timestamp(), false)
FROM job_due d WHERE d.job_id = ANY($1::uuid[]);

-- name: settle_attempts
-- running -> ended (state given) or due (state null), exactly once: the fence is
-- (job_id, attempt, worker_id). A row with a cancel request that the verdict did not know of
-- stays, unless it succeeded; the caller decides again. Nor does one move here that is part of a
-- graph, unless $14 says that the graph is locked: the answer tells of it. $15: fingerprints of those
-- that die; $16 on: the effects of those that end.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::text[], $5::text[], $6::float8[],
                         $7::int[], $8::int[], $9::smallint[], $10::json[], $11::json[],
                         $12::text[], $13::bool[], $15::text[])
        AS v(job_id, attempt, worker_id, outcome, state, delay_s, failures, losses, crashes, result,
             error, reason, cancel_known, fingerprint)
),
k AS MATERIALIZED (
    SELECT job_id, attempt, worker_id, queue, kind, priority, ready_at, started_at, unique_id, graph_id,
           cancel_requested_at IS NOT NULL AS cancel_requested
    FROM job_running WHERE job_id = ANY($1::uuid[])
    ORDER BY job_id FOR UPDATE
),
m AS MATERIALIZED (
    SELECT k.job_id, k.attempt, k.worker_id, k.queue, k.kind, k.priority, k.started_at,
           k.unique_id, k.graph_id, v.outcome, v.state, v.failures, v.losses, v.crashes, v.result, v.error,
           v.reason, v.fingerprint, t.now,
           CASE WHEN v.state IS NOT NULL THEN NULL
                WHEN v.delay_s IS NULL THEN k.ready_at
                ELSE t.now + make_interval(secs => v.delay_s) END AS ready_at
    FROM k JOIN v USING (job_id, attempt, worker_id) CROSS JOIN t
    WHERE (k.graph_id IS NULL OR $14)
      AND (NOT k.cancel_requested OR v.cancel_known OR v.state = 'succeeded')
),
gone AS (DELETE FROM job_running WHERE job_id = ANY(ARRAY(SELECT job_id FROM m))),
a AS (
    INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome, error,
                          next_run_at)
    SELECT job_id, attempt, worker_id, started_at, now, outcome, error, ready_at FROM m
),
e AS (
    INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, crashes, result,
                           error, reason, finished_at, graph_id)
    SELECT job_id, queue, kind, state, attempt, failures, losses, crashes, result,
           CASE WHEN state <> 'succeeded' THEN error END, reason, now, graph_id
    FROM m WHERE state IS NOT NULL
),
q AS (
    INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                         crashes, unique_id, graph_id)
    SELECT job_id, queue, kind, priority, ready_at, attempt, failures, losses, crashes, unique_id,
           graph_id
    FROM m WHERE state IS NULL
),
u AS (
    DELETE FROM job_unique WHERE unique_id = ANY(ARRAY(
        SELECT unique_id FROM m WHERE state IS NOT NULL AND unique_id IS NOT NULL
    ))
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, state, (SELECT now FROM t), count(*)
    FROM m WHERE state IS NOT NULL GROUP BY queue, state
),
l AS (
    INSERT INTO dead_letters (job_id, attempt, queue, kind, error_type, fingerprint, reason, died_at)
    SELECT job_id, attempt, queue, kind, coalesce(error ->> 'type', 'unknown'), fingerprint, reason,
           now
    FROM m WHERE state = 'dead'
),
f AS (
    INSERT INTO effects (channel, endpoint, dedupe, event, job_id, attempt, state, reason, rule, at,
                         due_at)
    SELECT x.channel, x.endpoint, x.dedupe, x.event, x.job_id, x.attempt, x.state, x.reason, x.rule,
           m.now, m.now
    FROM unnest($16::uuid[], $17::int[], $18::text[], $19::text[], $20::text[], $21::text[],
                $22::text[], $23::text[], $24::text[])
         AS x(job_id, attempt, channel, endpoint, dedupe, event, state, reason, rule)
    JOIN m USING (job_id, attempt)
)
SELECT job_id, attempt, ready_at, 'settled' AS became, graph_id FROM m
UNION ALL
SELECT k.job_id, k.attempt, NULL,
       CASE WHEN k.graph_id IS NULL OR $14 THEN 'held' ELSE 'linked' END, k.graph_id
FROM k JOIN v USING (job_id, attempt, worker_id)
WHERE (k.graph_id IS NOT NULL AND NOT $14)
   OR (k.cancel_requested AND NOT v.cancel_known AND v.state IS DISTINCT FROM 'succeeded');

-- name: settled_before
-- After an answer that never came: which of these attempts has this worker settled already?
SELECT job_id, attempt, next_run_at FROM attempts
WHERE job_id = ANY($1::uuid[]) AND worker_id = ANY($2::uuid[]);

-- name: running_of
-- What stands under these workers' names, as start would have answered, oldest first, but for
-- $4; with the payloads if $3.
WITH r AS MATERIALIZED (
    SELECT * FROM job_running WHERE worker_id = ANY($1::uuid[]) AND job_id <> ALL ($4::uuid[])
    ORDER BY started_at LIMIT $2
),
j AS MATERIALIZED (
    SELECT job_id, CASE WHEN $3 THEN payload ELSE 'null' END AS payload, max_attempts, backoff, timeout_s, on_lost, tags, traceparent,
           created_by, notify, follows
    FROM jobs WHERE job_id = ANY(ARRAY(SELECT job_id FROM r))
)
SELECT r.job_id, r.attempt, r.worker_id, r.queue, r.kind, r.priority, j.payload, r.failures,
       r.losses, j.max_attempts, j.backoff, j.timeout_s, j.on_lost, r.ready_at, r.started_at,
       j.tags, j.traceparent, j.created_by, r.crashes, r.graph_id,
       j.notify, j.follows,
       CASE WHEN r.failures + r.losses + r.crashes > 0 THEN (
           SELECT min(a.started_at) FROM attempts a
           WHERE a.job_id = r.job_id AND a.attempt > coalesce((
               SELECT max(b.attempt) FROM attempts b
               WHERE b.job_id = r.job_id AND b.next_run_at IS NULL), 0)
       ) END,
       r.cancel_requested_at IS NOT NULL
FROM r JOIN j USING (job_id);

-- name: cancel_due
-- due -> ended (cancelled, requested), if it is part of no graph
WITH d AS (
    DELETE FROM job_due WHERE job_id = $1 AND graph_id IS NULL
    RETURNING job_id, queue, kind, priority, attempt, failures, losses, crashes, unique_id, ready_at
),
u AS (DELETE FROM job_unique WHERE unique_id = ANY(ARRAY(SELECT unique_id FROM d))),
e AS (
    INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, crashes, reason,
                           finished_at)
    SELECT job_id, queue, kind, 'cancelled', attempt, failures, losses, crashes, 'requested',
           clock_timestamp()
    FROM d
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, 'cancelled', clock_timestamp(), 1 FROM d
)
SELECT queue, kind, priority, attempt, ready_at > clock_timestamp() FROM d;

-- name: expire_due
-- due -> ended (cancelled, expired): the $1 that expired first, of no graph. Safe on several replicas at once:
-- each takes what no other has locked.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
k AS MATERIALIZED (
    SELECT job_id FROM job_due
    WHERE expires_at <= (SELECT now FROM t) AND graph_id IS NULL
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
),
d AS (
    DELETE FROM job_due WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
    RETURNING job_id, queue, kind, priority, attempt, failures, losses, crashes, unique_id
),
u AS (
    DELETE FROM job_unique WHERE unique_id = ANY(ARRAY(
        SELECT unique_id FROM d WHERE unique_id IS NOT NULL
    ))
),
e AS (
    INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, crashes, reason,
                           finished_at)
    SELECT job_id, queue, kind, 'cancelled', attempt, failures, losses, crashes, 'expired', t.now
    FROM d, t
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, 'cancelled', (SELECT now FROM t), count(*) FROM d GROUP BY queue
)
SELECT job_id, queue, kind, priority, attempt FROM d;

-- name: cancel_running
-- running stays running, its worker is asked; the first request's time is kept.
UPDATE job_running
SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
WHERE job_id = $1
RETURNING worker_id;

-- name: cancel_requested
-- Which of this worker's attempts should stop.
SELECT job_id FROM job_running WHERE worker_id = $1 AND cancel_requested_at IS NOT NULL;

-- name: retry_ended
-- ended (dead, cancelled, skipped) -> due: a new life, its budget fresh, attempts going on. Takes
-- the job's unique key again, and moves nothing where another job holds it. An expiry that has
-- passed is forgotten: who retries wants it run. Not before $2 seconds from now. Its queue is the one that
-- `jobs` has by now (change_job); it is counted out of the one it ended in.
-- (state <> …, not state IN …: PostgreSQL 18 would skip-scan the list index for the latter.)
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
k AS MATERIALIZED (
    SELECT job_id FROM job_ended WHERE job_id = $1 AND state <> 'succeeded' FOR UPDATE
),
j AS MATERIALIZED (
    SELECT job_id, queue, priority, job_unique_id(queue, unique_key) AS unique_id,
           CASE WHEN expires_at > t.now THEN expires_at END AS expires_at
    FROM jobs, t WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
),
u AS (
    INSERT INTO job_unique (unique_id, job_id)
    SELECT unique_id, job_id FROM j WHERE unique_id IS NOT NULL
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
d AS (
    INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses,
                         unique_id, expires_at)
    SELECT e.job_id, j.queue, e.kind, j.priority, t.now + make_interval(secs => $2), e.attempt, 0, 0,
           j.unique_id, j.expires_at
    FROM e JOIN j USING (job_id), t
    RETURNING job_id, queue, kind, priority, ready_at
),
c AS (
    INSERT INTO queue_counts (queue, state, at, delta)
    SELECT queue, state, now, -1 FROM e, t
)
SELECT queue, kind, priority, ready_at, (SELECT state FROM e) AS was FROM d;

-- name: state_of
-- Where a job stands, and which other live job holds its unique key; no row when there is no such
-- job.
SELECT CASE WHEN d.job_id IS NOT NULL AND d.ready_at > clock_timestamp() THEN 'scheduled'
            WHEN d.job_id IS NOT NULL THEN 'ready'
            WHEN r.job_id IS NOT NULL THEN 'running'
            WHEN b.job_id IS NOT NULL THEN 'blocked'
            ELSE e.state END,
       (SELECT u.job_id FROM job_unique u
        WHERE u.unique_id = job_unique_id(j.queue, j.unique_key) AND u.job_id <> j.job_id)
FROM jobs j
LEFT JOIN job_due d USING (job_id)
LEFT JOIN job_running r USING (job_id)
LEFT JOIN job_blocked b USING (job_id)
LEFT JOIN job_ended e USING (job_id)
WHERE j.job_id = $1;

-- name: add_logs
-- What handlers logged; safe to repeat. A job that ended long ago (half of the shortest retention)
-- takes no more: the pruner may be at it, and what it doesn't see would stay for ever.
WITH open AS MATERIALIZED (
    SELECT job_id FROM jobs WHERE job_id = ANY($1::uuid[])
    EXCEPT
    SELECT job_id FROM job_ended
    WHERE job_id = ANY($1::uuid[]) AND clock_timestamp() - finished_at > interval '30 s'
)
INSERT INTO job_logs (job_id, attempt, seq, at, level, message)
SELECT job_id, attempt, seq, to_timestamp(at_s), level, message
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::float8[], $5::text[], $6::text[])
     AS l(job_id, attempt, seq, at_s, level, message)
JOIN open USING (job_id)
ON CONFLICT DO NOTHING;

-- name: add_progress
-- How far handlers say that they have come: the latest report of the latest attempt stands. Safe to
-- repeat; in id order, so that two of these don't deadlock. `open` as in add_logs.
WITH open AS MATERIALIZED (
    SELECT job_id FROM jobs WHERE job_id = ANY($1::uuid[])
    EXCEPT
    SELECT job_id FROM job_ended
    WHERE job_id = ANY($1::uuid[]) AND clock_timestamp() - finished_at > interval '30 s'
)
INSERT INTO job_progress AS p (job_id, attempt, percent, message, at)
SELECT DISTINCT ON (job_id) job_id, attempt, percent, message, to_timestamp(at_s)
FROM unnest($1::uuid[], $2::int[], $3::float8[], $4::text[], $5::float8[])
     AS t(job_id, attempt, percent, message, at_s)
JOIN open USING (job_id)
ORDER BY job_id, attempt DESC, at_s DESC
ON CONFLICT (job_id) DO UPDATE
SET attempt = excluded.attempt, percent = excluded.percent, message = excluded.message,
    at = excluded.at
WHERE (p.attempt, p.at) <= (excluded.attempt, excluded.at);
