-- what:  indexes for lists of jobs: ended jobs by queue and kind, those that didn't succeed by state,
--        and tags.
-- why:   GET /v1/jobs must stay fast at ten million ended jobs (decision 0011).
-- locks: SHARE on job_ended and jobs: nothing is written to them while the indexes are built, a few
--        seconds a million jobs. With many millions, make them before, under these names, by
--        CREATE INDEX CONCURRENTLY. Then ACCESS EXCLUSIVE on job_ended for a moment.
-- safe while old code runs: yes, it reads none of these indexes, nor the one that goes.

-- In place of the index by queue and state: by kind too at about the same price. Ids stand in it as
-- bytes, as in job_due_line (0001): no look-up by id may take it for its index.
CREATE INDEX IF NOT EXISTS job_ended_lanes ON job_ended (queue, kind, state, uuid_send(job_id));
DROP INDEX job_ended_list;

-- Small where most jobs succeed. Its condition is a list, not "<> 'succeeded'": retry_ended says
-- that, and must not be tempted to look its job up here.
CREATE INDEX IF NOT EXISTS job_ended_state ON job_ended (state, uuid_send(job_id))
WHERE state IN ('dead', 'cancelled', 'skipped');

-- Jobs without tags pay nothing. The pending list is kept short (in kB): every search reads all of
-- it, and somebody's submission must empty it.
CREATE INDEX IF NOT EXISTS jobs_tags ON jobs USING gin (tags) WITH (gin_pending_list_limit = 256)
WHERE tags IS NOT NULL;
