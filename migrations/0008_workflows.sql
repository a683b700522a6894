-- what:  workflows, the edges between jobs, the place of jobs that wait for parents; what a job was
--        asked for as part of a graph.
-- why:   POST /v1/workflows and depends_on (api.md); decision 0018.
-- locks: ACCESS EXCLUSIVE on jobs for a moment: columns without default, so no row is written anew.
--        Its new index is partial and empty, but reads jobs once; with many millions of jobs make it
--        before, under its name, by CREATE INDEX CONCURRENTLY, after the columns were added by hand.
-- safe while old code runs: yes, it ignores all of it. It would settle a job of a workflow without
--        telling its children: let no caller use workflows before the last old replica is gone.

ALTER TABLE jobs
    ADD COLUMN IF NOT EXISTS workflow_id uuid,   -- null: none
    ADD COLUMN IF NOT EXISTS name        text,   -- in its workflow
    ADD COLUMN IF NOT EXISTS depends_on  text[], -- as asked: names in a workflow, else ids; null: no parents
    ADD COLUMN IF NOT EXISTS run_if      text;   -- null: no parents

CREATE UNIQUE INDEX IF NOT EXISTS jobs_workflow ON jobs (workflow_id, name) WHERE workflow_id IS NOT NULL;

-- A workflow's row is locked by every transaction that moves its jobs from or to their ends; it is
-- what puts them in a row. The counts are of jobs that are over.
CREATE TABLE workflows (
    workflow_id uuid PRIMARY KEY,          -- UUIDv7, minted as those of jobs
    name        text NOT NULL,
    on_failure  text NOT NULL,             -- continue, stop
    queues      text[] NOT NULL,           -- of all its jobs
    created_by  text NOT NULL,
    traceparent text,
    holder_id   uuid,                      -- the job whose attempt it is (kind workflow)
    ancestors   uuid[] NOT NULL,           -- the workflows that the holder is in, outermost first
    state       text NOT NULL DEFAULT 'running',
    total       integer NOT NULL,
    succeeded   integer NOT NULL DEFAULT 0,
    dead        integer NOT NULL DEFAULT 0,
    cancelled   integer NOT NULL DEFAULT 0,
    skipped     integer NOT NULL DEFAULT 0,
    halt        text,                      -- stop, cancel: what isn't running is cancelled
    halting     boolean NOT NULL DEFAULT false, -- and not all of it has been yet
    finished_at timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE UNIQUE INDEX workflows_holder ON workflows (holder_id) WHERE holder_id IS NOT NULL;
CREATE INDEX workflows_halting ON workflows (workflow_id) WHERE halting;
CREATE INDEX workflows_nested ON workflows (workflow_id) WHERE holder_id IS NOT NULL AND state = 'running';
CREATE INDEX workflows_state ON workflows (state, uuid_send(workflow_id));
-- For the pruner: those that are nested in none, by age; and those that are, by the outermost around.
CREATE INDEX workflows_age ON workflows (finished_at)
WHERE finished_at IS NOT NULL AND ancestors = '{}';
CREATE INDEX workflows_within ON workflows ((ancestors[1])) WHERE ancestors <> '{}';

-- Workflows that the pruner has deleted, of which jobs are left for its next steps.
CREATE TABLE pruned_workflows (workflow_id uuid PRIMARY KEY);

-- Written once, never updated: who waits for whom.
CREATE TABLE job_edges (
    parent_id uuid NOT NULL,
    child_id  uuid NOT NULL,
    graph_id  uuid NOT NULL,               -- the child's: its workflow, or the loose graph (all zeros)
    PRIMARY KEY (parent_id, child_id)
);

-- As bytes, as job_due_line (0001): on a table that was empty when the plan was made, a look by parent
-- would as soon be made in all of (child, parent), and one by child in all of (parent, child).
CREATE INDEX job_edges_child ON job_edges (uuid_send(child_id));

-- Place: it waits for parents. How many of them are over, by state, is the only thing that is updated;
-- no index mentions it.
CREATE TABLE job_blocked (
    job_id     uuid PRIMARY KEY,
    graph_id   uuid NOT NULL,              -- its workflow, or the loose graph (all zeros)
    queue      text NOT NULL,
    kind       text NOT NULL,
    priority   smallint NOT NULL,
    run_at     timestamptz NOT NULL,       -- not before, whatever becomes of the parents
    run_if     text NOT NULL,
    parents    integer NOT NULL,
    succeeded  integer NOT NULL,
    dead       integer NOT NULL,
    cancelled  integer NOT NULL,
    skipped    integer NOT NULL,
    attempt    integer NOT NULL,           -- attempts made in earlier lives
    unique_id  uuid,
    expires_at timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX job_blocked_graph ON job_blocked (graph_id, uuid_send(job_id));
CREATE INDEX job_blocked_line ON job_blocked (queue, kind, uuid_send(job_id));
CREATE INDEX job_blocked_expiry ON job_blocked (expires_at) WHERE expires_at IS NOT NULL;

-- An ended job that not all of its children have been told of: those up to `after` have. Whoever
-- finds it tells the next ones, in the transaction that moves `after`.
CREATE TABLE job_spreads (
    parent_id uuid PRIMARY KEY,
    graph_id  uuid NOT NULL,               -- the parent's: its workflow, or the loose graph
    state     text NOT NULL,
    after     uuid NOT NULL
);
