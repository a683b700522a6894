"""The audit log at the door: who did what, when, from where.

For admins; one whose token opens some queues only sees what is about those. Written elsewhere: see
`entries.py`.
"""

from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.lists import page, queues_among
from penstock.api.queries import AuditQuery, Cursors, one_of
from penstock.clock import rfc3339
from penstock.domain import ids
from penstock.domain.audit_log import Action, EntryView, object_of
from penstock.store.audit_log import EntryFilter
from penstock.store.lists import LOWEST


async def list_all(ask: Ask) -> web.Response:
    """Entries, the newest first."""
    query = ask.query
    assert isinstance(query, AuditQuery)
    cursors = Cursors("audit", query, ask.caller)
    place = cursors.place()
    queues, actions = await queues_among(ask, query.queue), _actions(query)
    if (queues is not None and not queues) or (actions is not None and not actions):
        return views.page([])
    of = EntryFilter(
        actors=one_of(query.actor),
        actions=actions,
        objects=one_of([_id(text) for text in query.object_id]),
        queues=queues,
        outcomes=one_of(query.outcome),
        requests=one_of(query.request_id),
    )
    if query.created_after is not None:
        of = replace(of, since=query.created_after)
    if query.created_before is not None:
        of = replace(of, below=(query.created_before, LOWEST))
    if place is not None:
        of = replace(of, below=min(of.below, place))
    found = await ask.door.audit_log.page(of, query.limit)
    return page(ask, [_told(one) for one in found.items], cursors.behind(found.next))


def _actions(query: AuditQuery) -> list[str] | None:
    """The actions that both filters let through."""
    if not query.action and not query.object:
        return None
    wanted = set(query.action) or set(Action)
    return sorted(one for one in wanted if not query.object or one.object in query.object)


def _id(text: str) -> str:
    """Ids in the form in which they are stored."""
    id_ = ids.parse(text)
    return text if id_ is None else ids.text(id_)


def _told(view: EntryView) -> dict[str, Any]:
    return {
        "id": ids.text(view.id),
        "created_at": rfc3339(view.at),
        "actor": view.actor,
        "roles": view.roles.split(",") if view.roles else [],
        "action": view.action,
        "object": object_of(view.action),
        "object_id": view.object_id,
        "queue": view.queue,
        "outcome": view.outcome,
        "address": view.address,
        "request_id": view.request_id,
        "details": orjson.Fragment(view.details) if view.details else {},
    }
