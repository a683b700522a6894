-- What PostgreSQL says of itself: for a start, and for `penstock doctor`. Nothing here locks or writes,
-- and nothing needs more rights than an ordinary role has.

-- name: server_state
-- As this very session has it: set for the server, the role or the database.
SELECT current_setting('server_version_num')::int, current_setting('fsync') = 'on',
       current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'),
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on';

-- name: server_room
-- Connections: how many there may be, how many of them only for superusers, how many there are;
-- whether dead rows are cleared away; whether this connection is encrypted; the role.
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT sum(numbackends) FROM pg_stat_database)::int,
       current_setting('autovacuum') = 'on',
       (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()),
       current_user::text;

-- name: oldest_transaction
-- Its age in seconds and whose it is; whether we see those of other roles.
SELECT coalesce(a.age, 0)::float8, coalesce(a.who, ''),
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
FROM (VALUES (1)) AS one
LEFT JOIN LATERAL (
    SELECT extract(epoch FROM clock_timestamp() - xact_start) AS age,
           concat_ws(', ', 'pid ' || pid, usename, nullif(application_name, ''), state) AS who
    FROM pg_stat_activity
    WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    ORDER BY xact_start LIMIT 1
) a ON true;

-- name: prepared_transactions
SELECT count(*)::int, coalesce(extract(epoch FROM clock_timestamp() - min(prepared)), 0)::float8,
       coalesce((array_agg(gid ORDER BY prepared))[1], '')
FROM pg_prepared_xacts;

-- name: replication_slots
-- Transactions that each holds back, and bytes of WAL.
SELECT slot_name::text, active, coalesce(greatest(age(xmin), age(catalog_xmin)), 0),
       CASE WHEN pg_is_in_recovery() THEN 0
            ELSE coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0) END::bigint
FROM pg_replication_slots ORDER BY slot_name;

-- name: table_sizes
-- Live and dead rows of our tables, as autovacuum counts them, and the age of the oldest row of all.
SELECT relname::text, n_live_tup, n_dead_tup,
       (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database())
FROM pg_stat_user_tables WHERE schemaname = current_schema() ORDER BY n_dead_tup DESC;

-- name: rights_lacking
-- What this role may not do to our tables though a replica does it (as `grants.py` grants it): who has
-- applied which migration is only read, the audit log is read and added to, but for its time.
SELECT p.kind || ' on ' || c.relname
FROM pg_class c
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(kind)
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
  AND (c.relname <> 'schema_migrations' OR p.kind = 'SELECT')
  AND (c.relname <> 'audit_log' OR p.kind IN ('SELECT', 'INSERT'))
  AND NOT has_table_privilege(c.oid, p.kind)
  AND NOT (c.relname = 'audit_log' AND has_any_column_privilege(c.oid, 'INSERT') AND p.kind = 'INSERT')
ORDER BY c.relname, p.kind;

-- name: crew
-- Replicas: alive, silent, condemned; the versions of those alive.
SELECT count(*) FILTER (WHERE condemned_at IS NULL AND expires_at >= now())::int,
       count(*) FILTER (WHERE condemned_at IS NULL AND expires_at < now())::int,
       count(*) FILTER (WHERE condemned_at IS NOT NULL)::int,
       coalesce(array_agg(DISTINCT version)
                FILTER (WHERE condemned_at IS NULL AND expires_at >= now()), '{}')
FROM workers;

-- name: ready_backlog
-- Jobs that could run, but for those of paused queues, and for how long the oldest could. All that are
-- due are counted: 10 ms for 100,000.
SELECT count(*)::int, coalesce(extract(epoch FROM now() - min(d.ready_at)), 0)::float8
FROM job_due d JOIN queues q ON q.queue = d.queue
WHERE d.ready_at <= now() AND NOT q.paused;

-- name: effects_backlog
-- But for those that their rule holds, in quiet hours or a group: nothing is wrong with those.
SELECT count(*)::int, coalesce(extract(epoch FROM now() - min(at)), 0)::float8
FROM effects WHERE waits_for IS NULL OR waits_for IN ('retry', 'asked');

-- name: open_letter_count
-- At most $1 are counted.
SELECT count(*)::int
FROM (SELECT 1 FROM dead_letters WHERE resolved_at IS NULL LIMIT $1) AS open;

-- name: data_directory
-- No row for a role that may not know it.
SELECT setting FROM pg_settings WHERE name = 'data_directory';

-- name: server_time
SELECT extract(epoch FROM clock_timestamp())::float8;
