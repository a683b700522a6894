-- what:  a count of crashes beside failures and losses, wherever a job can stand.
-- why:   a job that ends its child process three times in one life is poison (decision 0014).
-- locks: ACCESS EXCLUSIVE on the three places for a moment: a constant default rewrites no row.
-- safe while old code runs: yes. Old code inserts without the column and gets 0; a job that it starts
--        or settles meanwhile forgets its crashes, which costs a poisonous one a few more of them.

ALTER TABLE job_due ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
ALTER TABLE job_running ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
ALTER TABLE job_ended ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
