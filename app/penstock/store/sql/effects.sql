-- The outbox: effects that are to leave the house (decision 0020). Written in the transaction that ends
-- a job or a workflow; claimed by lease, never in a transaction that is held open around a send.

-- name: add_effects
-- nothing -> to be delivered. Columns in the order of effect_columns.
INSERT INTO effects (channel, endpoint, dedupe, event, job_id, workflow_id, attempt, state, reason,
                     rule, at, due_at)
SELECT e.*, t.now, t.now
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::int[],
            $8::text[], $9::text[], $10::text[]) AS e
CROSS JOIN (SELECT clock_timestamp() AS now) t;

-- name: add_dead_letters
-- For jobs that end dead by another way than settle_attempts. $2: fingerprints.
INSERT INTO dead_letters (job_id, attempt, queue, kind, error_type, fingerprint, reason, died_at)
SELECT e.job_id, e.attempt, e.queue, e.kind, coalesce(e.error ->> 'type', 'unknown'), f.fingerprint,
       e.reason, e.finished_at
FROM unnest($1::uuid[], $2::text[]) AS f(job_id, fingerprint)
JOIN job_ended e ON e.job_id = f.job_id
WHERE e.job_id = ANY($1::uuid[])
ON CONFLICT DO NOTHING;

-- name: wishes_of
-- What these jobs want told of their end, and their tags, of those that want anything; of all if $2.
SELECT job_id, notify, tags FROM jobs
WHERE job_id = ANY($1::uuid[]) AND ($2 OR notify IS NOT NULL);

-- name: workflow_wishes
-- What these workflows, which have just ended, want told of it, and when that was in ms since 1970.
SELECT workflow_id, notify, (extract(epoch FROM finished_at) * 1000)::bigint FROM workflows
WHERE workflow_id = ANY($1::uuid[]) AND notify IS NOT NULL;

-- name: claim_effects
-- The next due effects of channel $1, at most $3 of an endpoint and $4 in all, of no endpoint in $2:
-- hops from endpoint to endpoint behind $7, so that one with a backlog hides no other. The lease is theirs
-- for $6 seconds. In the order of endpoints: who claims again goes on behind the last. One whose lease has ended by
-- itself (`lapsed`) isn't counted as tried: deaths of relays must not take it up the schedule of failures.
WITH RECURSIVE t AS MATERIALIZED (SELECT clock_timestamp() AS now),
hop(endpoint) AS (
    (SELECT endpoint FROM effects WHERE channel = $1 AND endpoint > $7 ORDER BY endpoint LIMIT 1)
    UNION ALL
    SELECT n.endpoint FROM hop CROSS JOIN LATERAL (
        SELECT endpoint FROM effects WHERE channel = $1 AND endpoint > hop.endpoint
        ORDER BY endpoint LIMIT 1
    ) n
),
h AS MATERIALIZED (
    SELECT f.effect_id FROM hop CROSS JOIN LATERAL (
        SELECT effect_id FROM effects
        WHERE channel = $1 AND endpoint = hop.endpoint AND due_at <= (SELECT now FROM t)
        ORDER BY channel, endpoint, due_at LIMIT $3
    ) f
    WHERE hop.endpoint <> ALL ($2::text[])
    LIMIT $4
),
k AS MATERIALIZED (
    SELECT effect_id, lease IS NOT NULL AS lapsed FROM effects
    WHERE effect_id = ANY(ARRAY(SELECT effect_id FROM h))
      AND (due_at <= (SELECT now FROM t)) IS TRUE -- else it would look through effects_line for them
    ORDER BY effect_id FOR UPDATE SKIP LOCKED
),
u AS (
    UPDATE effects
    SET due_at = (SELECT now FROM t) + make_interval(secs => $6), lease = $5,
        tries = tries + (lease IS NULL)::int
    WHERE effect_id = ANY(ARRAY(SELECT effect_id FROM k))
    RETURNING effect_id, channel, endpoint, dedupe, event, job_id, workflow_id, attempt, state,
              reason, rule, at, tries, waits_for, group_id, message_id, labels,
              (SELECT now FROM t) AS now, lease
)
SELECT u.*, k.lapsed FROM u JOIN k USING (effect_id) ORDER BY endpoint;

-- part: told
-- What a row of deliveries keeps of its effect.
effect_id, channel, endpoint, dedupe, event, job_id, workflow_id, attempt, state, reason, rule, at, tries,
message_id, labels

-- name: finish_effects
-- to be delivered -> over, of those whose lease is still $2, and of those that their messages tell of. $3: outcomes,
-- $4: errors.
WITH v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $3::text[], $4::text[]) AS v(id, outcome, error)
),
d AS (
    DELETE FROM effects WHERE effect_id = ANY($1::uuid[]) AND lease = $2
    RETURNING @told
),
m AS (
    DELETE FROM effects
    WHERE message_id = ANY(ARRAY(SELECT effect_id FROM d WHERE message_id = effect_id))
      AND lease IS NULL AND (waits_for = 'asked') IS NOT TRUE -- else it is sent by itself
    RETURNING @told
),
w AS (
    SELECT *, effect_id AS by FROM d
    UNION ALL
    SELECT *, message_id FROM m
)
INSERT INTO deliveries (@told, outcome, error, finished_at)
SELECT @told, v.outcome, v.error, clock_timestamp()
FROM w JOIN v ON v.id = w.by
ON CONFLICT (effect_id) DO NOTHING
RETURNING effect_id;

