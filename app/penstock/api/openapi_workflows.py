"""What the document says of the calls of workflows: see `openapi_calls`."""

from collections.abc import Mapping
from typing import Any

from penstock.api import workflow_shapes as shapes
from penstock.api import workflows
from penstock.api.openapi_parts import Call, Gives
from penstock.api.routes import Handler

_WAITS = (
    "With `Prefer: wait=N` the answer is held until the workflow is over or N seconds have passed."
)
_SUBMISSIONS = (
    *("forbidden-queue", "too-many-queues", "not-supported-yet", "duplicate-job"),
    *("workflow-too-large", "bad-idempotency-key", "idempotency-key-in-progress"),
    "idempotency-key-reuse",
)
_CANCELLED = {
    "state": "cancelled",
    "halt": "cancel",
    "finished_at": "2026-11-18T11:06:43.101Z",
}
_DIAMOND = {
    "name": "nightly",
    "jobs": [
        {"name": "extract", "kind": "echo", "payload": {"rows": [3, 4]}},
        {
            "name": "left",
            "kind": "echo",
            "depends_on": ["extract"],
            "payload": {"row": {"$result": "extract", "pointer": "/rows/0"}},
        },
        {"name": "right", "kind": "echo", "depends_on": ["extract"]},
        {"name": "load", "kind": "echo", "depends_on": ["left", "right"]},
        {"name": "tell", "kind": "echo", "depends_on": ["load"], "run_if": "all_finished"},
    ],
}
_NESTED = {
    "name": "of-workflows",
    "on_failure": "stop",
    "jobs": [
        {
            "name": "part",
            "kind": "workflow",
            "payload": {"jobs": [{"name": "only", "kind": "echo"}]},
        },
        {"name": "alarm", "kind": "echo", "depends_on": ["part"], "run_if": "any_failed"},
    ],
}
_MORE = {
    "jobs": [
        {"name": "load-7", "kind": "echo", "depends_on": ["extract"]},
        {"name": "sum", "kind": "echo", "depends_on": ["load", "load-7"]},
    ]
}


def _samples(**bodies: Any) -> Mapping[str, Any]:
    return bodies


CALLS_OF_WORKFLOWS: Mapping[Handler, Call] = {
    workflows.create: Call(
        "submitWorkflow",
        "workflows",
        "Submit a workflow",
        "Stores a workflow with all its jobs or nothing. A job runs when those that it depends on "
        "are over and its `run_if` holds. Names, cycles and conditions that can never hold are "
        "checked at once: `errors` names every job at fault, with pointers such as "
        "`/jobs/3/depends_on/0`. A job of kind `workflow` is a workflow itself, which its payload "
        f"tells as this body does (its `name` may be left out). {_WAITS}",
        {
            201: Gives(
                "The workflow. Its address is in `Location`.",
                shapes.Workflow,
                headers=("Location",),
            )
        },
        problems=(*_SUBMISSIONS, "gone"),
        sends=("Prefer", "Idempotency-Key", "traceparent", "tracestate"),
        samples=_samples(diamond=_DIAMOND, nested=_NESTED),
    ),
    workflows.list_all: Call(
        "listWorkflows",
        "workflows",
        "List workflows",
        "The workflows all of whose queues the token opens, newest first, without their jobs. A "
        "page may be short and still have a `next_cursor`: go on until that is null.",
        {200: Gives("A page of workflows.", shapes.Workflows)},
    ),
    workflows.show: Call(
        "showWorkflow",
        "workflows",
        "Look at a workflow",
        f"The workflow as it stands, with all its jobs. {_WAITS}",
        {200: Gives("The workflow.", shapes.Workflow)},
        sends=("Prefer",),
    ),
    workflows.add: Call(
        "addJobs",
        "workflows",
        "Add jobs to a workflow",
        "Stores all of these jobs or none, in a workflow that runs. They may depend on any of its "
        "jobs; parents that are over count at once.",
        {201: Gives("Id and state of each job, in the order of the request.", shapes.Added)},
        problems=(*_SUBMISSIONS, "wrong-state", "name-taken"),
        sends=("Idempotency-Key", "traceparent", "tracestate"),
        samples=_samples(two=_MORE),
    ),
    workflows.cancel: Call(
        "cancelWorkflow",
        "workflows",
        "Cancel a workflow",
        "Cancels all that waits, and stops the handlers of what runs: look again, or wait with "
        "`Prefer`, to see how it ended.",
        {200: Gives("The workflow.", shapes.Workflow, example=_CANCELLED)},
        problems=("wrong-state",),
    ),
    workflows.retry: Call(
        "retryWorkflow",
        "workflows",
        "Run what failed again",
        "Gives all jobs that are `dead`, `skipped` or `cancelled` a new life, or those named by "
        "`from` and what depends on them. What succeeded is kept, even if it is named, and so is "
        "a clean-up (`all_finished`) that is done. Jobs whose `run_if` can't hold by what is kept "
        "stay as they are. With `dry_run` nothing is changed.",
        {
            200: Gives(
                "The workflow with what runs again, or only that.",
                shapes.Retried,
                example={"dry_run": True, "again": ["load"], "reused": ["extract"]},
            )
        },
        problems=("wrong-state", "duplicate-job"),
        samples=_samples(plan={"dry_run": True}, some={"from": ["extract"]}),
    ),
}
