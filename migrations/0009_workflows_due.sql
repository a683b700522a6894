-- what:  which graph a due job is part of (see 0008); 0010 and 0011 do the same in the other places.
-- why:   who ends such a job must lock its graph first and tell its children (decision 0018).
-- locks: ACCESS EXCLUSIVE on job_due alone, for a moment: a column without default rewrites no row; the
--        index is partial and empty, but reads job_due once. A file for each place, as 0005.
-- safe while old code runs: as 0008.

-- Its workflow; all zeros: it has parents or children by depends_on and no workflow; null: neither.
ALTER TABLE job_due ADD COLUMN graph_id uuid;

CREATE INDEX job_due_graph ON job_due (graph_id, uuid_send(job_id)) WHERE graph_id IS NOT NULL;
