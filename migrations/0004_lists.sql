-- what:  indexes for lists of jobs: ended jobs by kind, those that didn't succeed by state, tags.
-- why:   GET /v1/jobs must stay fast at ten million ended jobs (decision 0011).
-- locks: SHARE on job_ended and jobs: nothing is written to them while the indexes are built, about
--        1.5 s a million jobs. With many millions, make them before, under these names, by
--        CREATE INDEX CONCURRENTLY: then this does nothing.
-- safe while old code runs: yes, it only pays for them.

-- Ids stand in them as bytes, as in job_due_line (0001): no look-up by id may take one for its index.
CREATE INDEX IF NOT EXISTS job_ended_kind ON job_ended (kind, state, uuid_send(job_id));

-- Small where most jobs succeed. Its condition is a list, not "<> 'succeeded'": retry_ended says
-- that, and must not be tempted to look its job up here.
CREATE INDEX IF NOT EXISTS job_ended_state ON job_ended (state, uuid_send(job_id))
WHERE state IN ('dead', 'cancelled', 'skipped');

-- Jobs without tags pay nothing. The pending list is kept short (in kB): every search reads all of
-- it, and somebody's submission must empty it.
CREATE INDEX IF NOT EXISTS jobs_tags ON jobs USING gin (tags) WITH (gin_pending_list_limit = 256)
WHERE tags IS NOT NULL;
