"""What the document says of each call: one row for one handler.

In: the handlers of `ROUTES`. Out: words, the shapes of answers, and what a call can be refused
for beyond what its route implies. A route without a row here fails `tests/api/test_openapi.py`.
"""

from collections.abc import Mapping
from typing import Any

from penstock.api import autoscale, docs, health, jobs, lists, queues, shapes, submit, workers
from penstock.api.openapi_audit_log import CALLS_OF_AUDIT_LOG
from penstock.api.openapi_config import CALLS_OF_CONFIG
from penstock.api.openapi_deliveries import CALLS_OF_DELIVERIES
from penstock.api.openapi_letters import CALLS_OF_LETTERS
from penstock.api.openapi_parts import Call, Gives
from penstock.api.openapi_workflows import CALLS_OF_WORKFLOWS
from penstock.api.routes import Handler

TAGS = {
    "jobs": "Submit work, follow it, stop it, run it again.",
    "workflows": "Jobs that depend on one another, as one.",
    "dead letters": "Jobs that died, until somebody deals with it.",
    "notifications": "Who is told of ends, and whether it arrived.",
    "queues": "The lines in which jobs stand.",
    "workers": "Who runs the jobs.",
    "audit log": "Who did what, when and from where.",
    "settings": "What the server goes by.",
    "operations": "What machines and people ask of one replica. No token is needed.",
}


_FRESH = {
    "state": "ready",
    "attempt": 0,
    "started_at": None,
    "finished_at": None,
    "worker": None,
    "result": None,
}
_CANCELLED = {**_FRESH, "state": "cancelled", "cancel_reason": "requested"}
_CANCELLED["finished_at"] = "2026-11-18T11:06:43.101Z"
_UNCHANGED = Gives("What you have still holds.", media=(), headers=("ETag",))
_SUBMISSIONS = (
    *("forbidden-queue", "too-many-queues", "not-supported-yet", "duplicate-job"),
    *("bad-idempotency-key", "idempotency-key-in-progress", "idempotency-key-reuse"),
)
_WAITS = "With `Prefer: wait=N` the answer is held until the job is over or N seconds have passed."

