-- Who lives, and who may say that somebody doesn't (design.md, Leases; reliability.md, D2, D3).

-- part: pulse(ttl_s)
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now),
p AS (
    UPDATE pulse
    SET unbroken_since = CASE WHEN t.now - last_beat > make_interval(secs => @ttl_s::float8 / 2)
                              THEN t.now ELSE unbroken_since END,
        last_beat = greatest(last_beat, t.now)
    FROM t
)

-- name: register_worker
-- Enters a worker; its first beat, so it counts for the pulse too. $8: time to live.
@pulse($8)
INSERT INTO workers (worker_id, host, pid, version, queues, kinds, slots, started_at, beat_at,
                     expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7, t.now, t.now, t.now + make_interval(secs => $8)
FROM t;

-- name: beat
-- Renews a worker and the shared pulse. $2: time to live. No row: condemned, or gone.
@pulse($2)
UPDATE workers
SET beat_at = t.now, expires_at = t.now + make_interval(secs => $2)
FROM t
WHERE worker_id = $1 AND condemned_at IS NULL
RETURNING extract(epoch FROM t.now)::float8;

-- name: condemn
-- Condemns what has expired, and only while the pulse shows unbroken contact with Postgres for a
-- whole time to live ($1): a pause of Postgres must not condemn the living.
WITH t AS MATERIALIZED (SELECT clock_timestamp() AS now)
UPDATE workers w
SET condemned_at = t.now
FROM t, pulse p
WHERE w.condemned_at IS NULL AND w.expires_at < t.now
  AND t.now - p.last_beat < make_interval(secs => $1::float8 / 2)
  AND t.now - p.unbroken_since >= make_interval(secs => $1)
RETURNING w.worker_id;

-- name: orphaning_workers
-- Names in job_running of workers that are condemned or gone: hops from name to name. Those of
-- running workflows are names too: of jobs whose attempt they are.
WITH RECURSIVE w(worker_id) AS (
    (SELECT worker_id FROM job_running ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT n.worker_id
    FROM w CROSS JOIN LATERAL (
        SELECT r.worker_id FROM job_running r
        WHERE r.worker_id > w.worker_id ORDER BY r.worker_id LIMIT 1
    ) n
)
SELECT worker_id FROM w
WHERE NOT EXISTS (
    SELECT 1 FROM workers l WHERE l.worker_id = w.worker_id AND l.condemned_at IS NULL
)
-- Not EXISTS: that would be a join with all workflows that run.
AND (SELECT f.workflow_id FROM workflows f
     WHERE f.workflow_id = w.worker_id AND f.state = 'running') IS NULL;

-- name: leave
-- A worker that handed back all it had.
DELETE FROM workers WHERE worker_id = $1;

-- name: forget_condemned
-- Condemned long ago, and nothing stands under its name any more.
DELETE FROM workers
WHERE condemned_at < clock_timestamp() - interval '1 minute'
  AND NOT EXISTS (SELECT 1 FROM job_running r WHERE r.worker_id = workers.worker_id);

-- name: workers
-- The newest $2 workers below id $1, with what runs under their names.
SELECT w.worker_id, w.host, w.version, w.queues, w.kinds, w.slots, w.started_at, w.beat_at,
       w.condemned_at IS NOT NULL,
       (SELECT count(*) FROM job_running r WHERE r.worker_id = w.worker_id)
FROM workers w WHERE w.worker_id < $1 ORDER BY w.worker_id DESC LIMIT $2;
