-- what:  the audit log: who did what, when and from where; one row for each call that changed something.
-- why:   decision 0027. It can only be added to: no UPDATE, no TRUNCATE, no DELETE of what is younger than
--        seven days; and a role that isn't the owner deletes by audit_log_prune alone.
-- locks: none that anybody waits for: a new table.
-- safe while old code runs: yes, it doesn't know the table: what an old replica does leaves no row.

CREATE TABLE audit_log (
    audit_id   uuid PRIMARY KEY,        -- UUIDv7, made by the replica: a call that is sent twice has one row
    at         timestamptz NOT NULL DEFAULT clock_timestamp(), -- nobody but the owner may give another time
    actor      text NOT NULL,           -- the token's sub, or what acted by itself: signal, file, cli:ada
    roles      text NOT NULL,           -- of the token, with commas
    action     text NOT NULL,           -- domain/audit_log.py: Action
    object_id  text,                    -- the job, workflow, delivery (ids), queue, endpoint (its short id)
    queue      text,                    -- the one that it is about; null: none, or several
    outcome    text NOT NULL,           -- done, refused
    address    text,                    -- of the connection's peer, or what a trusted proxy says of it
    request_id text,
    details    json                     -- before, after, counts, filters: small, and never a payload
);

-- Each has the order of a page at its end. Submissions may be a thousand times as many as all else.
CREATE INDEX audit_log_at ON audit_log (at, audit_id);
CREATE INDEX audit_log_rare ON audit_log (at, audit_id)
    WHERE action <> ALL ('{job.submit,job.submit_many,workflow.submit,workflow.add}');
CREATE INDEX audit_log_actor ON audit_log (actor, at, audit_id);
CREATE INDEX audit_log_object ON audit_log (object_id, at, audit_id) WHERE object_id IS NOT NULL;

CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log can only be added to'
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Rows older than seven days go by retention.audit_s.';
END
$$;

CREATE TRIGGER audit_log_stays BEFORE UPDATE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse();
CREATE TRIGGER audit_log_is_kept BEFORE DELETE ON audit_log
    FOR EACH ROW WHEN (old.at > clock_timestamp() - interval '7 days')
    EXECUTE FUNCTION audit_log_refuse();

-- Deletes the oldest rows that are older than so many seconds, seven days at least; how many. It runs as
-- the owner: whoever calls it needs no right to delete.
CREATE FUNCTION audit_log_prune(older_s float8, rows_max integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER AS $$
    WITH k AS MATERIALIZED (
        SELECT audit_id FROM audit_log
        WHERE at < (SELECT clock_timestamp() - make_interval(secs => greatest(older_s, 604800)))
        ORDER BY at, audit_id LIMIT rows_max FOR UPDATE SKIP LOCKED
    ),
    d AS (DELETE FROM audit_log WHERE audit_id = ANY(ARRAY(SELECT audit_id FROM k)) RETURNING audit_id)
    SELECT count(*) FROM d
$$;
REVOKE ALL ON FUNCTION audit_log_prune(float8, integer) FROM PUBLIC;

DO $$
DECLARE
    other text;
BEGIN
    -- Else whoever calls it could put a table of his own in the place of ours.
    EXECUTE format('ALTER FUNCTION audit_log_prune(float8, integer) SET search_path = %I, pg_temp',
                   current_schema());
    -- What default privileges may have given away.
    FOR other IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = 'audit_log'::regclass AND a.grantee <> c.relowner
        GROUP BY 1
    LOOP
        EXECUTE format('REVOKE ALL ON audit_log FROM %s', other);
        EXECUTE format('GRANT SELECT, INSERT (audit_id, actor, roles, action, object_id, queue, outcome, '
                       'address, request_id, details) ON audit_log TO %s', other);
        EXECUTE format('GRANT EXECUTE ON FUNCTION audit_log_prune(float8, integer) TO %s', other);
    END LOOP;
END
$$;
