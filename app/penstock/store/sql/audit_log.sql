-- The audit log: who did what. Rows are only ever added, by the transaction that does what they tell of;
-- they go by age alone.

-- name: add_entries
-- Safe to repeat: an entry that is there is passed over. The time is the column's default.
INSERT INTO audit_log (audit_id, action, actor, roles, address, request_id, object_id, queue, outcome, details)
SELECT i.*
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::json[]) AS i
ON CONFLICT (audit_id) DO NOTHING;

-- name: prune_entries
-- The oldest $2 entries that are older than $1 seconds, and than seven days.
SELECT audit_log_prune($1, $2);

-- part: entries_where(condition)
-- The newest entries below ($1, $2), not before $3, $4 looked at and $5 answered at most; of
-- actors $6, actions $7, objects $8, queues $9, outcomes $10, requests $11, each null for any. A last row
-- without an action: $4 stopped the search, and down to there all were looked at. The condition picks
-- the index, so it stands in each of the pages below as it is.
WITH m AS MATERIALIZED (
    SELECT * FROM (
        SELECT * FROM audit_log WHERE @condition (at, audit_id) < ($1, $2) AND at >= $3
        ORDER BY at DESC, audit_id DESC LIMIT $4
    ) w
    WHERE ($6::text[] IS NULL OR actor IN (SELECT unnest($6::text[])))
      AND ($7::text[] IS NULL OR action IN (SELECT unnest($7::text[])))
      AND ($8::text[] IS NULL OR object_id IN (SELECT unnest($8::text[])))
      AND ($9::text[] IS NULL OR queue IN (SELECT unnest($9::text[])))
      AND ($10::text[] IS NULL OR outcome IN (SELECT unnest($10::text[])))
      AND ($11::text[] IS NULL OR request_id IN (SELECT unnest($11::text[])))
    ORDER BY at DESC, audit_id DESC LIMIT $5
)
SELECT audit_id, at, actor, roles, action, object_id, queue, outcome, address, request_id, details
FROM m
UNION ALL
SELECT audit_id, at, '', '', NULL, NULL, NULL, '', NULL, NULL, NULL FROM (
    SELECT audit_id, at FROM audit_log WHERE @condition (at, audit_id) < ($1, $2) AND at >= $3
    ORDER BY at DESC, audit_id DESC OFFSET $4::int - 1 LIMIT 1
) r WHERE (SELECT count(*) FROM m) < $5;

-- name: entries_by_time
-- Among all.
@entries_where()

-- name: entries_but_submissions
-- Among all that are no submissions, of which there may be a thousand times as many.
@entries_where(action <> ALL ('{job.submit,job.submit_many,workflow.submit,workflow.add}') AND)

-- name: entries_of_actor
-- Among those of one actor.
@entries_where(actor = ($6::text[])[1] AND)

-- name: entries_of_object
-- Among those of one object.
@entries_where(object_id = ($8::text[])[1] AND)
