-- Who is next, as Postgres knows it: for claims while Redis is away, and for the reconciler.

-- name: lines
-- The next $3 (queue, kind) pairs after ($1, $2) that have due rows: hops from pair to pair over
-- the index.
WITH RECURSIVE l(queue, kind) AS (
    (SELECT queue, kind FROM job_due WHERE (queue, kind) > ($1, $2) ORDER BY queue, kind LIMIT 1)
    UNION ALL
    SELECT n.queue, n.kind
    FROM l CROSS JOIN LATERAL (
        SELECT d.queue, d.kind FROM job_due d
        WHERE (d.queue, d.kind) > (l.queue, l.kind) ORDER BY d.queue, d.kind LIMIT 1
    ) n
)
SELECT queue, kind FROM l LIMIT $3;

-- name: line_head
-- The first $3 due rows of a queue and these kinds in claim order: ten probes a kind, merged.
-- $4: what a step of priority is worth, in ms; 0 is strict.
SELECT h.job_id, $1::text, k.kind, p.priority::int, h.ready_at
FROM unnest($2::text[]) AS k(kind)
CROSS JOIN generate_series(0, 9) AS p(priority)
CROSS JOIN LATERAL (
    SELECT d.job_id, d.ready_at FROM job_due d
    WHERE d.queue = $1 AND d.kind = k.kind AND d.priority = p.priority
      AND d.ready_at <= (SELECT clock_timestamp())
    ORDER BY d.ready_at, uuid_send(d.job_id) LIMIT $3
) h
ORDER BY CASE WHEN $4::float8 = 0 THEN -p.priority ELSE 0 END,
         extract(epoch FROM h.ready_at) * 1000 - p.priority * $4::float8, h.job_id
LIMIT $3;

-- name: line_page
-- The next $7 rows of a queue after the key ($2, $3, $4, $5) with ids below $6, due or not: for a
-- rebuild. As bytes, so that the index tells the ids too: what is passed over is never fetched.
SELECT job_id, queue, kind, priority, ready_at FROM job_due
WHERE queue = $1 AND (kind, priority, ready_at, uuid_send(job_id)) > ($2, $3, $4, $5)
  AND uuid_send(job_id) < $6
ORDER BY kind, priority, ready_at, uuid_send(job_id)
LIMIT $7;

-- name: blocked_page
-- The next $5 rows that wait for parents after the key ($1, $2, $3), with ids below $4, whatever
-- their queue: for the mirror in Redis. As bytes, as line_page.
SELECT job_id, queue, kind, priority, run_at FROM job_blocked
WHERE (queue, kind, uuid_send(job_id)) > ($1, $2, $3) AND uuid_send(job_id) < $4
ORDER BY queue, kind, uuid_send(job_id)
LIMIT $5;

-- name: blocked_among
-- Which of these ids wait for parents.
SELECT job_id FROM job_blocked WHERE job_id = ANY($1::uuid[]);

-- name: due_among
-- Which of these ids are due rows, to put them back on their shelves.
SELECT job_id, queue, kind, priority, ready_at FROM job_due WHERE job_id = ANY($1::uuid[]);
