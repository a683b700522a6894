"""Jobs at the door: looking at, cancelling and retrying them. Submitting them is in `submit.py`."""

import struct

from aiohttp import web

from penstock.api import prefer, views
from penstock.api.ask import Ask
from penstock.api.entries import entry
from penstock.api.lists import cut, page
from penstock.api.problems import not_found
from penstock.api.queries import Cursors, PageQuery
from penstock.api.waiting import until_over
from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.job import TERMINAL
from penstock.domain.letter import Renewal
from penstock.domain.view import JobView

_NUMBER = struct.Struct(">i")  # positions in lists: an attempt,
_LINE = struct.Struct(">ii")  # and a line of one


async def show(ask: Ask) -> web.Response:
    """The job as it stands; with `Prefer: wait=N` when it is over or the time is up."""
    wait_s = prefer.wait_s(ask.request.headers)
    view = await own_job(ask)
    if wait_s and view.state not in TERMINAL:
        view = await end_of(ask, view.id, wait_s) or view
    ask.room.foresee(view.size)
    answer = views.answer(views.job(view))
    answer.headers.update(prefer.applied(wait_s))
    return answer


async def attempts(ask: Ask) -> web.Response:
    """What has been tried, oldest first."""
    query = ask.query
    assert isinstance(query, PageQuery)
    cursors = Cursors(f"attempts {ask.key}", query, ask.caller)
    (after,) = _NUMBER.unpack(cursors.position(_NUMBER.size) or _NUMBER.pack(0))
    job = await own_job(ask)
    found = await ask.door.reads.attempts(job.id, after, query.limit + 1)
    following = cut(query, found, lambda view: _NUMBER.pack(view.attempt))
    items = [views.attempt(one) for one in found]
    return page(ask, items, cursors.cursor(following) if following else None)


async def logs(ask: Ask) -> web.Response:
    """What the handler logged, oldest first."""
    query = ask.query
    assert isinstance(query, PageQuery)
    cursors = Cursors(f"logs {ask.key}", query, ask.caller)
    attempt, seq = _LINE.unpack(cursors.position(_LINE.size) or _LINE.pack(0, 0))
    job = await own_job(ask)
    found = await ask.door.reads.logs(job.id, (attempt, seq), query.limit + 1)
    following = cut(query, found, lambda view: _LINE.pack(view.attempt, view.seq))
    items = [views.log_line(line) for line in found]
    return page(ask, items, cursors.cursor(following) if following else None)


async def cancel(ask: Ask) -> web.Response:
    job = await own_job(ask)
    ask.room.foresee(job.size)  # before it's done: then it can't be refused any more
    await ask.door.changes.cancel(job.id, entry(ask, ids.text(job.id), job.queue))
    return views.answer(views.job(await own_job(ask)))


async def retry(ask: Ask) -> web.Response:
    """A new life for a job that is dead, cancelled or skipped."""
    job = await own_job(ask)
    ask.room.foresee(job.size)
    told = entry(ask, ids.text(job.id), job.queue)
    await ask.door.changes.retry(job.id, Renewal(by=ask.caller.sub, entry=told))
    return views.answer(views.job(await own_job(ask)))


async def own_job(ask: Ask) -> JobView:
    """The job that the path names; one in a queue that the caller doesn't see isn't there."""
    id_ = ids.parse(ask.key)
    view = await ask.door.reads.job(id_) if id_ is not None else None
    if view is None or not ask.caller.sees(view.queue):
        raise not_found()
    return view


async def end_of(ask: Ask, id_: JobId, wait_s: float) -> JobView | None:
    """The job when it is over, or as it stands when the time is up. Raises Overloaded
    where too many wait already."""
    return await until_over(ask, id_, wait_s, ask.door.reads.job, _is_over)


def _is_over(view: JobView) -> bool:
    return view.state in TERMINAL
