-- Lists of jobs, newest first: each query looks for candidates in one place, `store/lists.py` picks
-- the queries, merges their answers and reads the jobs, all in one snapshot (decision 0011).
--
-- Parameters: $1 only ids below this one, $2 and from this one on; $3 so many rows are looked at,
-- $4 so many answered; $5 queues, $6 kinds, $7 states, $8 tags, each null for any; $9 a workflow.
-- Rows: (job_id, state); and, when $3 stopped the search, one without a state: from this id on
-- everything was looked at. One row of nulls instead: there is too much for
-- this way to search.
--
-- Each has one way to be carried out, whatever the statistics: a window over one index, in the
-- order of ids and lazily read, then filters. `$n IS NULL OR x IN (SELECT unnest($n))` is a hash
-- look-up, which a semi-join or "= ANY" would not be.

-- part: due_state
CASE WHEN ready_at > now() THEN 'scheduled' ELSE 'ready' END

-- part: place(table; state)
WITH m AS MATERIALIZED (
    SELECT job_id, state
    FROM (
        SELECT job_id, queue, kind, @state
        FROM @table WHERE job_id < $1 AND job_id >= $2 ORDER BY job_id DESC LIMIT $3
    ) w
    WHERE ($5::text[] IS NULL OR queue IN (SELECT unnest($5::text[])))
      AND ($6::text[] IS NULL OR kind IN (SELECT unnest($6::text[])))
      AND ($7::text[] IS NULL OR state = ANY ($7::text[]))
      AND ($8::text[] IS NULL
           OR (SELECT tags && $8::text[] FROM jobs WHERE jobs.job_id = w.job_id))
    ORDER BY job_id DESC LIMIT $4
)
SELECT job_id, state FROM m
UNION ALL
@stopped(@table)

-- part: stopped(table)
SELECT job_id, NULL FROM (
    SELECT job_id FROM @table WHERE job_id < $1 AND job_id >= $2
    ORDER BY job_id DESC OFFSET $3::int - 1 LIMIT 1
) r WHERE (SELECT count(*) FROM m) < $4;

-- name: list_due
@place(job_due; @due_state AS state)

-- name: list_running
@place(job_running; 'running' AS state)

-- name: list_blocked
@place(job_blocked; 'blocked' AS state)

-- name: list_ended
@place(job_ended; state)

-- part: lanes(table)
-- The queues and kinds that a place has, of queues $5, by hops from one to the next.
WITH RECURSIVE hop(queue, kind) AS (
    SELECT n.queue, n.kind
    FROM unnest(coalesce($5::text[], ARRAY[''])) AS q(queue)
    CROSS JOIN LATERAL (
        SELECT d.queue, d.kind FROM @table d
        WHERE (d.queue, d.kind) > (q.queue, '') ORDER BY d.queue, d.kind LIMIT 1
    ) n
    WHERE $5::text[] IS NULL OR n.queue = q.queue
    UNION ALL
    SELECT n.queue, n.kind
    FROM hop CROSS JOIN LATERAL (
        SELECT d.queue, d.kind FROM @table d
        WHERE (d.queue, d.kind) > (hop.queue, hop.kind) ORDER BY d.queue, d.kind LIMIT 1
    ) n
    WHERE $5::text[] IS NULL OR n.queue = hop.queue
)

-- part: few(table; state; order)
-- Where these queues and kinds have few rows there, all of them: hops from line to line, at most 500,
-- as `lines` does. A backlog of others would hide them from `place` for many pages.
@lanes(@table),
h AS MATERIALIZED (SELECT queue, kind FROM hop LIMIT 500),
l AS MATERIALIZED (
    SELECT queue, kind FROM h WHERE $6::text[] IS NULL OR kind = ANY ($6::text[])
),
w AS MATERIALIZED (
    SELECT d.job_id, d.state
    FROM l CROSS JOIN LATERAL (
        SELECT job_id, @state AS state
        FROM @table WHERE queue = l.queue AND kind = l.kind
        ORDER BY @order LIMIT $3 + 1
    ) d
    LIMIT $3 + 1
),
few AS MATERIALIZED (
    SELECT (SELECT count(*) FROM h) < 500 AND (SELECT count(*) FROM w) <= $3 AS yes
)
(SELECT job_id, state FROM w
 WHERE (SELECT yes FROM few) AND job_id < $1 AND job_id >= $2
   AND ($7::text[] IS NULL OR state = ANY ($7::text[]))
   AND ($8::text[] IS NULL OR (SELECT tags && $8::text[] FROM jobs WHERE jobs.job_id = w.job_id))
 ORDER BY job_id DESC LIMIT $4)