-- name: give_up_unserved
-- to be delivered -> over (failed), of channel $1, which nobody has served for $2 seconds: $3 rows at most. $4:
-- why. Members of groups have no time of their own: they go when who leads them is gone.
WITH k AS MATERIALIZED (
    SELECT effect_id FROM effects e
    WHERE channel = $1
      AND (due_at < clock_timestamp() - make_interval(secs => $2)
           OR (due_at = 'infinity' AND NOT EXISTS (
               SELECT 1 FROM effects l
               WHERE l.effect_id = coalesce(
                   e.message_id,
                   (SELECT leader FROM rule_groups g WHERE g.group_id = e.group_id)))))
    LIMIT $3 FOR UPDATE SKIP LOCKED
),
d AS (
    DELETE FROM effects WHERE effect_id = ANY(ARRAY(SELECT effect_id FROM k))
    RETURNING @told
)
INSERT INTO deliveries (@told, outcome, error, finished_at)
SELECT d.*, 'failed', $4, clock_timestamp() FROM d
ON CONFLICT (effect_id) DO NOTHING
RETURNING effect_id;

-- name: put_off_effects
-- to be delivered -> the same, $3 seconds later each, for those whose lease is still $2. $4: errors. $5: what
-- it waits for, where that is known.
WITH v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $3::float8[], $4::text[], $5::text[])
        AS v(effect_id, delay_s, error, waits_for)
)
UPDATE effects e
SET due_at = clock_timestamp() + make_interval(secs => v.delay_s), error = v.error, lease = NULL,
    waits_for = CASE WHEN e.waits_for = 'asked' THEN 'asked'
                     ELSE coalesce(v.waits_for, e.waits_for) END
FROM v WHERE e.effect_id = ANY($1::uuid[]) AND e.effect_id = v.effect_id AND e.lease = $2
RETURNING e.effect_id;

-- name: hold_effects
-- to be delivered -> the same, at $3 each, for those whose lease is still $2; it was no try.
WITH v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $3::timestamptz[]) AS v(effect_id, until)
)
UPDATE effects e
SET due_at = v.until, waits_for = 'quiet', tries = e.tries - 1, lease = NULL
FROM v WHERE e.effect_id = ANY($1::uuid[]) AND e.effect_id = v.effect_id AND e.lease = $2
RETURNING e.effect_id;

-- name: hasten_held
-- What rules hold for longer than they would now, to be delivered -> the same, earlier; $6 at most. Columns: rule, its
-- channel and endpoint, the end of quiet, and how long after that who leads a group waits. Claimed, it is asked about
-- again.
WITH r AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::float8[])
        AS r(rule, channel, endpoint, until, wait_s)
),
k AS MATERIALIZED (
    SELECT f.* FROM r CROSS JOIN LATERAL (
        SELECT e.effect_id, w.due FROM effects e CROSS JOIN LATERAL (
            SELECT r.until + make_interval(secs => CASE
                WHEN e.group_id IS NOT NULL AND e.message_id IS NULL THEN r.wait_s ELSE 0 END) AS due
        ) w
        WHERE e.channel = r.channel AND e.endpoint = r.endpoint AND e.rule = r.rule
          AND e.due_at > r.until AND e.due_at > w.due AND e.due_at < 'infinity'
          AND e.waits_for = 'quiet' AND e.lease IS NULL
        LIMIT $6
    ) f
    LIMIT $6
),
l AS MATERIALIZED (
    SELECT effect_id FROM effects
    WHERE effect_id = ANY(ARRAY(SELECT effect_id FROM k)) AND lease IS NULL AND waits_for = 'quiet'
    ORDER BY effect_id FOR UPDATE SKIP LOCKED
)
UPDATE effects e SET due_at = k.due
FROM k WHERE e.effect_id = ANY(ARRAY(SELECT effect_id FROM l)) AND e.effect_id = k.effect_id
RETURNING e.effect_id;

-- name: effects_waiting
-- How many there are to deliver by channel, and of those that aren't held by their rule the age of the oldest in
-- seconds; how many are held in quiet hours, and in groups.
SELECT channel, count(*)::int,
       coalesce(extract(epoch FROM clock_timestamp()
           - min(at) FILTER (WHERE waits_for IS NULL OR waits_for IN ('retry', 'asked'))), 0)::float8,
       (count(*) FILTER (WHERE waits_for = 'quiet'))::int,
       (count(*) FILTER (WHERE waits_for = 'group'))::int
FROM effects GROUP BY channel;

-- name: endpoint_failed
-- Counts a failure of an endpoint; disabled at once if $4, or when it has failed for $5 seconds.
INSERT INTO endpoints AS p (endpoint, channel, failing_since, failures, disabled_at, error)
VALUES ($1, $2, clock_timestamp(), 1, CASE WHEN $4 THEN clock_timestamp() END, $3)
ON CONFLICT (endpoint) DO UPDATE
SET failures = p.failures + 1, error = excluded.error,
    disabled_at = coalesce(p.disabled_at, CASE
        WHEN $4 OR p.failing_since + make_interval(secs => $5) < clock_timestamp()
        THEN clock_timestamp() END)
RETURNING disabled_at IS NOT NULL;

-- name: endpoint_works
DELETE FROM endpoints WHERE endpoint = $1;

-- name: endpoint
-- One that fails or was given up; no row: it works.
SELECT failing_since, disabled_at, error FROM endpoints WHERE endpoint = $1;
