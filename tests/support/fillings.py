"""What fills tables under hot statements: rows for ids ($1), some under a worker ($2)."""

JOBS = """
INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s, on_lost,
                  created_by)
SELECT id, 'default', 'echo', 5, '{"a":1}', now(), 5, 300, 'retry', '' FROM unnest($1::uuid[]) i(id)
"""
DUE = """
INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses)
SELECT id, 'default', 'kind-' || n % 3, n % 10, now() - n * interval '1 ms', 0, 0, 0
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
DUE_EXPIRED = """
INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses, unique_id,
                     expires_at)
SELECT id, 'default', 'echo', 5, now() - interval '1 h', 0, 0, 0,
       job_unique_id('default', n::text), now() - n * interval '1 ms'
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
UNIQUE = """
INSERT INTO job_unique (unique_id, job_id)
SELECT job_unique_id('default', n::text), id FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
RUNNING_KEYED = """
INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at, failures,
                         losses, started_at, unique_id)
SELECT id, 1, $2, 'default', 'echo', 5, now(), 0, 0, now(), job_unique_id('default', n::text)
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
ANSWERS = """
INSERT INTO idempotency_keys (key_id, body, stored_at, job_ids, holders)
SELECT id, '', now(), ARRAY[id], '{}' FROM unnest($1::uuid[]) i(id)
"""
MEMBERS = """
INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s, on_lost,
                  created_by, workflow_id, name)
SELECT id, 'default', 'echo', 5, '{"a":1}', now(), 5, 300, 'retry', '',
       md5((n / 1000)::text)::uuid, 'job ' || n
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
# Each job's parent is the one before it.
CHAINED = """
INSERT INTO job_edges (parent_id, child_id, graph_id)
SELECT lag(id) OVER (ORDER BY n), id, md5((n / 1000)::text)::uuid
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n) OFFSET 1
"""
RETURNED = """
INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at, result)
SELECT id, 'default', 'echo', 'succeeded', 1, 0, 0, now(), '{"a":1}' FROM unnest($1::uuid[]) i(id)
"""
# One worker holds a hundredth of what runs, as one replica of many does.
RUNNING = """
INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at, failures,
                         losses, started_at)
SELECT id, 1, $2, 'default', 'echo', 5, now(), 0, 0, now() FROM unnest($1::uuid[]) i(id)
"""
RUNNING_HERE_AND_THERE = """
INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at, failures,
                         losses, started_at)
SELECT id, 1, CASE WHEN n % 100 = 0 THEN $2 ELSE gen_random_uuid() END, 'default', 'echo', 5,
       now(), 0, 0, now()
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
RUNNING_UNDER_500_NAMES = """
INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at, failures,
                         losses, started_at)
SELECT id, 1, CASE WHEN n % 500 = 0 THEN $2 ELSE md5((n % 500)::text)::uuid END, 'default', 'echo',
       5, now(), 0, 0, now()
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
ENDED = """
INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at)
SELECT id, 'default', 'echo', 'dead', 1, 1, 0, now() FROM unnest($1::uuid[]) i(id)
"""
COUNTED = """
INSERT INTO queues (queue) VALUES ('default');
INSERT INTO queue_counts (queue, state, at, delta) VALUES ('default', 'dead', NULL, 400)
"""
ENDED_LONG_AGO = """
INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at)
SELECT id, 'queue-' || n % 5, 'echo', CASE WHEN n % 10 = 0 THEN 'succeeded' ELSE 'dead' END, 1, 1,
       0, now() - interval '1 day' + n * interval '1 ms'
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
LOGS = """
INSERT INTO job_logs (job_id, attempt, seq, at, level, message)
SELECT id, 1, 1, now(), 'info', 'a line' FROM unnest($1::uuid[]) i(id)
"""
PROGRESS = """
INSERT INTO job_progress (job_id, attempt, percent, at)
SELECT id, 1, 50, now() - interval '1 s' FROM unnest($1::uuid[]) i(id)
"""
KEYS = """
INSERT INTO idempotency_keys (key_id, body, stored_at, job_ids, holders)
SELECT id, '', now() - interval '1 day' + n * interval '1 ms', '{}', '{}'
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
GRAPHS_LONG_AGO = """
INSERT INTO job_ended (job_id, queue, kind, state, attempt, failures, losses, finished_at, graph_id)
SELECT id, 'queue-' || n % 5, 'echo', 'dead', 1, 1, 0,
       now() - interval '1 day' + n * interval '1 ms',
       CASE WHEN n % 2 = 0 THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE id END
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
WORKFLOWS_LONG_AGO = """
INSERT INTO workflows (workflow_id, name, on_failure, queues, created_by, ancestors, state, total,
                       finished_at)
SELECT id, 'w', 'continue', '{}', '', CASE WHEN n % 2 = 0 THEN '{}'::uuid[] ELSE ARRAY[id] END,
       'succeeded', 1, now() - interval '1 day' + n * interval '1 ms'
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
WORKFLOWS_RUNNING = """
INSERT INTO workflows (workflow_id, name, on_failure, queues, created_by, ancestors, total)
SELECT id, 'w', 'continue', '{}', '', '{}', 1 FROM unnest($1::uuid[]) i(id)
"""
OF_THOSE = """
INSERT INTO jobs (job_id, queue, kind, priority, payload, run_at, max_attempts, timeout_s, on_lost,
                  created_by, workflow_id, name)
