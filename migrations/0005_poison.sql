-- what:  a count of crashes beside failures and losses, in job_due; 0006 and 0007 do the same in the
--        other places.
-- why:   a job that ends its child process three times in one life is poison (decision 0014).
-- locks: ACCESS EXCLUSIVE on job_due for a moment: a constant default rewrites no row. A file for each
--        place: start locks job_due first and settle job_running, so who holds the lock of one and
--        waits for the other's deadlocks with one of them.
-- safe while old code runs: yes. Old code inserts without the column and gets 0; a job that it starts
--        or settles meanwhile forgets its crashes, which costs a poisonous one a few more of them.

ALTER TABLE job_due ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
