"""Lists at the door: `GET /v1/jobs`, and what all lists share.

In: a parsed query. Out: a page, with the cursor and the link of the next. Always holds: a list
shows only queues that the caller sees, and says nothing of others.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.queries import Cursors, JobsQuery, PageQuery, one_of
from penstock.domain import ids
from penstock.domain.caller import Caller
from penstock.domain.ids import JobId
from penstock.store.lists import HIGHEST, LOWEST, JobFilter

_GLOB_SIGNS = frozenset("*?[")
_ID_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_MAX = (1 << 48) - 1


async def jobs(ask: Ask) -> web.Response:
    """Jobs, newest first, without payloads and results unless asked for."""
    query = ask.query
    assert isinstance(query, JobsQuery)
    cursors = Cursors("jobs", query, ask.caller)
    position = cursors.position(_ID_BYTES)
    queues = await queues_among(ask, query.queue)
    if queues is not None and not queues:
        return views.page([])
    included = set(query.include.split(",")) if query.include else set()
    found = await ask.door.lists.jobs(
        _filter(query, queues, position), query.limit, whole=bool(included)
    )
    items = [views.listed_job(view, included) for view in found.items]
    return page(ask, items, None if found.next is None else cursors.cursor(found.next))


def page(
    ask: Ask, items: Sequence[Any], cursor: str | None, more: Mapping[str, Any] | None = None
) -> web.Response:
    """A page, with a link to the next one: a relative reference, whatever host was asked. `more`:
    what else is to be said of it."""
    answer = views.page(items, cursor, more)
    if cursor is not None:
        path, _, query = ask.request.raw_path.partition("?")
        kept = [pair for pair in query.split("&") if pair and not pair.startswith("cursor=")]
        target = "&".join([*kept, f"cursor={cursor}"])
        # Only what RFC 3986 lets stand, whatever the caller's own reference had in it.
        answer.headers["Link"] = f'<{quote(path, _PATH)}?{quote(target, _QUERY)}>; rel="next"'
    return answer


_PATH = "/%:@!$&'()*+,;=~"
_QUERY = _PATH + "?"


def cut(query: PageQuery, found: list[Any], position: Callable[[Any], bytes]) -> bytes | None:
    """Cuts one more than a page to a page; where the next one begins, if there is one."""
    if len(found) <= query.limit:
        return None
    del found[query.limit :]
    return position(found[-1])


def _filter(query: JobsQuery, queues: Sequence[str] | None, position: bytes | None) -> JobFilter:
    below = HIGHEST if position is None else JobId(position)
    if query.created_before is not None:
        below = min(below, _first_id(query.created_before))
    after = query.created_after
    return JobFilter(
        queues=queues,
        kinds=one_of(query.kind),
        tags=one_of(query.tag),
        states=frozenset(query.state) or None,
        since=LOWEST if after is None else _first_id(after),
        below=below,
        workflow=None if query.workflow_id is None else ids.parse(query.workflow_id),
    )


async def queues_among(ask: Ask, names: Sequence[str]) -> list[str] | None:
    """The queues to look in where these are asked for; None for all of them."""
    caller, asked = ask.caller, one_of(names)
    if asked is not None:
        return [queue for queue in asked if caller.sees(queue)]
    return await own_queues(ask, caller)


async def own_queues(ask: Ask, caller: Caller) -> list[str] | None:
    """The queues that the caller's globs stand for; None for all of them."""
    if caller.queues is None:
        return None
    if not any(_GLOB_SIGNS & set(glob) for glob in caller.queues):
        return sorted(set(caller.queues))
    names, own, pace = await ask.door.reads.queue_names(), list[str](), ask.door.pace
    async with pace:  # ten thousand names take 60 ms
        for name in names:
            if caller.sees(name):
                own.append(name)
            if pace.is_over:
                await pace.breathe()
    return own


def _first_id(at: datetime) -> JobId:
    """The lowest id that a job created then can have; what is between milliseconds is rounded up,
    as ids have whole ones."""
    ms = -((_EPOCH - at) // timedelta(milliseconds=1))
    return JobId(min(max(ms, 0), _MS_MAX).to_bytes(6, "big") + bytes(10))
