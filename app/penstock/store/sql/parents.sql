-- What jobs of graphs are told when they start. On the engine's pool, as hot as start_jobs: small
-- sets are joined only with each other (see engine.sql).

-- name: parents_of
-- Of each of these jobs: its own name and what it depends on (a row without a parent), and a row for each parent: its name,
-- where it stands, and how large its result is as stored (perhaps compressed; null: it has none). Small
-- results come with it, unless there are so many edges that they would be much together.
WITH c AS MATERIALIZED (SELECT job_id, name, depends_on FROM jobs WHERE job_id = ANY($1::uuid[])),
e AS MATERIALIZED (
    -- graph_id: else an index-only scan of all of (parent_id, child_id) would seem as cheap
    SELECT child_id, parent_id, graph_id FROM job_edges
    WHERE uuid_send(child_id) = ANY(ARRAY(SELECT uuid_send(id) FROM unnest($1::uuid[]) i(id)))
),
i AS MATERIALIZED (SELECT ARRAY(SELECT DISTINCT parent_id FROM e) AS ids),
p AS MATERIALIZED (SELECT job_id, name FROM jobs WHERE job_id = ANY(ARRAY(SELECT unnest(ids) FROM i))),
s AS MATERIALIZED (
    SELECT job_id, state, pg_column_size(result) AS size,
           CASE WHEN pg_column_size(result) <= 256 AND (SELECT count(*) FROM e) <= 1000 THEN result END
           AS small
    FROM job_ended WHERE job_id = ANY(ARRAY(SELECT unnest(ids) FROM i))
    UNION ALL
    SELECT job_id, 'running', NULL, NULL
    FROM job_running WHERE job_id = ANY(ARRAY(SELECT unnest(ids) FROM i))
    UNION ALL
    SELECT job_id, CASE WHEN ready_at > clock_timestamp() THEN 'scheduled' ELSE 'ready' END, NULL, NULL
    FROM job_due WHERE job_id = ANY(ARRAY(SELECT unnest(ids) FROM i))
    UNION ALL
    SELECT job_id, 'blocked', NULL, NULL
    FROM job_blocked WHERE job_id = ANY(ARRAY(SELECT unnest(ids) FROM i))
)
SELECT job_id AS child_id, NULL::uuid AS parent_id, name, NULL AS state, NULL::int AS size,
       NULL::json AS small, depends_on FROM c
UNION ALL
SELECT e.child_id, e.parent_id, p.name, s.state, s.size,
       CASE WHEN s.state = 'succeeded' THEN s.small END, NULL
FROM e JOIN p ON p.job_id = e.parent_id JOIN s ON s.job_id = e.parent_id;

-- name: results_of
-- The results of these jobs. (A condition on the state would tempt it to an index of states.)
SELECT job_id, CASE WHEN state = 'succeeded' THEN result END
FROM job_ended WHERE job_id = ANY($1::uuid[]);
