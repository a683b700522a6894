-- what:  two indexes on the age of ended jobs in place of one: of plain ones, and of loose ones.
-- why:   jobs of a workflow go with it, however old they are: by one index, each look of the pruner for
--        plain ones would read all of those (decision 0019).
-- locks: SHARE on job_ended while the indexes are built (about 1 s per million rows): jobs go on
--        running, their endings wait for it in memory. To have nobody wait, make them before, after
--        the column of 0011 was added by hand, under these names, by CREATE INDEX CONCURRENTLY. Then
--        ACCESS EXCLUSIVE on job_ended for a moment.
-- safe while old code runs: yes. Its pruner reads more than it has to, until it is gone.

CREATE INDEX IF NOT EXISTS job_ended_plain_age ON job_ended (state, finished_at)
WHERE graph_id IS NULL;
CREATE INDEX IF NOT EXISTS job_ended_loose_age ON job_ended (state, finished_at)
WHERE graph_id = '00000000-0000-0000-0000-000000000000';
DROP INDEX job_ended_age;
