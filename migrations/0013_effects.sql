-- what:  the outbox: effects that are to leave the house, what became of them, dead letters; what a job
--        or a workflow wants told of its end.
-- why:   dead letters to a broker, webhooks and e-mail (api.md, "What leaves the house"); decision 0020.
-- locks: ACCESS EXCLUSIVE on jobs and workflows for a moment: columns without default, no row is written
--        anew.
-- safe while old code runs: yes. What an old replica ends has no effects and no dead letter: let no
--        caller use `notify` before the last one is gone.

ALTER TABLE jobs ADD COLUMN IF NOT EXISTS notify json;      -- as asked; null: nothing
ALTER TABLE workflows ADD COLUMN IF NOT EXISTS notify json;

-- An effect that is still to be delivered. Written by the transaction that ended the job or workflow,
-- claimed by lease (due_at moves ahead), deleted when it is over.
CREATE TABLE effects (
    effect_id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    channel     text NOT NULL,              -- dead-letter, webhook, email
    endpoint    text NOT NULL,              -- a URL, an address, a topic: failures of one delay no other
    dedupe      text NOT NULL,              -- the id that its receiver sees, the same at each try
    event       text NOT NULL,              -- penstock.job.dead.v1 …
    job_id      uuid,
    workflow_id uuid,
    attempt     integer NOT NULL,           -- of the job, as it ended then
    state       text NOT NULL,              -- what it ended as
    reason      text,
    rule        text,                       -- of the configuration; null: the job itself asked for it
    at          timestamptz NOT NULL,       -- when it ended
    due_at      timestamptz NOT NULL,       -- when to try (again), or when a lease is over
    tries       integer NOT NULL DEFAULT 0,
    lease       uuid,                       -- of the last claim
    error       text                        -- of the last try
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

CREATE INDEX effects_line ON effects (channel, endpoint, due_at);
CREATE INDEX effects_job ON effects (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX effects_workflow ON effects (workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX effects_age ON effects (at, uuid_send(effect_id)); -- for lists; not as ids: pitfalls.md, A1

-- An effect that is over.
CREATE TABLE deliveries (
    effect_id   uuid PRIMARY KEY,
    channel     text NOT NULL,
    endpoint    text NOT NULL,
    dedupe      text NOT NULL,
    event       text NOT NULL,
    job_id      uuid,
    workflow_id uuid,
    attempt     integer NOT NULL,
    state       text NOT NULL,
    reason      text,
    rule        text,
    at          timestamptz NOT NULL,
    tries       integer NOT NULL,
    outcome     text NOT NULL,              -- delivered, failed, dropped
    error       text,
    finished_at timestamptz NOT NULL
);

CREATE INDEX deliveries_age ON deliveries (finished_at);
CREATE INDEX deliveries_list ON deliveries (at, uuid_send(effect_id));
CREATE INDEX deliveries_job ON deliveries (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX deliveries_workflow ON deliveries (workflow_id) WHERE workflow_id IS NOT NULL;

-- Endpoints that fail, since when; those that were given up. An endpoint that works has no row.
CREATE TABLE endpoints (
    endpoint      text PRIMARY KEY,
    channel       text NOT NULL,
    failing_since timestamptz NOT NULL,
    failures      integer NOT NULL,
    disabled_at   timestamptz,
    error         text NOT NULL
);

-- Each death of a job: kept as history when it is replayed or discarded.
CREATE TABLE dead_letters (
    job_id      uuid NOT NULL,
    attempt     integer NOT NULL,
    queue       text NOT NULL,
    kind        text NOT NULL,
    error_type  text NOT NULL,
    fingerprint text NOT NULL,              -- of kind, error type and place
    reason      text,
    died_at     timestamptz NOT NULL,
    resolved_at timestamptz,
    resolution  text,                       -- replayed, retried, discarded, pruned
    resolved_by text,
    PRIMARY KEY (job_id, attempt)
);

-- For lists, newest first: those that are open, and all.
CREATE INDEX dead_letters_open ON dead_letters (died_at, uuid_send(job_id), attempt)
    WHERE resolved_at IS NULL;
CREATE INDEX dead_letters_all ON dead_letters (died_at, uuid_send(job_id), attempt);
CREATE INDEX dead_letters_resolved ON dead_letters (resolved_at) WHERE resolved_at IS NOT NULL;
