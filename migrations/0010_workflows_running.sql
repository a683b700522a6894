-- what:  which graph a running job is part of (see 0009).
-- why:   as 0009.
-- locks: ACCESS EXCLUSIVE on job_running alone, for a moment, as 0009.
-- safe while old code runs: as 0008.

ALTER TABLE job_running ADD COLUMN graph_id uuid;

CREATE INDEX job_running_graph ON job_running (graph_id, uuid_send(job_id)) WHERE graph_id IS NOT NULL;
