"""Queues at the door: looking at them, pausing and resuming them."""

import re

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.entries import entry
from penstock.api.lists import cut, own_queues, page
from penstock.api.problems import Problem, not_found
from penstock.api.queries import Cursors, PageQuery, bad
from penstock.domain.job import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)


async def list_all(ask: Ask) -> web.Response:
    """The queues that the caller may see, by name."""
    query = ask.query
    assert isinstance(query, PageQuery)
    cursors = Cursors("queues", query, ask.caller)
    after = _after(cursors.position())
    names = await own_queues(ask, ask.caller)
    if names is None:
        found = await ask.door.reads.queues(after, query.limit + 1)
    else:
        later = sorted(name for name in names if name > after)
        found = await ask.door.reads.queues_named(later[: query.limit + 1])
    following = cut(query, found, lambda view: str(view.name).encode())
    items = [views.queue(view) for view in found]
    return page(ask, items, cursors.cursor(following) if following else None)


async def show(ask: Ask) -> web.Response:
    return await _answer(ask, _name(ask))


async def pause(ask: Ask) -> web.Response:
    """Nothing of the queue is started any more; what runs goes on."""
    name = _name(ask)
    await ask.door.changes.pause(name, entry(ask, name, name))
    return await _answer(ask, name)


async def resume(ask: Ask) -> web.Response:
    name = _name(ask)
    await ask.door.changes.resume(name, entry(ask, name, name))
    return await _answer(ask, name)


async def _answer(ask: Ask, name: str) -> web.Response:
    view = await ask.door.reads.queue(name)
    if view is None:
        raise not_found()
    return views.answer(views.queue(view))


def _after(position: bytes | None) -> str:
    name = (position or b"").decode("ascii", "replace")
    if name and not _NAME.fullmatch(name):
        raise bad("cursor", "names no queue")
    return name


def _name(ask: Ask) -> str:
    if not _NAME.fullmatch(ask.key):
        raise Problem("not-found", f"no queue has such a name: they match {NAME_PATTERN}")
    if not ask.caller.sees(ask.key):
        raise not_found()
    return ask.key
