-- what:  which of max_attempts (1), backoff (2) and timeout_s (4) a job didn't state itself: the sum.
-- why:   these follow the configuration of its kind and queue, also when that changes while the job
--        waits (decision 0025). The columns themselves keep what counted when it was submitted. Null:
--        none; so jobs that are there already keep what they have.
-- locks: that of ALTER TABLE for a moment: a column that is null costs no look at the rows.
-- safe while old code runs: yes: it goes by the columns that it knows, which are always filled.

ALTER TABLE jobs ADD COLUMN follows smallint;