UNION ALL
SELECT NULL, NULL FROM few WHERE NOT yes;

-- name: list_due_few
@few(job_due; @due_state; queue, kind, priority, ready_at)

-- name: list_blocked_few
@few(job_blocked; 'blocked'; queue, kind)

-- name: list_ended_of_lanes
-- By lanes, each a queue, a kind and a state; hops from one queue and kind to the next tell which
-- there are. A page of $4 has jobs of $4 lanes at most, those with the newest heads; they share what
-- may be looked at. With a thousand queues and kinds: one row of nulls.
@lanes(job_ended),
p AS MATERIALIZED (SELECT queue, kind FROM hop LIMIT 1000),
few AS MATERIALIZED (SELECT count(*) < 1000 AS yes FROM p),
h AS MATERIALIZED (
    SELECT p.queue, p.kind, s.state, e.job_id
    FROM p CROSS JOIN unnest($7::text[]) AS s(state)
    CROSS JOIN LATERAL (
        SELECT job_id FROM job_ended
        WHERE queue = p.queue AND kind = p.kind AND state = s.state
          AND uuid_send(job_id) < uuid_send($1) AND uuid_send(job_id) >= uuid_send($2)
        ORDER BY uuid_send(job_id) DESC LIMIT 1
    ) e
    WHERE (SELECT yes FROM few) AND ($6::text[] IS NULL OR p.kind = ANY ($6::text[]))
    ORDER BY e.job_id DESC LIMIT $4 + 1
),
l AS MATERIALIZED (SELECT queue, kind, state, job_id FROM h ORDER BY job_id DESC LIMIT $4),
bottom AS MATERIALIZED (
    SELECT job_id FROM l WHERE (SELECT count(*) FROM h) > $4 ORDER BY job_id LIMIT 1
),
low AS MATERIALIZED ( -- below the last of these heads, lanes that were left out have theirs
    SELECT b.job_id, coalesce(uuid_send(b.job_id), uuid_send($2)) AS key
    FROM (SELECT 1) AS one LEFT JOIN bottom b ON true
),
share AS MATERIALIZED (SELECT greatest($3 / greatest(count(*), 1), 1) AS rows FROM l),
m AS MATERIALIZED (
    SELECT e.job_id, l.state, l.queue, l.kind
    FROM l CROSS JOIN LATERAL (
        SELECT job_id
        FROM (
            SELECT job_id, uuid_send(job_id) AS key FROM job_ended
            WHERE queue = l.queue AND kind = l.kind AND state = l.state
              AND uuid_send(job_id) < uuid_send($1) AND uuid_send(job_id) >= (SELECT key FROM low)
            ORDER BY uuid_send(job_id) DESC LIMIT (SELECT rows FROM share)
        ) w
        WHERE $8::text[] IS NULL
           OR (SELECT tags && $8::text[] FROM jobs WHERE jobs.job_id = w.job_id)
        ORDER BY key DESC LIMIT $4
    ) e
)
(SELECT job_id, state FROM m ORDER BY job_id DESC LIMIT $4)
UNION ALL
(SELECT job_id, NULL FROM (
    SELECT r.job_id
    FROM l CROSS JOIN LATERAL (
        SELECT job_id FROM job_ended
        WHERE queue = l.queue AND kind = l.kind AND state = l.state
          AND uuid_send(job_id) < uuid_send($1) AND uuid_send(job_id) >= (SELECT key FROM low)
        ORDER BY uuid_send(job_id) DESC OFFSET (SELECT rows FROM share) - 1 LIMIT 1
    ) r
    WHERE (SELECT count(*) FROM m
           WHERE m.queue = l.queue AND m.kind = l.kind AND m.state = l.state) < $4
    UNION ALL
    SELECT job_id FROM low WHERE job_id IS NOT NULL
 ) r ORDER BY job_id DESC LIMIT 1)
UNION ALL
SELECT NULL, NULL FROM few WHERE NOT yes;

