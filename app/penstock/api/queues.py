"""Queues at the door: looking at them, pausing and resuming them."""

import asyncio
import re

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.problems import not_found
from penstock.domain.job import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)
_SLICE = 250  # queues compared with a token's globs before others get their turn


async def list_all(ask: Ask) -> web.Response:
    """The queues that the caller may see."""
    found = await ask.door.reads.queues()
    own = []
    for start in range(0, len(found), _SLICE):
        await asyncio.sleep(0)
        of_these = found[start : start + _SLICE]
        own += [views.queue(view) for view in of_these if ask.caller.sees(view.name)]
    return views.page(own)


async def show(ask: Ask) -> web.Response:
    return await _answer(ask, _name(ask))


async def pause(ask: Ask) -> web.Response:
    """Nothing of the queue is started any more; what runs goes on."""
    name = _name(ask)
    await ask.door.changes.pause(name)
    return await _answer(ask, name)


async def resume(ask: Ask) -> web.Response:
    name = _name(ask)
    await ask.door.changes.resume(name)
    return await _answer(ask, name)


async def _answer(ask: Ask, name: str) -> web.Response:
    view = await ask.door.reads.queue(name)
    if view is None:
        raise not_found()
    return views.answer(views.queue(view))


def _name(ask: Ask) -> str:
    if not _NAME.fullmatch(ask.key) or not ask.caller.sees(ask.key):
        raise not_found()
    return ask.key
