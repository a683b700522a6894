"""What the document says of the audit log: see `openapi_calls` and `shapes`."""

from collections.abc import Mapping
from typing import Annotated, Any

from typing_extensions import TypedDict

from penstock.api import audit_log
from penstock.api.fields import Name, says
from penstock.api.openapi_parts import Call, Gives
from penstock.api.routes import Handler
from penstock.api.shapes import Id, NextCursor, Time
from penstock.domain.audit_log import Action, EntryOutcome, Object
from penstock.domain.caller import Role


class AuditEntry(TypedDict):
    """Somebody did something."""

    id: Annotated[Id, says("Its own.", "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0ab")]
    created_at: Annotated[Time, says("When, by PostgreSQL.", "2026-11-18T11:06:41.207Z")]
    actor: Annotated[
        str, says("The token's `sub`, or what acted by itself, as `signal` or `file`.", "ada")
    ]
    roles: Annotated[list[Role], says("Of the token.", ["operator"])]
    action: Annotated[Action, says("What was done.", "queue.pause")]
    object: Annotated[Object, says("The sort of thing that it was done to.", "queue")]
    object_id: Annotated[
        str | None,
        says("Which one: an id, a queue's name, an endpoint's short id. Null: several.", "mail"),
    ]
    queue: Annotated[
        Name | None, says("The queue that it is about. Null: none, or several.", "mail")
    ]
    outcome: Annotated[
        EntryOutcome,
        says("`done`, or `refused`: the caller may not (403), and nothing was changed.", "done"),
    ]
    address: Annotated[str | None, says("From where.", "192.0.2.7")]
    request_id: Annotated[
        str | None, says("`X-Request-Id` of the request.", "5f0c3d0a1f7e4c539a3e0f1d")
    ]
    details: Annotated[
        dict[str, Any],
        says(
            "What depends on the action: `before` and `after`, how many `jobs`, the `filter` and "
            "how many were `replayed`. Never a payload.",
            {"before": {"paused": False}, "after": {"paused": True}},
        ),
    ]


class AuditLog(TypedDict):
    """A page of the audit log, the newest entry first."""

    items: list[AuditEntry]
    next_cursor: NextCursor


CALLS_OF_AUDIT_LOG: Mapping[Handler, Call] = {
    audit_log.list_all: Call(
        "listAudit",
        "audit log",
        "Who did what",
        "One entry for each call that changed something, written together with the change: a "
        "submission (one entry for the request, however many jobs), a cancel, a pause. A replay of "
        "many leaves one for each of its transactions, of 500 dead letters at most. Calls refused "
        "with 403 are there too, some a minute. Tokens that open some queues see what is about "
        "those. A page looks at 20,000 entries at most, so it may be short and still have a "
        "`next_cursor`: go on until that is null.",
        {200: Gives("A page of the audit log.", AuditLog)},
    ),
}
