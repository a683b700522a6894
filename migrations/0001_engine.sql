-- what:  the tables of the engine: jobs, the places a job can stand in, attempts, logs, workers.
-- why:   first version. A state is a place: which narrow table holds a job's row (design.md, 2).
-- locks: none; everything is new.
-- safe while old code runs: yes, there is none.

-- The specification of a job: written once, never updated. No foreign key points here (one costs
-- 7 us a row and blocks retention); named SQL and the self-audit keep the integrity instead.
CREATE TABLE jobs (
    job_id       uuid PRIMARY KEY,          -- UUIDv7, minted by Postgres' clock: created_at is in it
    queue        text NOT NULL,
    kind         text NOT NULL,
    priority     smallint NOT NULL,
    payload      json NOT NULL,             -- json, not jsonb: kept exactly as it was sent
    run_at       timestamptz NOT NULL,      -- when its first attempt was due
    max_attempts smallint NOT NULL,
    backoff      json,                      -- null: the built-in default
    timeout_s    double precision NOT NULL,
    on_lost      text NOT NULL,
    tags         text[],                    -- null: none
    traceparent  text,
    created_by   text NOT NULL
);

-- Place: it waits for its time or its turn. `attempt` counts the attempts made so far.
CREATE TABLE job_due (
    job_id   uuid PRIMARY KEY,
    queue    text NOT NULL,
    kind     text NOT NULL,
    priority smallint NOT NULL,
    ready_at timestamptz NOT NULL,
    attempt  integer NOT NULL,
    failures integer NOT NULL,
    losses   integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

-- The order of claims from Postgres, of the reconciler's head check and of a rebuild. Ids stand in it
-- as bytes, which sort alike, so that no look-up by id can take it for its index: on a table that was
-- empty when the plan was made, it would look as cheap as the primary key (pitfalls.md, A1).
CREATE INDEX job_due_line ON job_due (queue, kind, priority, ready_at, uuid_send(job_id));

-- Place: an attempt is under way. (job_id, attempt, worker_id) is the fence.
CREATE TABLE job_running (
    job_id              uuid PRIMARY KEY,
    attempt             integer NOT NULL,
    worker_id           uuid NOT NULL,
    queue               text NOT NULL,
    kind                text NOT NULL,
    priority            smallint NOT NULL,
    ready_at            timestamptz NOT NULL,
    failures            integer NOT NULL,
    losses              integer NOT NULL,
    started_at          timestamptz NOT NULL,
    cancel_requested_at timestamptz          -- the only update that this table knows
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX job_running_worker ON job_running (worker_id);

-- Place: it is over.
CREATE TABLE job_ended (
    job_id      uuid PRIMARY KEY,
    queue       text NOT NULL,
    kind        text NOT NULL,
    state       text NOT NULL,
    attempt     integer NOT NULL,
    failures    integer NOT NULL,
    losses      integer NOT NULL,
    result      json,
    error       json,
    reason      text,
    finished_at timestamptz NOT NULL
);

CREATE INDEX job_ended_list ON job_ended (queue, state, uuid_send(job_id)); -- as job_due_line

-- What has been tried, written when an attempt ends.
CREATE TABLE attempts (
    job_id      uuid NOT NULL,
    attempt     integer NOT NULL,
    worker_id   uuid NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    outcome     text NOT NULL,
    error       json,
    next_run_at timestamptz,
    PRIMARY KEY (job_id, attempt)
);

CREATE TABLE job_logs (
    job_id  uuid NOT NULL,
    attempt integer NOT NULL,
    seq     integer NOT NULL,
    at      timestamptz NOT NULL,
    level   text NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (job_id, attempt, seq)
);

CREATE TABLE queues (
    queue            text PRIMARY KEY,
    paused           boolean NOT NULL DEFAULT false,
    priority_aging_s double precision NOT NULL DEFAULT 60
);

-- Ended jobs by queue and state, as deltas: one row a transaction, folded into one by a loop.
-- `at` is kept on recent deltas, for the throughput, and null once they are history.
CREATE TABLE queue_counts (
    queue text NOT NULL,
    state text NOT NULL,
    at    timestamptz,
    delta bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

CREATE INDEX queue_counts_at ON queue_counts (at);

-- Who lives: one row a replica, renewed by its keeper. `condemned_at` is set once, explicitly.
CREATE TABLE workers (
    worker_id    uuid PRIMARY KEY,
    host         text NOT NULL,
    pid          integer NOT NULL,
    version      text NOT NULL,
    queues       text[] NOT NULL,
    kinds        text[] NOT NULL,
    slots        integer NOT NULL,
    started_at   timestamptz NOT NULL,
    beat_at      timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    condemned_at timestamptz
) WITH (fillfactor = 50);

-- Since when some replica has been reaching Postgres without a gap: the reaper's permission.
CREATE TABLE pulse (
    one            boolean PRIMARY KEY DEFAULT true CHECK (one),
    last_beat      timestamptz NOT NULL,
    unbroken_since timestamptz NOT NULL
) WITH (fillfactor = 20);

INSERT INTO pulse (last_beat, unbroken_since) VALUES (clock_timestamp(), clock_timestamp());
