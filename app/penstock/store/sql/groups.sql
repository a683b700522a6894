-- Groups of effects that one message tells of (decision 0022). Members wait without a time of their own
-- (due_at is infinity); the leader has the group's.

-- name: to_group
-- What is to join groups, locked: effects $1, whose lease is $2; and what is due of the rule $3 of theirs and its
-- endpoint besides, and is with nobody, at most $4.
WITH o AS MATERIALIZED (
    SELECT effect_id FROM effects
    WHERE channel = $5 AND endpoint = $6 AND due_at <= clock_timestamp() AND $4 > 0
      AND rule = $3 AND lease IS NULL AND group_id IS NULL AND job_id IS NOT NULL
      AND (waits_for IS NULL OR waits_for = 'quiet')
    ORDER BY channel, endpoint, due_at LIMIT $4
),
k AS MATERIALIZED (
    SELECT effect_id, event, at, job_id, attempt, state FROM effects
    WHERE effect_id = ANY(ARRAY(SELECT effect_id FROM o UNION ALL SELECT unnest($1::uuid[])))
      AND (lease = $2 OR (lease IS NULL AND group_id IS NULL AND due_at <= clock_timestamp()))
    ORDER BY effect_id FOR UPDATE SKIP LOCKED
)
SELECT k.effect_id, k.event, k.at, j.queue, j.kind, l.error_type, l.fingerprint
FROM k
CROSS JOIN LATERAL (SELECT queue, kind FROM jobs WHERE job_id = k.job_id LIMIT 1) j
LEFT JOIN LATERAL (
    SELECT error_type, fingerprint FROM dead_letters
    WHERE job_id = k.job_id AND attempt = k.attempt AND k.state = 'dead' LIMIT 1
) l ON true;

-- name: open_groups
-- Makes groups $2 of rule $1, with labels $3, where they are not there, and locks them. A leader that is gone is none.
INSERT INTO rule_groups AS g (rule, key, labels, rests_until)
SELECT $1, v.key, v.labels, clock_timestamp()
FROM unnest($2::text[], $3::json[]) AS v(key, labels) ORDER BY v.key
ON CONFLICT (rule, key) DO UPDATE SET labels = excluded.labels
RETURNING g.group_id, g.key,
          EXISTS (SELECT 1 FROM effects e WHERE e.effect_id = g.leader AND e.message_id IS NULL
                  AND e.group_id = g.group_id) AS is_led;

-- name: join_groups
-- to be told -> members of groups, whose rows are locked. $1: effects, $2: the group of each, $3: whether it
-- leads it, and so waits $4 seconds, and until the group has rested.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
v AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bool[]) AS v(effect_id, group_id, leads)
),
l AS (
    UPDATE rule_groups g SET leader = v.effect_id
    FROM v WHERE g.group_id = ANY($2::uuid[]) AND g.group_id = v.group_id AND v.leads
    RETURNING g.group_id, g.rests_until
)
UPDATE effects e
SET group_id = v.group_id, waits_for = 'group', lease = NULL, tries = 0, error = NULL,
    due_at = coalesce(
        (SELECT greatest(t.now + make_interval(secs => $4), l.rests_until)
         FROM l, t WHERE l.group_id = v.group_id AND v.leads),
        'infinity'
    )
FROM v WHERE e.effect_id = ANY($1::uuid[]) AND e.effect_id = v.effect_id;

-- name: lock_group
-- Whether effect $2, whose lease is $3, leads group $1, whose row is locked then.
SELECT g.group_id FROM rule_groups g
WHERE g.group_id = $1 AND g.leader = $2
  AND EXISTS (SELECT 1 FROM effects WHERE effect_id = $2 AND lease = $3 AND group_id = $1
              AND message_id IS NULL)
FOR UPDATE;

-- name: fix_message
-- a group that gathers -> a message of its first $3 members, told by effect $2, which is called $4 from now on; and
-- what is left gathers on: the next leads, and waits until the group has rested for $5 seconds. Group $1 is locked.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
o AS MATERIALIZED (
    SELECT effect_id, row_number() OVER (ORDER BY at) AS place
    FROM (
        SELECT effect_id, at FROM effects
        WHERE group_id = $1 AND message_id IS NULL AND group_id IS NOT NULL
          AND effect_id <> $2 ORDER BY group_id, at LIMIT $3
    ) w
),
n AS MATERIALIZED (SELECT effect_id FROM o WHERE place = $3),
g AS (
    UPDATE rule_groups
    SET leader = (SELECT effect_id FROM n), rests_until = t.now + make_interval(secs => $5)
    FROM t WHERE group_id = $1
    RETURNING labels
),
m AS (
    UPDATE effects e SET message_id = $2
    WHERE e.effect_id = ANY(ARRAY(SELECT effect_id FROM o WHERE place < $3))
),
r AS (
    UPDATE effects e SET due_at = t.now + make_interval(secs => $5)
    FROM t WHERE e.effect_id = ANY(ARRAY(SELECT effect_id FROM n))
)
UPDATE effects e
SET message_id = e.effect_id, dedupe = 'group:' || e.effect_id, event = $4,
    labels = (SELECT labels FROM g)
WHERE e.effect_id = $2
RETURNING e.dedupe, e.event, e.labels;

-- name: rejoin
-- A member of a group or a message was claimed by itself: it waits on.
UPDATE effects SET due_at = 'infinity', lease = NULL, tries = 0
WHERE effect_id = $1 AND lease = $2 AND group_id IS NOT NULL
  AND message_id IS DISTINCT FROM effect_id;

-- name: message_size
-- How many the message of effect $1 tells of, and the first and the last of these ends.
SELECT count(*)::int, min(at), max(at)
FROM (
    SELECT at FROM effects WHERE message_id = $1
    UNION ALL
    SELECT at FROM deliveries WHERE message_id = $1
) m;

-- name: message_samples
-- The first $2 of them.
SELECT job_id, attempt, state, reason, at
FROM (
    (SELECT job_id, attempt, state, reason, at FROM effects WHERE message_id = $1
     ORDER BY at, job_id LIMIT $2)
    UNION ALL
    (SELECT job_id, attempt, state, reason, at FROM deliveries WHERE message_id = $1
     ORDER BY at, job_id LIMIT $2)
) m
WHERE job_id IS NOT NULL ORDER BY at, job_id LIMIT $2;

-- name: mend_groups
-- Groups whose leader is gone, which a replica of before them may have sent by itself: the next member leads, at
-- once. Members without any group can't be: its row stays while it has a leader.
WITH o AS MATERIALIZED (
    SELECT g.group_id, (
        SELECT m.effect_id FROM effects m
        WHERE m.group_id = g.group_id AND m.message_id IS NULL AND m.group_id IS NOT NULL
        ORDER BY m.group_id, m.at LIMIT 1
    ) AS next
    FROM rule_groups g
    WHERE g.leader IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM effects e WHERE e.effect_id = g.leader AND e.message_id IS NULL
                      AND e.group_id = g.group_id LIMIT 1)
    LIMIT 100 FOR UPDATE OF g SKIP LOCKED
),
u AS (
    UPDATE rule_groups g SET leader = o.next FROM o WHERE g.group_id = o.group_id
    RETURNING o.next
)
UPDATE effects SET due_at = clock_timestamp() WHERE effect_id = ANY(ARRAY(SELECT next FROM u));

-- name: forget_groups
-- Groups that have rested.
DELETE FROM rule_groups WHERE leader IS NULL AND rests_until < clock_timestamp();