SELECT gen_random_uuid(), 'default', 'echo', 5, '{"a":1}', now(), 5, 300, 'retry', '', id, '1'
FROM unnest($1::uuid[]) i(id)
"""
PRUNED = "INSERT INTO pruned_workflows SELECT unnest($1::uuid[])"
BLOCKED = """
INSERT INTO job_blocked (job_id, graph_id, queue, kind, priority, run_at, run_if, parents,
                         succeeded, dead, cancelled, skipped, attempt)
SELECT id, '00000000-0000-0000-0000-000000000000', 'default', 'kind-' || n % 3, n % 10, now(),
       'all_succeeded', 1, 0, 0, 0, 0, 0
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
# Of one workflow, which has more jobs than any may have.
BLOCKED_IN_ONE = """
INSERT INTO job_blocked (job_id, graph_id, queue, kind, priority, run_at, run_if, parents,
                         succeeded, dead, cancelled, skipped, attempt)
SELECT id, md5('0')::uuid, 'default', 'echo', 5, now(), 'all_succeeded', 1, 0, 0, 0, 0, 0
FROM unnest($1::uuid[]) i(id)
"""
DUE_IN_GRAPHS = """
INSERT INTO job_due (job_id, queue, kind, priority, ready_at, attempt, failures, losses, expires_at,
                     graph_id)
SELECT id, 'default', 'echo', 5, now() - interval '1 h', 0, 0, 0, now() - interval '1 m',
       md5((n / 1000)::text)::uuid
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
LETTERS = """
INSERT INTO dead_letters (job_id, attempt, queue, kind, error_type, fingerprint, died_at)
SELECT id, 1, 'default', 'echo', 'oops', left(md5((n % 9)::text), 16), now() + n * interval '1 us'
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
CLOSED_LETTERS = """
INSERT INTO dead_letters (job_id, attempt, queue, kind, error_type, fingerprint, died_at,
                          resolved_at, resolution)
SELECT id, 1, 'default', 'echo', 'oops', '', now(), now() - interval '1 day', 'retried'
FROM unnest($1::uuid[]) i(id)
"""
EFFECTS = """
INSERT INTO effects (effect_id, channel, endpoint, dedupe, event, job_id, attempt, state, at,
                     due_at)
SELECT id, 'dead-letter', 'topic', '', '', id, 1, 'dead', now(), now()
FROM unnest($1::uuid[]) i(id)
"""
LEASED = """
INSERT INTO effects (effect_id, channel, endpoint, dedupe, event, job_id, attempt, state, at,
                     due_at, lease)
SELECT id, 'webhook', 'https://x/' || n % 50, '', '', id, 1, 'dead', now(), now(), $2
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n)
"""
HELD = """
INSERT INTO effects (effect_id, channel, endpoint, dedupe, event, job_id, attempt, state, at,
                     due_at, rule, waits_for)
SELECT id, 'webhook', 'https://x', '', '', id, 1, 'dead', now(), now() + interval '1 h',
       'r', 'quiet'
FROM unnest($1::uuid[]) i(id)
"""
DELIVERIES = """
INSERT INTO deliveries (effect_id, channel, endpoint, dedupe, event, job_id, attempt, state, at,
                        tries, outcome, finished_at)
SELECT id, 'webhook', 'https://x', '', '', id, 1, 'dead', now(), 1, 'failed',
       now() - interval '1 day'
FROM unnest($1::uuid[]) i(id)
"""
ATTEMPTS = """
INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)
SELECT id, 1, $2, now(), now(), 'failed' FROM unnest($1::uuid[]) i(id)
"""
WORKER = """
INSERT INTO workers (worker_id, host, pid, version, queues, kinds, slots, started_at, beat_at,
                     expires_at)
SELECT $2, '', 1, '', '{}', '{}', 1, now(), now(), now() + interval '1 hour'
WHERE $1::uuid[] IS NOT NULL
"""
EXPIRED_WORKERS = """
INSERT INTO workers (worker_id, host, pid, version, queues, kinds, slots, started_at, beat_at,
                     expires_at)
SELECT id, '', 1, '', '{}', '{}', 1, now(), now(),
       now() + CASE WHEN n <= 500 THEN interval '-1 s' ELSE interval '1 hour' END
FROM unnest($1::uuid[]) WITH ORDINALITY i(id, n) WHERE n <= 3000
"""
STEADY_PULSE = """
UPDATE pulse SET last_beat = now() + interval '1 minute', unbroken_since = now() - interval '1 hour'
"""
