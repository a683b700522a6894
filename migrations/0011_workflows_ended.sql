-- what:  which graph an ended job is part of (see 0009).
-- why:   the pruner keeps what an open workflow refers to.
-- locks: ACCESS EXCLUSIVE on job_ended alone, for a moment: a column without default rewrites no row.
-- safe while old code runs: as 0008.

ALTER TABLE job_ended ADD COLUMN graph_id uuid;
