-- what:  unique keys and expiry of jobs, stored answers of idempotent requests.
-- why:   the rest of the contract of POST /v1/jobs (api.md): unique_key, ttl_s, Idempotency-Key.
-- locks: ACCESS EXCLUSIVE on jobs, job_due and job_running for a moment: columns without default,
--        so no row is written anew. The new index is partial and empty, but reads job_due once.
-- safe while old code runs: yes. Old code stores jobs without keys and without expiry, and would
--        start a job that has expired, and would leave a unique key taken when its job ends: let
--        no caller use them before the last old replica is gone.

ALTER TABLE jobs
    ADD COLUMN unique_key text,
    ADD COLUMN expires_at timestamptz;     -- as asked for; what counts stands in job_due

ALTER TABLE job_due
    ADD COLUMN unique_id  uuid,            -- the key's row in job_unique; null: no key
    ADD COLUMN expires_at timestamptz;     -- null: never, or a life that has started once

ALTER TABLE job_running
    ADD COLUMN unique_id uuid;

CREATE INDEX job_due_expiry ON job_due (expires_at) WHERE expires_at IS NOT NULL;

-- Place: the one live job of a queue that holds this key. Made with the job's place, deleted in the
-- transaction that ends the job, so that the key is free when the end can be seen.
CREATE TABLE job_unique (
    unique_id uuid PRIMARY KEY,            -- job_unique_id(queue, unique_key)
    job_id    uuid NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0);

-- One column to look up by, whatever the length of the key: half of a SHA-256.
CREATE FUNCTION job_unique_id(queue text, unique_key text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN encode(substring(sha256(convert_to(queue || '/' || unique_key, 'UTF8')) FOR 16), 'hex')::uuid;

-- What a request with an Idempotency-Key was answered, written with its jobs.
CREATE TABLE idempotency_keys (
    key_id    uuid PRIMARY KEY,            -- half of a SHA-256 of sub, method, path and key
    body      bytea NOT NULL,              -- SHA-256 of the body, its names sorted
    stored_at timestamptz NOT NULL,
    job_ids   uuid[] NOT NULL,             -- in the order of the request
    holders   uuid[] NOT NULL              -- those of them that had been there (on_conflict)
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (stored_at);
