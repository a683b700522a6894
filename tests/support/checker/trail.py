"""The trail: what the places never show afterwards. Triggers write every row that enters or leaves
a place, in test databases only; the view `moves` tells them as moves of jobs.

Order is that of `seq`: whoever moves a job after somebody else waited for his commit. What one
transaction did to a job is one move (`xid`).
"""

TRAIL = """
CREATE TABLE trail (
    place     text NOT NULL,        -- the table
    op        text NOT NULL,        -- INSERT, DELETE; CONDEMN, PAUSE, RESUME; of workflows: BEGIN,
                                    -- HALT, HALTED, UNHALT, END, REOPEN
    job_id    uuid,
    attempt   integer,
    failures  integer,
    losses    integer,
    crashes   integer,
    at        timestamptz,          -- ready_at, started_at, finished_at, condemned_at
    worker_id uuid,                 -- of a workflow: its own id
    note      text,                 -- ended: state and reason; running: stop; workers: pid; queues;
                                    -- workflows: state, or halt
    seq       bigint GENERATED ALWAYS AS IDENTITY,
    xid       xid8 NOT NULL DEFAULT pg_current_xact_id(),
    clock     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION trail_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trail (place, op, job_id, attempt, failures, losses, crashes, at)
    SELECT TG_TABLE_NAME, TG_OP, job_id, attempt, failures, losses, crashes, ready_at FROM moved;
    RETURN NULL;
END $$;
CREATE FUNCTION trail_blocked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trail (place, op, job_id, attempt, failures, losses, crashes, at)
    SELECT TG_TABLE_NAME, TG_OP, job_id, attempt, 0, 0, 0, run_at FROM moved;
    RETURN NULL;
END $$;
CREATE FUNCTION trail_running() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trail (place, op, job_id, attempt, failures, losses, crashes, at, worker_id, note)
    SELECT TG_TABLE_NAME, TG_OP, job_id, attempt, failures, losses, crashes, started_at, worker_id,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'stop' END FROM moved;
    RETURN NULL;
END $$;
CREATE FUNCTION trail_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trail (place, op, job_id, attempt, failures, losses, crashes, at, note)
    SELECT TG_TABLE_NAME, TG_OP, job_id, attempt, failures, losses, crashes, finished_at,
           concat_ws(' ', state, reason) FROM moved;
    RETURN NULL;
END $$;
CREATE FUNCTION trail_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trail (place, op, at, worker_id, note)
    VALUES (TG_TABLE_NAME, CASE TG_OP WHEN 'INSERT' THEN TG_OP ELSE 'CONDEMN' END,
            coalesce(NEW.condemned_at, NEW.started_at), NEW.worker_id, NEW.pid::text);
    RETURN NULL;
END $$;
CREATE FUNCTION trail_queues() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trail (place, op, at, note)
    VALUES (TG_TABLE_NAME, CASE WHEN NEW.paused THEN 'PAUSE' ELSE 'RESUME' END, clock_timestamp(),
            NEW.queue);
    RETURN NULL;
END $$;
-- Of each update what it changed, in this order.
CREATE FUNCTION trail_workflows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_new boolean := TG_OP = 'INSERT';
    was text := CASE WHEN TG_OP = 'UPDATE' THEN OLD.state ELSE 'running' END;
    halt_was text := CASE WHEN TG_OP = 'UPDATE' THEN OLD.halt END;
    halting_was boolean := CASE WHEN TG_OP = 'UPDATE' THEN OLD.halting ELSE false END;
    is_halt boolean := NEW.halt IS NOT NULL AND NEW.halt IS DISTINCT FROM halt_was;
BEGIN
    INSERT INTO trail (place, op, worker_id, at, note)
    SELECT TG_TABLE_NAME, op, NEW.workflow_id, NEW.finished_at,
           CASE WHEN op ~ 'HALT' THEN coalesce(NEW.halt, halt_was) ELSE NEW.state END
    FROM (VALUES
        (1, 'BEGIN', is_new),
        (2, 'UNHALT', halt_was IS NOT NULL AND NEW.halt IS NULL),
        (3, 'REOPEN', was <> 'running' AND NEW.state = 'running'),
        (4, 'HALT', is_halt),
        (5, 'HALTED', NEW.halt IS NOT NULL AND NOT NEW.halting AND (halting_was OR is_halt)),
        (6, 'END', NEW.state <> 'running' AND (was <> NEW.state
                                               OR OLD.finished_at <> NEW.finished_at))
    ) AS v(i, op, happened) WHERE happened ORDER BY i;
    RETURN NULL;
END $$;

CREATE TRIGGER entered AFTER INSERT ON job_blocked REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_blocked();
CREATE TRIGGER went AFTER DELETE ON job_blocked REFERENCING OLD TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_blocked();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON workflows
    FOR EACH ROW EXECUTE FUNCTION trail_workflows();
CREATE TRIGGER entered AFTER INSERT ON job_due REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_due();
CREATE TRIGGER went AFTER DELETE ON job_due REFERENCING OLD TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_due();
CREATE TRIGGER entered AFTER INSERT ON job_running REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_running();
CREATE TRIGGER went AFTER DELETE ON job_running REFERENCING OLD TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_running();
CREATE TRIGGER entered AFTER INSERT ON job_ended REFERENCING NEW TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_ended();
CREATE TRIGGER went AFTER DELETE ON job_ended REFERENCING OLD TABLE AS moved
    FOR EACH STATEMENT EXECUTE FUNCTION trail_ended();
CREATE TRIGGER entered AFTER INSERT ON workers
    FOR EACH ROW EXECUTE FUNCTION trail_workers();
CREATE TRIGGER condemned AFTER UPDATE ON workers FOR EACH ROW
    WHEN (OLD.condemned_at IS NULL AND NEW.condemned_at IS NOT NULL)
    EXECUTE FUNCTION trail_workers();
CREATE TRIGGER switched AFTER UPDATE ON queues FOR EACH ROW
    WHEN (OLD.paused IS DISTINCT FROM NEW.paused) EXECUTE FUNCTION trail_queues();

-- What each transaction did to each job. `origin` null: it came from nowhere. A place that was left
-- or entered twice shows twice ("job_due+job_due"). A stay in job_blocked or job_due that one
-- transaction begins and ends is none: the job's parents were over when it came, or what unlocked
-- it stopped its workflow too.
CREATE VIEW moves AS
SELECT job_id, xid, min(seq) AS seq,
       string_agg(place, '+' ORDER BY place) FILTER (WHERE op = 'DELETE') AS origin,
       string_agg(place, '+' ORDER BY place) FILTER (WHERE op = 'INSERT') AS goal,
       min(attempt) FILTER (WHERE op = 'DELETE') AS attempt_before,
       min(attempt) FILTER (WHERE op = 'INSERT') AS attempt,
       min(failures) FILTER (WHERE op = 'DELETE') AS failures_before,
       min(failures) FILTER (WHERE op = 'INSERT') AS failures,
       min(losses) FILTER (WHERE op = 'DELETE') AS losses_before,
       min(losses) FILTER (WHERE op = 'INSERT') AS losses,
       min(crashes) FILTER (WHERE op = 'DELETE') AS crashes_before,
       min(crashes) FILTER (WHERE op = 'INSERT') AS crashes,
       min(at) FILTER (WHERE op = 'DELETE') AS at_before,
       min(at) FILTER (WHERE op = 'INSERT') AS at,
       min(worker_id::text) FILTER (WHERE op = 'DELETE') AS worker_before,
       min(worker_id::text) FILTER (WHERE op = 'INSERT') AS worker,
       min(note) FILTER (WHERE op = 'DELETE') AS note_before,
       min(note) FILTER (WHERE op = 'INSERT') AS note
FROM (
    SELECT *, place IN ('job_blocked', 'job_due') AND first_value(op) OVER w = 'INSERT'
              AND count(*) FILTER (WHERE op = 'INSERT') OVER w
                  = count(*) FILTER (WHERE op = 'DELETE') OVER w AS is_a_stay
    FROM trail WHERE job_id IS NOT NULL
    WINDOW w AS (PARTITION BY job_id, xid, place ORDER BY seq
                 ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
) t
WHERE NOT is_a_stay GROUP BY job_id, xid;
"""
