-- What readers ask for of effects: those that are still to be delivered (`effects`) and those that are over
-- (`deliveries`) have the same columns, in the order of deliveries._view. An effect keeps its time and its id
-- when it is over, so a list of both goes on where it ended.

-- part: pending(these)
SELECT m.effect_id, m.at, m.channel, m.endpoint, m.dedupe, m.event, m.job_id, m.workflow_id, m.attempt, m.state,
       m.reason, m.rule, m.tries, 'pending' AS outcome, m.error,
       CASE WHEN m.due_at = 'infinity' THEN l.due_at ELSE m.due_at END AS due_at,
       NULL::timestamptz AS finished_at, m.waits_for,
       nullif(coalesce(m.message_id, l.effect_id), m.effect_id) AS part_of
FROM @these
LEFT JOIN LATERAL ( -- whose message tells of it
    SELECT l.effect_id, l.due_at FROM effects l
    WHERE l.effect_id = coalesce(m.message_id, (
        SELECT g.leader FROM rule_groups g WHERE g.group_id = m.group_id LIMIT 1
    )) LIMIT 1
) l ON true

-- part: over(these)
SELECT effect_id, at, channel, endpoint, dedupe, event, job_id, workflow_id, attempt, state, reason, rule,
       tries, outcome, error, NULL::timestamptz AS due_at, finished_at, NULL AS waits_for,
       nullif(message_id, effect_id) AS part_of
FROM @these

-- part: newest(table; outcomes)
-- The newest below ($1, $2), of channels $5, of jobs and workflows in queues $6 only, each null for any.
-- $3 so many are looked at, $4 so many answered.
WITH m AS MATERIALIZED (
    SELECT * FROM (
        SELECT *, uuid_send(effect_id) AS key
        FROM @table WHERE (at, uuid_send(effect_id)) < ($1, uuid_send($2))
        ORDER BY at DESC, uuid_send(effect_id) DESC LIMIT $3
    ) w
    WHERE ($5::text[] IS NULL OR channel = ANY ($5::text[]))
      AND ($7::text[] IS NULL @outcomes)
      AND ($6::text[] IS NULL
           OR (SELECT queue = ANY ($6::text[]) FROM jobs j WHERE j.job_id = w.job_id)
           OR (SELECT queues <@ $6::text[] FROM workflows f WHERE f.workflow_id = w.workflow_id))
    ORDER BY at DESC, key DESC LIMIT $4
)

-- part: stopped(table)
-- When $3 stopped the search, a row without a channel: down to this one all were looked at.
SELECT effect_id, at, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL
FROM (
    SELECT effect_id, at FROM @table WHERE (at, uuid_send(effect_id)) < ($1, uuid_send($2))
    ORDER BY at DESC, uuid_send(effect_id) DESC OFFSET $3::int - 1 LIMIT 1
) r WHERE (SELECT count(*) FROM m) < $4;

-- name: effects_page
-- $7 is for deliveries_page, and null.
@newest(effects;)
@pending(m)
UNION ALL
@stopped(effects)

-- name: deliveries_page
-- With outcomes $7, null for any.
@newest(deliveries; OR outcome = ANY ($7::text[]))
@over(m)
UNION ALL
@stopped(deliveries)

-- name: deliveries_of
-- Effects of job $1 or of workflow $2 (itself), pending or over: at most $3 of each.
WITH m AS MATERIALIZED (
    (SELECT * FROM effects WHERE job_id = $1 LIMIT $3)
    UNION ALL
    (SELECT * FROM effects WHERE workflow_id = $2 LIMIT $3)
),
d AS MATERIALIZED (
    (SELECT * FROM deliveries WHERE job_id = $1 LIMIT $3)
    UNION ALL
    (SELECT * FROM deliveries WHERE workflow_id = $2 LIMIT $3)
)
@pending(m)
UNION ALL
@over(d);

-- name: delivery
-- One effect, pending or over.
@pending(effects m)
WHERE m.effect_id = $1
UNION ALL
@over(deliveries) WHERE effect_id = $1;

-- name: send_again
-- over -> to be delivered, at once and with all its tries; what is pending and with nobody is due at once, and
-- leaves a group that it doesn't lead. Whatever its rule says. Its receiver sees the id of before.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
d AS (
    DELETE FROM deliveries WHERE effect_id = $1
    RETURNING effect_id, channel, endpoint, dedupe, event, job_id, workflow_id, attempt, state, reason,
              rule, at, message_id, labels
),
e AS (
    INSERT INTO effects (effect_id, channel, endpoint, dedupe, event, job_id, workflow_id, attempt,
                         state, reason, rule, at, message_id, labels, waits_for, due_at)
    SELECT d.*, 'asked', t.now FROM d, t
    RETURNING effect_id
),
p AS (
    UPDATE effects
    SET due_at = t.now, waits_for = 'asked',
        group_id = CASE WHEN due_at < 'infinity' THEN group_id END -- what leads has a time
    FROM t
    WHERE effect_id = $1 AND lease IS NULL AND due_at > t.now
      AND (message_id IS NULL OR message_id = effect_id) -- else it is settled who tells of it
    RETURNING effect_id
)
SELECT effect_id FROM e UNION ALL SELECT effect_id FROM p;

-- name: add_test_effect
-- A message that tells of nothing, to see whether it arrives.
INSERT INTO effects (effect_id, channel, endpoint, dedupe, event, rule, attempt, state, at, due_at)
SELECT $1, $2, $3, $4, $5, $6, 0, 'test', t.now, t.now FROM (SELECT clock_timestamp() AS now) t;

-- name: endpoint_enabled
-- Forgets that an endpoint failed, which $1 names or its short id (delivery.endpoint_id), and makes what waits
-- for it due, the next $2 at most.
WITH d AS (
    DELETE FROM endpoints
    WHERE endpoint = $1 OR left(encode(sha256(convert_to(endpoint, 'UTF8')), 'hex'), 16) = $1
    RETURNING endpoint, channel
),
k AS MATERIALIZED (
    SELECT e.effect_id FROM effects e
    WHERE e.channel = (SELECT channel FROM d LIMIT 1) AND e.endpoint = (SELECT endpoint FROM d LIMIT 1)
      AND e.due_at < 'infinity' -- members of groups wait for another
    ORDER BY e.channel, e.endpoint, e.due_at LIMIT $2
),
u AS (
    UPDATE effects SET due_at = clock_timestamp()
    WHERE effect_id = ANY(ARRAY(SELECT effect_id FROM k)) AND lease IS NULL
)
SELECT endpoint, channel FROM d;

-- name: endpoints
-- The first $2 endpoints after $1 that fail or were given up, by their short ids: there are few.
SELECT endpoint, channel, failing_since, failures, disabled_at, error
FROM (
    SELECT *, left(encode(sha256(convert_to(endpoint, 'UTF8')), 'hex'), 16) AS id FROM endpoints
) e
WHERE id > $1 ORDER BY id LIMIT $2;
