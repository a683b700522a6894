"""The fields of a workflow as it is submitted, added to and retried: what validates them, and
documents them. Its jobs are validated one by one, by `job_body.MEMBER`.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, FailFast, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from penstock.api.fields import Printable, says
from penstock.api.job_body import JobName, MemberBody
from penstock.api.notices import Notify
from penstock.domain.graph import EDGES_MAX, JOBS_MAX, NAME_CHARS_MAX

FROM_MAX = 1000  # names that a retry takes

_CLOSED = ConfigDict(extra="forbid", strict=True)
WorkflowName = Annotated[Printable, Field(max_length=NAME_CHARS_MAX)]


_Members = Annotated[
    list[MemberBody],
    Field(min_length=1, max_length=JOBS_MAX),
    says(f"Stored all or none. They may have {EDGES_MAX:,} dependencies together."),
]


@with_config(_CLOSED)
class Head(TypedDict):
    """A workflow without its jobs."""

    name: Annotated[WorkflowName, says("What to call it; others may be called the same.")]
    on_failure: NotRequired[
        Annotated[
            Literal["continue", "stop"],
            says(
                "When a job is `dead`: go on with what doesn't depend on it (the default), or "
                "cancel all that hasn't started, but for jobs whose `run_if` is `all_finished`, "
                "`any_failed` or `all_failed`."
            ),
        ]
    ]
    notify: NotRequired[Notify]


@with_config(_CLOSED)
class WorkflowBody(Head):
    """A workflow as it is submitted: jobs that name one another."""

    jobs: _Members


@with_config(_CLOSED)
class InnerHead(TypedDict, total=False):
    """A workflow in the payload of a job, without its jobs: its name may be left out."""

    name: WorkflowName
    on_failure: Literal["continue", "stop"]


@with_config(_CLOSED)
class MoreBody(TypedDict):
    """Jobs for a workflow that runs. They may depend on all that it has, and on one another."""

    jobs: _Members


@with_config(_CLOSED)
class RetryBody(TypedDict, total=False):
    """What of a workflow to run again: by default all that is dead, skipped or cancelled."""

    from_: Annotated[
        list[JobName],
        FailFast(),
        Field(alias="from", min_length=1, max_length=FROM_MAX),
        says(
            "Names of jobs: only these, and what depends on them. Of them, too, only what didn't "
            "succeed runs again: a job that succeeded is kept even if it is named, and so is a "
            "clean-up (`all_finished`) that is done."
        ),
    ]
    dry_run: Annotated[bool, says("Only tell what would run again.")]


HEAD: TypeAdapter[Head] = TypeAdapter(Head)
INNER_HEAD: TypeAdapter[InnerHead] = TypeAdapter(InnerHead)
WORKFLOW_BODY: TypeAdapter[WorkflowBody] = TypeAdapter(WorkflowBody)
MORE_BODY: TypeAdapter[MoreBody] = TypeAdapter(MoreBody)
RETRY_BODY: TypeAdapter[RetryBody] = TypeAdapter(RetryBody)
