-- What notification rules told of, by queue and kind.

-- name: mark_failure
-- A death that rule $1 looks back from: whether effect $5 is the first since a success. One that was tried before ($6)
-- begins nothing anew: no row, if a success has come meanwhile.
INSERT INTO rule_marks AS m (rule, queue, kind, failing_since, first_id)
SELECT $1, $2, $3, $4::timestamptz, $5::uuid
WHERE NOT $6 OR EXISTS (
    SELECT 1 FROM rule_marks
    WHERE rule = $1 AND queue = $2 AND kind = $3 AND failing_since IS NOT NULL
)
ON CONFLICT (rule, queue, kind) DO UPDATE
SET failing_since = coalesce(m.failing_since, excluded.failing_since),
    first_id = coalesce(m.first_id, excluded.first_id)
RETURNING first_id = $5;

-- name: mark_told
-- Whether effect $4 may be told of: no other one was within the last $5 seconds.
INSERT INTO rule_marks AS m (rule, queue, kind, told_at, told_id)
VALUES ($1, $2, $3, clock_timestamp(), $4::uuid)
ON CONFLICT (rule, queue, kind) DO UPDATE
SET told_at = excluded.told_at, told_id = excluded.told_id
WHERE m.told_id IS NULL OR m.told_id = excluded.told_id
   OR m.told_at + make_interval(secs => $5) < clock_timestamp()
RETURNING true;

-- name: failing_marks
-- What fails by the rules $1, longest first.
SELECT rule, queue, kind, failing_since FROM rule_marks
WHERE failing_since IS NOT NULL AND rule = ANY($1::text[]) ORDER BY failing_since LIMIT $2;

-- name: success_after
-- The first success of queue $1 and kind $2 after $3 among the 200 youngest; with one of the tags $4, if there are any.
SELECT e.job_id, e.attempt
FROM (
    SELECT job_id, attempt, finished_at FROM job_ended
    WHERE queue = $1 AND kind = $2 AND state = 'succeeded'
    ORDER BY uuid_send(job_id) DESC LIMIT 200
) e
WHERE e.finished_at > $3
  AND (cardinality($4::text[]) = 0 OR EXISTS (
      SELECT 1 FROM jobs j WHERE j.job_id = e.job_id AND j.tags && $4::text[]
  ))
ORDER BY e.finished_at LIMIT 1;

-- name: end_failure
-- failing -> not, if nobody else has ended it.
UPDATE rule_marks SET failing_since = NULL, first_id = NULL
WHERE rule = $1 AND queue = $2 AND kind = $3 AND failing_since = $4
RETURNING true;
