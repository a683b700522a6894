"""Which calls exist, who may make them, and which code answers: one table.

In: a method and a path as they came. Out: the route and the part of the path that varies.
Always holds: what isn't in `ROUTES` doesn't exist; authorisation is by this table and nowhere
else, but for the queues that a caller may see.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote

from aiohttp import web
from pydantic import BaseModel

from penstock.api import (
    audit_log,
    autoscale,
    config,
    deliveries,
    docs,
    health,
    jobs,
    letters,
    lists,
    queues,
    submit,
    workers,
    workflows,
)
from penstock.api.ask import Ask
from penstock.api.gate import Traffic
from penstock.api.problems import Problem, not_found
from penstock.api.queries import (
    AuditQuery,
    DeliveriesQuery,
    GroupsQuery,
    JobsQuery,
    LettersQuery,
    PageQuery,
    QueuesQuery,
    WorkflowsQuery,
)
from penstock.domain.audit_log import Action
from penstock.domain.caller import Role

Handler = Callable[[Ask], Awaitable[web.Response]]


class Takes(Enum):
    """What body a call takes, which is how large it may be."""

    NOTHING = "nothing"
    JOB = "job"
    BATCH = "batch"
    WORKFLOW = "workflow"
    MORE = "more"  # jobs for a workflow
    RETRY = "retry"  # of a workflow; may be left out
    REPLAY = "replay"  # of a dead letter; may be left out
    REPLAYS = "replays"  # of those that a filter wants
    ENDPOINT = "endpoint"  # to take back
    TEST = "test"  # whom to send a message to

    @property
    def is_optional(self) -> bool:
        return self in (Takes.RETRY, Takes.REPLAY)


@dataclass(frozen=True, slots=True)
class Route:
    """One call. `role` is None where no token is asked for; `{…}` in `path` varies.

    `asks` has a field for each query parameter. What the document says of a call stands in
    `openapi_calls.CALLS`.
    """

    method: str
    path: str
    role: Role | None
    handler: Handler
    takes: Takes = Takes.NOTHING
    asks: type[BaseModel] | None = None  # the query parameters; None: there are none
    traffic: Traffic = field(init=False)
    action: Action | None = field(init=False)  # in the audit log; None: it changes nothing

    def __post_init__(self) -> None:
        object.__setattr__(self, "traffic", _traffic(self))
        object.__setattr__(self, "action", _ACTIONS.get(self.handler))


def _traffic(route: Route) -> Traffic:
    if route.role is None:
        return Traffic.HEALTH
    if route.takes in (Takes.BATCH, Takes.WORKFLOW, Takes.MORE):
        return Traffic.BATCH
    if route.takes is Takes.JOB:
        return Traffic.SUBMISSION
    return Traffic.READ if route.method == "GET" else Traffic.CHANGE


_VARYING = re.compile(r"\{\w+\}")
# What the audit log calls that which each call changes. One that changes something and isn't here
# fails tests/api/test_routes.py.
_ACTIONS: Mapping[Handler, Action] = {
    submit.one: Action.JOB_SUBMIT,
    submit.batch: Action.JOB_SUBMIT_MANY,
    jobs.cancel: Action.JOB_CANCEL,
    jobs.retry: Action.JOB_RETRY,
    workflows.create: Action.WORKFLOW_SUBMIT,
    workflows.add: Action.WORKFLOW_ADD,
    workflows.cancel: Action.WORKFLOW_CANCEL,
    workflows.retry: Action.WORKFLOW_RETRY,
    queues.pause: Action.QUEUE_PAUSE,
    queues.resume: Action.QUEUE_RESUME,
    letters.replay_all: Action.LETTER_REPLAY_MANY,
    letters.replay: Action.LETTER_REPLAY,
    letters.discard: Action.LETTER_DISCARD,
    deliveries.resend: Action.DELIVERY_RESEND,
    deliveries.enable: Action.ENDPOINT_ENABLE,
    deliveries.test: Action.NOTIFICATION_TEST,
    config.reload: Action.CONFIG_RELOAD,
}
_ANY = "{}"  # stands for a varying segment in the tree; matches itself, as it does all else

ROUTES = (
    Route("POST", "/v1/jobs", Role.SUBMITTER, submit.one, Takes.JOB),
    Route("GET", "/v1/jobs", Role.VIEWER, lists.jobs, asks=JobsQuery),
    Route("POST", "/v1/jobs/batch", Role.SUBMITTER, submit.batch, Takes.BATCH),
    Route("GET", "/v1/jobs/{id}", Role.VIEWER, jobs.show),
    Route("GET", "/v1/jobs/{id}/attempts", Role.VIEWER, jobs.attempts, asks=PageQuery),
    Route("GET", "/v1/jobs/{id}/logs", Role.VIEWER, jobs.logs, asks=PageQuery),
    Route("POST", "/v1/jobs/{id}/cancel", Role.SUBMITTER, jobs.cancel),
    Route("POST", "/v1/jobs/{id}/retry", Role.OPERATOR, jobs.retry),
    Route("POST", "/v1/workflows", Role.SUBMITTER, workflows.create, Takes.WORKFLOW),
    Route("GET", "/v1/workflows", Role.VIEWER, workflows.list_all, asks=WorkflowsQuery),
    Route("GET", "/v1/workflows/{id}", Role.VIEWER, workflows.show),
    Route("POST", "/v1/workflows/{id}/jobs", Role.SUBMITTER, workflows.add, Takes.MORE),
    Route("POST", "/v1/workflows/{id}/cancel", Role.SUBMITTER, workflows.cancel),
    Route("POST", "/v1/workflows/{id}/retry", Role.OPERATOR, workflows.retry, Takes.RETRY),
    Route("GET", "/v1/queues", Role.VIEWER, queues.list_all, asks=PageQuery),
    Route("GET", "/v1/queues/{name}", Role.VIEWER, queues.show),
    Route("POST", "/v1/queues/{name}/pause", Role.OPERATOR, queues.pause),
    Route("POST", "/v1/queues/{name}/resume", Role.OPERATOR, queues.resume),
    Route("GET", "/v1/dead-letters", Role.VIEWER, letters.list_all, asks=LettersQuery),
    Route("GET", "/v1/dead-letters/groups", Role.VIEWER, letters.groups, asks=GroupsQuery),
    Route("POST", "/v1/dead-letters/replay", Role.OPERATOR, letters.replay_all, Takes.REPLAYS),
    Route("POST", "/v1/dead-letters/{id}/replay", Role.OPERATOR, letters.replay, Takes.REPLAY),
    Route("DELETE", "/v1/dead-letters/{id}", Role.OPERATOR, letters.discard),
    Route("GET", "/v1/deliveries", Role.VIEWER, deliveries.list_all, asks=DeliveriesQuery),
    Route("GET", "/v1/deliveries/{id}", Role.VIEWER, deliveries.show),
    Route("POST", "/v1/deliveries/{id}/resend", Role.OPERATOR, deliveries.resend),
    Route("GET", "/v1/endpoints", Role.VIEWER, deliveries.endpoints, asks=PageQuery),
    Route("POST", "/v1/endpoints/enable", Role.OPERATOR, deliveries.enable, Takes.ENDPOINT),
    Route("POST", "/v1/notifications/test", Role.OPERATOR, deliveries.test, Takes.TEST),
    Route("GET", "/v1/audit", Role.ADMIN, audit_log.list_all, asks=AuditQuery),
    Route("GET", "/v1/workers", Role.VIEWER, workers.list_all, asks=PageQuery),
    Route("GET", "/v1/autoscale", Role.VIEWER, autoscale.show, asks=QueuesQuery),
    Route("GET", "/v1/config", Role.ADMIN, config.show),
    Route("POST", "/v1/config/reload", Role.ADMIN, config.reload),
    Route("GET", "/livez", None, health.livez),
    Route("GET", "/readyz", None, health.readyz),
    Route("GET", "/metrics", None, health.metrics),
    Route("GET", "/openapi.json", None, docs.openapi),
    Route("GET", "/docs", None, docs.page),
    Route("GET", "/docs/{file}", None, docs.asset),
    Route("GET", "/problems/{slug}", None, docs.problem),
)


@dataclass(slots=True)
class _Node:
    children: dict[str, "_Node"] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)


class Table:
    """The routes as a tree of path segments; a literal segment goes before a varying one."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for segment in _VARYING.sub(_ANY, route.path).split("/")[1:]:
                node = node.children.setdefault(segment, _Node())
            node.routes[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """The route, and the varying part of the path or ''. Raises 400, 404 and 405."""
        node, varying = self._root, ""
        for segment in _segments(path):
            child = node.children.get(segment)
            if segment and (child is None or segment == _ANY):
                child, varying = node.children.get(_ANY), segment
            if child is None:
                raise not_found()
            node = child
        route = node.routes.get(method)
        if route is not None:
            return route, varying
        if not node.routes:
            raise not_found()
        raise _wrong_method(node.routes)


def _segments(path: str) -> list[str]:
    if not path.startswith("/"):
        raise Problem("bad-request", "ask for a path that begins with /")
    segments = path.split("/")[1:]
    if "%" not in path:
        return segments
    try:
        return [unquote(segment, errors="strict") for segment in segments]
    except UnicodeDecodeError:
        raise Problem("bad-request", "the path isn't UTF-8") from None


def _wrong_method(routes: dict[str, Route]) -> Problem:
    allowed = ", ".join(sorted(routes))
    return Problem(
        "method-not-allowed", f"this path takes {allowed} only", headers={"Allow": allowed}
    )
