"""One request, let in by the porter, on its way to its handler."""

from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from penstock.api.bodies import Body
from penstock.api.door import Door
from penstock.api.room import Share
from penstock.domain.audit_log import Action
from penstock.domain.caller import Caller

NOBODY = Caller("", frozenset())  # who asks where no token is needed


@dataclass(frozen=True, slots=True)
class Ask:
    """`key` is the part of the path that varies: an id or a name, decoded but not checked.
    `query` is what the route asks for, `Route.asks`; `room` is what the answer may take."""

    door: Door
    request: web.BaseRequest
    caller: Caller
    key: str
    body: Body
    room: Share
    query: BaseModel | None = None
    request_id: str = ""
    action: Action | None = None  # what the audit log calls it; None: it changes nothing
