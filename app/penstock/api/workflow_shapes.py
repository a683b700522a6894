"""What answers about workflows look like; see `shapes`."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from penstock.api.fields import Name, says
from penstock.api.shapes import Count, Counts, Id, NextCursor, Notice, Time
from penstock.domain.job import State
from penstock.domain.workflow import Halt, OnFailure, WorkflowState

_WORKFLOW = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0a0"
_JOB = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"


class _WorkflowBasics(TypedDict):
    id: Annotated[Id, says("UUIDv7, made by the server.", _WORKFLOW)]
    name: Annotated[str, says("What it was called.", "nightly")]
    state: Annotated[
        WorkflowState,
        says(
            "`running` until all its jobs are over; then `cancelled` if it was cancelled by a "
            "call, else `failed` if a job is dead, else `succeeded`, also where jobs were "
            "cancelled or skipped.",
            "running",
        ),
    ]
    on_failure: Annotated[OnFailure, says("What a dead job does to the rest.", "continue")]
    halt: Annotated[
        Halt | None, says("Why nothing more begins: `stop` by `on_failure`, or `cancel`.", None)
    ]
    counts: Counts
    created_at: Annotated[Time, says("When it was submitted.", "2026-11-18T11:06:40.000Z")]
    finished_at: Annotated[Time | None, says("When all its jobs were over.", None)]
    held_by: Annotated[Id | None, says("The job of kind `workflow` whose work it is.", None)]
    notify: Annotated[list[Notice], says("Who is told when it is over.", [])]
    traceparent: Annotated[
        str | None,
        says(
            "The trace that it was submitted in.",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ]
    created_by: Annotated[str, says("The `sub` of who submitted it.", "signup-service")]


class ListedWorkflow(_WorkflowBasics):
    """A workflow in a list: without its jobs."""


class Member(TypedDict):
    """A job of a workflow, in short; `/v1/jobs/{id}` tells the rest."""

    id: Annotated[Id, says("UUIDv7, made by the server.", _JOB)]
    name: Annotated[str, says("Its own in the workflow.", "extract")]
    kind: Annotated[Name, says("The handler that runs it.", "echo")]
    queue: Annotated[Name, says("The line that it stands in.", "default")]
    state: Annotated[State, says("Where it stands.", "ready")]
    depends_on: Annotated[list[str], says("Names of the jobs that it waits for.", [])]
    run_if: Annotated[str | None, says("What must have become of those.", None)]
    attempt: Annotated[Count, says("Number of the last attempt; 0 before the first.", 0)]
    created_at: Annotated[Time, says("When it was submitted.", "2026-11-18T11:06:40.000Z")]
    started_at: Annotated[Time | None, says("When the last attempt began.", None)]
    finished_at: Annotated[Time | None, says("When it reached its end.", None)]


class DeadJobError(TypedDict):
    """What a job died of, in short."""

    type: Annotated[str, says("A short name to branch on.", "TimeoutError")]
    message: Annotated[str | None, says("Its first 500 characters.", "no answer")]


class DeadJob(TypedDict):
    """A dead job of a workflow."""

    id: Annotated[Id, says("The job.", _JOB)]
    name: Annotated[str, says("Its own in the workflow.", "extract")]
    kind: Annotated[Name, says("The handler that ran it.", "echo")]
    error: Annotated[
        DeadJobError | None,
        says("Why it died.", {"type": "TimeoutError", "message": "no answer"}),
    ]


class Workflow(_WorkflowBasics):
    """A workflow with its jobs."""

    dead_jobs: Annotated[
        list[DeadJob], says("The dead ones that died first, 10 at most: why it failed.", [])
    ]
    jobs: Annotated[
        list[Member],
        Field(
            description="All of them, by id: as they were submitted; what a job submitted while it "
            "ran stands next to it, in no order."
        ),
    ]


_Again = Annotated[list[str], says("Names of jobs that run again.", ["extract"])]
_Reused = Annotated[list[str], says("Names of jobs that stay as they are.", [])]


class RetriedWorkflow(Workflow):
    """A workflow that runs again."""

    again: _Again
    reused: _Reused


class Retry(TypedDict):
    """What of a workflow runs again: what a dry run tells, or all of the workflow."""

    dry_run: NotRequired[Annotated[Literal[True], says("Nothing was changed.", True)]]
    again: _Again
    reused: _Reused


class AddedJob(TypedDict):
    """One job that was added."""

    id: Annotated[Id, says("UUIDv7, made by the server.", _JOB)]
    state: Annotated[State, says("Where it stands.", "blocked")]
    name: Annotated[str, says("Its own in the workflow.", "load-7")]


class Added(TypedDict):
    """The jobs that were added, in the order in which they were sent."""

    items: list[AddedJob]


class Workflows(TypedDict):
    """A page of workflows."""

    items: list[ListedWorkflow]
    next_cursor: NextCursor


Retried = Annotated[RetriedWorkflow | Retry, Field(description="The workflow, or the plan.")]
