-- what:  a count of crashes in job_ended (see 0005).
-- why:   a job that ends its child process three times in one life is poison (decision 0014).
-- locks: ACCESS EXCLUSIVE on job_ended alone, for a moment: a constant default rewrites no row.
-- safe while old code runs: yes, as 0005.

ALTER TABLE job_ended ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
