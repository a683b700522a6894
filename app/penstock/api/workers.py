"""Workers at the door: who runs jobs.

A caller of some queues sees every worker and how busy it is, for they serve all; but of the queues
that a worker serves only what the caller's own globs cover, and "*".
"""

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.lists import cut, page
from penstock.api.queries import Cursors, PageQuery
from penstock.store.lists import HIGHEST

_ID_BYTES = 16


async def list_all(ask: Ask) -> web.Response:
    """Workers, newest first."""
    query = ask.query
    assert isinstance(query, PageQuery)
    cursors = Cursors("workers", query, ask.caller)
    below = cursors.position(_ID_BYTES) or HIGHEST
    found = await ask.door.reads.workers(below, query.limit + 1)
    following = cut(query, found, lambda view: bytes(view.id))
    items = [
        views.worker(view, [q for q in view.queues if q == "*" or ask.caller.sees(q)])
        for view in found
    ]
    return page(ask, items, cursors.cursor(following) if following else None)