-- name: list_ended_of_states
-- By states other than succeeded, which have a small index of their own.
WITH l AS MATERIALIZED (
    SELECT s.state, greatest($3 / count(*) OVER (), 1) AS rows FROM unnest($7::text[]) AS s(state)
),
m AS MATERIALIZED (
    SELECT e.job_id, l.state
    FROM l CROSS JOIN LATERAL (
        SELECT job_id
        FROM (
            SELECT job_id, queue, kind, uuid_send(job_id) AS key FROM job_ended
            WHERE state = l.state AND state IN ('dead', 'cancelled', 'skipped')
              AND uuid_send(job_id) < uuid_send($1) AND uuid_send(job_id) >= uuid_send($2)
            ORDER BY uuid_send(job_id) DESC LIMIT l.rows
        ) w
        WHERE ($5::text[] IS NULL OR queue IN (SELECT unnest($5::text[])))
          AND ($6::text[] IS NULL OR kind = ANY ($6::text[]))
          AND ($8::text[] IS NULL
               OR (SELECT tags && $8::text[] FROM jobs WHERE jobs.job_id = w.job_id))
        ORDER BY key DESC LIMIT $4
    ) e
)
(SELECT job_id, state FROM m ORDER BY job_id DESC LIMIT $4)
UNION ALL
(SELECT r.job_id, NULL
 FROM l CROSS JOIN LATERAL (
     SELECT job_id FROM job_ended
     WHERE state = l.state AND state IN ('dead', 'cancelled', 'skipped')
       AND uuid_send(job_id) < uuid_send($1) AND uuid_send(job_id) >= uuid_send($2)
     ORDER BY uuid_send(job_id) DESC OFFSET l.rows - 1 LIMIT 1
 ) r
 WHERE (SELECT count(*) FROM m WHERE m.state = l.state) < $4
 ORDER BY r.job_id DESC LIMIT 1);

-- part: standing
SELECT state FROM job_ended WHERE job_id = w.job_id
UNION ALL
SELECT @due_state FROM job_due WHERE job_id = w.job_id
UNION ALL
SELECT 'running' FROM job_running WHERE job_id = w.job_id
UNION ALL
SELECT 'blocked' FROM job_blocked WHERE job_id = w.job_id
LIMIT 1

-- name: list_tagged
-- Where a tag is common among the newest jobs, they are soon found by looking at all of them.
WITH m AS MATERIALIZED (
    SELECT w.job_id, p.state
    FROM (
        SELECT job_id, queue, kind, tags
        FROM jobs WHERE job_id < $1 AND job_id >= $2 ORDER BY job_id DESC LIMIT $3
    ) w
    CROSS JOIN LATERAL (@standing) p
    WHERE w.tags && $8::text[]
      AND ($5::text[] IS NULL OR queue IN (SELECT unnest($5::text[])))
      AND ($6::text[] IS NULL OR kind IN (SELECT unnest($6::text[])))
      AND ($7::text[] IS NULL OR p.state = ANY ($7::text[]))
    ORDER BY w.job_id DESC LIMIT $4
)
SELECT job_id, state FROM m
UNION ALL
@stopped(jobs)

-- name: list_tagged_few
-- Where few jobs have a tag, all of them, by the index of tags: the one search that needs bitmaps,
-- which readers otherwise do without.
WITH c AS MATERIALIZED (
    SELECT job_id, queue, kind FROM jobs WHERE tags && $8::text[] LIMIT $3 + 1
),
few AS MATERIALIZED (SELECT count(*) <= $3 AS yes FROM c)
(SELECT w.job_id, p.state
 FROM (
     SELECT job_id FROM c
     WHERE (SELECT yes FROM few) AND job_id < $1 AND job_id >= $2
       AND ($5::text[] IS NULL OR queue IN (SELECT unnest($5::text[])))
       AND ($6::text[] IS NULL OR kind IN (SELECT unnest($6::text[])))
     ORDER BY job_id DESC OFFSET 0
 ) w
 CROSS JOIN LATERAL (@standing) p
 WHERE $7::text[] IS NULL OR p.state = ANY ($7::text[])
 ORDER BY w.job_id DESC LIMIT $4)
UNION ALL
SELECT NULL, NULL FROM few WHERE NOT yes;

-- name: list_of_workflow
-- The jobs of workflow $9, which are 10,000 at most: all of them are taken, the places of as many
-- are looked at as fill a page.
WITH c AS MATERIALIZED (
    SELECT job_id, queue, kind, tags FROM jobs WHERE workflow_id = $9
)
SELECT w.job_id, p.state
FROM (
    SELECT job_id FROM c
    WHERE job_id < $1 AND job_id >= $2
      AND ($5::text[] IS NULL OR queue IN (SELECT unnest($5::text[])))
      AND ($6::text[] IS NULL OR kind IN (SELECT unnest($6::text[])))
      AND ($8::text[] IS NULL OR tags && $8::text[])
    ORDER BY job_id DESC OFFSET 0
) w
CROSS JOIN LATERAL (@standing) p
WHERE $7::text[] IS NULL OR p.state = ANY ($7::text[])
ORDER BY w.job_id DESC LIMIT least($3::int, $4::int);
