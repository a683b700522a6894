-- what:  what the pruner looks up by; progress of attempts.
-- why:   ended jobs go after a time that the operator sets; a handler tells how far it has come.
-- locks: SHARE on job_ended while its index is built (about 1 s per million rows): jobs go on
--        running, their endings wait for it in memory. To have nobody wait, make it before:
--        CREATE INDEX CONCURRENTLY IF NOT EXISTS job_ended_age ON job_ended (state, finished_at)
-- safe while old code runs: yes. Old code neither prunes nor knows of progress.

-- Exact, and cheap because all that ends in one batch has one time (decision 0012: a BRIN would have
-- to look at the whole table once deleted space has been used again).
CREATE INDEX IF NOT EXISTS job_ended_age ON job_ended (state, finished_at);

-- How far the latest attempt that said so has come. Only attempts that report have a row.
CREATE TABLE job_progress (
    job_id  uuid PRIMARY KEY,
    attempt integer NOT NULL,
    percent double precision NOT NULL,     -- 0 to 100
    message text,
    at      timestamptz NOT NULL           -- by whoever ran it: tells an attempt's reports in order
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