CALLS: Mapping[Handler, Call] = {
    submit.one: Call(
        "submitJob",
        "jobs",
        "Submit a job",
        "Stores one job and answers when it can't be lost any more. Only `kind` is required; "
        f"settings fill in what is left out. {_WAITS}",
        {
            200: Gives(
                "With `on_conflict: return`: the job that has the `unique_key`.",
                shapes.Job,
                headers=("Location",),
                example={"unique_key": "welcome-ada"},
            ),
            201: Gives(
                "The job. Its address is in `Location`.",
                shapes.Job,
                headers=("Location",),
                example=_FRESH,
            ),
        },
        problems=(*_SUBMISSIONS, "gone"),
        sends=("Prefer", "Idempotency-Key", "traceparent", "tracestate"),
        samples={
            "small": {"kind": "echo", "payload": {"to": "ada@example.com"}},
            "later": {"kind": "echo", "queue": "mail", "delay_s": 60, "tags": ["welcome"]},
            "once": {
                "kind": "echo",
                "payload": "welcome",
                "unique_key": "welcome-ada",
                "on_conflict": "return",
                "ttl_s": 3600,
            },
            "careful": {
                "kind": "echo",
                "payload": [1, 2, 3],
                "priority": 7,
                "max_attempts": 3,
                "backoff": {"kind": "linear", "base_s": 10, "max_s": 600, "jitter": "equal"},
                "timeout_s": 30,
                "on_lost": "dead",
            },
        },
    ),
    submit.batch: Call(
        "submitJobs",
        "jobs",
        "Submit many jobs",
        "Stores all jobs of the batch or none. Where one is wrong, `errors` names every field at "
        "fault, with pointers such as `/jobs/3/priority`.",
        {201: Gives("Id and state of each job, in the order of the batch.", shapes.Batch)},
        problems=_SUBMISSIONS,
        sends=("Idempotency-Key", "traceparent", "tracestate"),
        samples={
            "two": {
                "jobs": [
                    {"kind": "echo", "payload": 1},
                    {"kind": "echo", "payload": 2, "queue": "mail", "priority": 9},
                ]
            }
        },
    ),
    jobs.show: Call(
        "showJob",
        "jobs",
        "Look at a job",
        f"The job as it stands. {_WAITS}",
        {200: Gives("The job.", shapes.Job)},
        sends=("Prefer",),
    ),
    lists.jobs: Call(
        "listJobs",
        "jobs",
        "List jobs",
        "The jobs that the token opens, newest first. Filters narrow: any of the values of one "
        "name, and all of the names. A page may be short and still have a `next_cursor`: go on "
        "until that is null.",
        {200: Gives("A page of jobs.", shapes.Jobs)},
    ),
    jobs.attempts: Call(
        "listAttempts",
        "jobs",
        "List a job's attempts",
        "What has been tried so far, oldest first; the one under way has no `outcome` yet.",
        {200: Gives("A page of attempts.", shapes.Attempts)},
    ),
    jobs.logs: Call(
        "listLogs",
        "jobs",
        "List what a job logged",
        "The lines that the handler logged, oldest first, of all attempts.",
        {200: Gives("A page of lines.", shapes.Logs)},
    ),
    jobs.cancel: Call(
        "cancelJob",
        "jobs",
        "Cancel a job",
        "A job that waits is cancelled at once. The handler of one that runs is stopped: look "
        "again, or wait with `Prefer`, to see how it ended; success that came first stands.",
        {200: Gives("The job.", shapes.Job, example=_CANCELLED)},
        problems=("wrong-state",),
    ),
    jobs.retry: Call(
        "retryJob",
        "jobs",
        "Run a job again",
        "Gives a `dead`, `cancelled` or `skipped` job a new life: its budget is fresh, and its "
        "attempts are counted on. Another job may have taken its `unique_key` meanwhile.",
        {200: Gives("The job.", shapes.Job, example=_FRESH | {"attempt": 1})},
        problems=("wrong-state", "duplicate-job"),
    ),
    **CALLS_OF_WORKFLOWS,
    **CALLS_OF_LETTERS,
    **CALLS_OF_AUDIT_LOG,
    **CALLS_OF_DELIVERIES,
    **CALLS_OF_CONFIG,
    queues.list_all: Call(
        "listQueues",
        "queues",
        "List queues",
        "All queues that the token opens, by name, with their jobs counted.",
        {200: Gives("A page of queues.", shapes.Queues)},
    ),
    queues.show: Call(
        "showQueue",
        "queues",
        "Look at a queue",
        "The queue with its jobs counted by state.",
        {200: Gives("The queue.", shapes.Queue)},
    ),
    queues.pause: Call(
        "pauseQueue",
        "queues",
        "Pause a queue",
        "Within a second no replica starts a job of the queue any more; what runs goes on. A "
        "queue that is new is made.",
        {200: Gives("The queue.", shapes.Queue, example={"paused": True})},
        problems=("too-many-queues",),
    ),
    queues.resume: Call(
        "resumeQueue",
        "queues",
        "Resume a queue",
        "Within a second its jobs are started again. A queue that is new is made.",
        {200: Gives("The queue.", shapes.Queue)},
        problems=("too-many-queues",),
    ),
    workers.list_all: Call(
        "listWorkers",
        "workers",
        "List workers",
        "Who runs jobs, newest first, those that were given up of late among them.",
        {200: Gives("A page of workers.", shapes.Workers)},
    ),
    autoscale.show: Call(
        "autoscale",
        "workers",
        "How many replicas should there be?",
        "By the age of what waits, how quickly jobs end and how many slots are taken, over all "
        "replicas; see `autoscale.*` of the settings. Never 0 while a job runs or waits to be "
        "started, be it of a kind that no living replica knows: one that is scaled to 0 may. "
        "Made for KEDA's `metrics-api` scaler (`valueLocation: desired_replicas`).",
        {200: Gives("What there is to do, and by how many.", shapes.Autoscale)},
    ),
    health.livez: Call(
        "live",
        "operations",
        "Is it alive?",
        "Answers while the event loop turns. Restart the replica when it doesn't.",
        {200: Gives("It is.", shapes.Live)},
    ),
    health.readyz: Call(
        "ready",
        "operations",
        "Is it ready?",
        "Send requests only to replicas that say yes. Redis may be away: that is `degraded`.",
        {200: Gives("It is.", shapes.Ready)},
        problems=("not-ready",),
    ),
    health.metrics: Call(
        "metrics",
        "operations",
        "Metrics",
        "All metrics in Prometheus' text format. Those of all replicas together come from "
        "PostgreSQL and are the same from each replica: ask for `max by (queue)`. Where it doesn't "
        "answer they are left out, and `penstock_cluster_told` is 0.",
        {200: Gives("The metrics.", media=("text/plain",))},
    ),
    docs.openapi: Call(
        "openapi",
        "operations",
        "This document",
        "OpenAPI 3.1, made at start from the code that answers the calls.",
        {
            200: Gives(
                "The document.", dict[str, Any], headers=("ETag",), example={"openapi": "3.1.0"}
            ),
            304: _UNCHANGED,
        },
        sends=("If-None-Match",),
    ),
    docs.page: Call(
        "docs",
        "operations",
        "This document, to read and to try out",
        "A page for the browser. It asks no other host for anything.",
        {200: Gives("The page.", media=("text/html",), headers=("ETag",)), 304: _UNCHANGED},
        sends=("If-None-Match",),
    ),
    docs.problem: Call(
        "explainProblem",
        "operations",
        "What a type of problem means",
        "The address that the `type` of a problem is.",
        {200: Gives("The type.", shapes.ProblemType)},
    ),
    docs.asset: Call(
        "docsAsset",
        "operations",
        "A part of that page",
        "Its scripts and styles.",
        {
            200: Gives("It.", media=("text/javascript", "text/css"), headers=("ETag",)),
            304: _UNCHANGED,
        },
        sends=("If-None-Match",),
    ),
}
