"""Who may call what, on whose queue: every route by every role, over HTTP against a replica.

`ROWS` says what api.md promises; `ROUTES` is what there is. A route without a row fails, and so
does a row without a route. To add a row: who may call it; `answers`, if it isn't 200; `foreign`,
where the call names a job or a queue; `lists`, where the answer holds several; `path`, where what
varies in it is something else.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import aiohttp
import asyncpg
import jwt
import orjson

from penstock.api.routes import ROUTES
from penstock.domain import ids
from penstock.domain.caller import Role
from penstock.server import Replica
from tests.support.api import Api
from tests.support.letterbox import Letterbox, opened
from tests.support.replica import SECRET

Call = tuple[str, str]

OWN, FOREIGN = "own-queue", "foreign-queue"
SCOPE = ["own-*", "other"]
UNKNOWN_ID = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"

ANYBODY = None  # also without a token
ADMINS = frozenset({Role.ADMIN})
OPERATORS = ADMINS | {Role.OPERATOR}
SUBMITTERS = OPERATORS | {Role.SUBMITTER}
VIEWERS = SUBMITTERS | {Role.VIEWER}
WORKERS = ADMINS | {Role.WORKER}


def job(queue: str) -> dict[str, Any]:
    return {"kind": "echo", "queue": queue, "delay_s": 3600}


def batch(queue: str) -> dict[str, Any]:
    return {"jobs": [job(OWN), job(queue)]}


def workflow(queue: str) -> dict[str, Any]:
    jobs = [{"name": "own", **job(OWN)}, {"name": "other", "depends_on": ["own"], **job(queue)}]
    return {"name": queue, "jobs": jobs}


def more(_queue: str) -> dict[str, Any]:
    return {"jobs": [{"name": "more", **job(OWN)}]}


def wanted(queue: str) -> dict[str, Any]:
    return {"filter": {"queue": [queue]}, "dry_run": True}


def dying(queue: str) -> dict[str, Any]:
    return {"kind": "fail", "queue": queue, "payload": {"retryable": False}}


def nowhere(_queue: str) -> dict[str, Any]:
    return {"endpoint": "nowhere"}


def probe(_queue: str) -> dict[str, Any]:
    return {"webhook": "https://example.invalid/"}


@dataclass(frozen=True)
class Row:
    """What a call answers, and to whom."""

    may: frozenset[Role] | None
    answers: int = 200  # to one who may
    foreign: int | None = None  # to him, of a job or queue that his token doesn't open
    lists: bool = False  # the answer holds what is his, and nothing else
    body: Callable[[str], Any] | None = None  # what to send, by queue
    ended: bool = False  # the job that the path names must have ended
    dead: bool = False  # the job must be dead
    told: bool = False  # the path names a delivery that tells of the job
    names_own: bool = False  # what is sent, or meant, has to do with the own queue in any case
    path: str | None = None  # to call, where what varies is neither a job nor a queue


ROWS: Mapping[Call, Row] = {
    ("POST", "/v1/jobs"): Row(SUBMITTERS, 201, foreign=403, body=job),
    ("POST", "/v1/jobs/batch"): Row(SUBMITTERS, 201, foreign=403, body=batch, names_own=True),
    ("GET", "/v1/jobs"): Row(VIEWERS, lists=True),
    ("GET", "/v1/jobs/{id}"): Row(VIEWERS, foreign=404),
    ("GET", "/v1/jobs/{id}/attempts"): Row(VIEWERS, foreign=404),
    ("GET", "/v1/jobs/{id}/logs"): Row(VIEWERS, foreign=404),
    ("POST", "/v1/jobs/{id}/cancel"): Row(SUBMITTERS, foreign=404),
    ("POST", "/v1/jobs/{id}/retry"): Row(OPERATORS, foreign=404, ended=True),
    ("POST", "/v1/workflows"): Row(SUBMITTERS, 201, foreign=403, body=workflow, names_own=True),
    ("GET", "/v1/workflows"): Row(VIEWERS, lists=True),
    ("GET", "/v1/workflows/{id}"): Row(VIEWERS, foreign=404),
    ("POST", "/v1/workflows/{id}/jobs"): Row(SUBMITTERS, 201, foreign=404, body=more),
    ("POST", "/v1/workflows/{id}/cancel"): Row(SUBMITTERS, foreign=404),
    ("POST", "/v1/workflows/{id}/retry"): Row(OPERATORS, foreign=404, ended=True),
    ("GET", "/v1/queues"): Row(VIEWERS, lists=True),
    ("GET", "/v1/queues/{name}"): Row(VIEWERS, foreign=404),
    ("POST", "/v1/queues/{name}/pause"): Row(OPERATORS, foreign=404),
    ("POST", "/v1/queues/{name}/resume"): Row(OPERATORS, foreign=404),
    ("GET", "/v1/dead-letters"): Row(VIEWERS, lists=True),
    ("GET", "/v1/dead-letters/groups"): Row(VIEWERS),
    ("POST", "/v1/dead-letters/replay"): Row(OPERATORS, body=wanted),
    ("POST", "/v1/dead-letters/{id}/replay"): Row(OPERATORS, foreign=404, dead=True),
    ("DELETE", "/v1/dead-letters/{id}"): Row(OPERATORS, foreign=404, dead=True),
    ("GET", "/v1/deliveries"): Row(VIEWERS),
    ("GET", "/v1/deliveries/{id}"): Row(VIEWERS, foreign=404, told=True),
    ("POST", "/v1/deliveries/{id}/resend"): Row(OPERATORS, foreign=404, told=True),
    ("GET", "/v1/endpoints"): Row(VIEWERS),
    ("POST", "/v1/endpoints/enable"): Row(OPERATORS, 404, body=nowhere),
    ("POST", "/v1/notifications/test"): Row(OPERATORS, 202, body=probe),
    ("GET", "/v1/audit"): Row(ADMINS),
    ("GET", "/v1/workers"): Row(VIEWERS),
    ("GET", "/v1/autoscale"): Row(VIEWERS),
    ("GET", "/v1/config"): Row(ADMINS),
    ("POST", "/v1/config/reload"): Row(ADMINS),
    ("GET", "/livez"): Row(ANYBODY),
    ("GET", "/readyz"): Row(ANYBODY),
    ("GET", "/metrics"): Row(ANYBODY),
    ("GET", "/openapi.json"): Row(ANYBODY),
    ("GET", "/docs"): Row(ANYBODY),
    ("GET", "/docs/{file}"): Row(ANYBODY, path="/docs/init.js"),
    ("GET", "/problems/{slug}"): Row(ANYBODY, path="/problems/not-found"),
}


@dataclass(frozen=True)
class Asker:
    """One who calls. `roles` is None for one without a token, `scope` for one with all queues."""

    roles: tuple[str, ...] | None
    scope: list[str] | None = None

    def headers(self) -> dict[str, str]:
        if self.roles is None:
            return {}
        claims: dict[str, Any] = {"sub": "ada", "exp": int(time.time()) + 600}
        claims["roles"] = list(self.roles)
        if self.scope is not None:
            claims["queues"] = self.scope
        return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}

    def expects(self, row: Row, queue: str) -> int:
        """The status that the contract promises him."""
        if row.may is ANYBODY:
            return row.answers
        if self.roles is None:
            return 401
        if row.may.isdisjoint(self.roles):
            return 403
        is_foreign = not self.opens(queue) or (row.names_own and not self.opens(OWN))
        return row.foreign if is_foreign and row.foreign is not None else row.answers

    def opens(self, queue: str) -> bool:
        return self.scope is None or any(fnmatchcase(queue, glob) for glob in self.scope)


ASKERS = [
    Asker(None),
    *(
        Asker(roles, scope)
        for roles in ((), ("astronaut",), *((role.value,) for role in Role))
        for scope in (SCOPE, None)
    ),
    *(Asker(("admin",), scope) for scope in ([], ["*"], ["[of]*-queue"])),
]


FREE = Asker(("admin",))


def gaps(routes: Iterable[Call], rows: Iterable[Call]) -> list[str]:
    """What keeps the matrix from being whole, each with what to do."""
    there, told = set(routes), set(rows)
    return [
        f"{method} {path} has no row: add one to ROWS in tests/api/test_matrix.py, with who may "
        "call it by api.md and what it answers of a job or queue of others"
        for method, path in sorted(there - told)
    ] + [
        f"{method} {path} has a row but is no route: take the row out of ROWS, or add the route"
        for method, path in sorted(told - there)
    ]


class Stage:
    """A replica with an own and a foreign queue, and jobs as they are needed."""

    def __init__(
        self, url: str, admin: Api, session: aiohttp.ClientSession, box: Letterbox
    ) -> None:
        self._url = url
        self._admin = admin
        self._session = session
        self._box = box

    async def check(self, call: Call, row: Row, asker: Asker, queue: str) -> str | None:
        """Makes one call; what is wrong about its answer, or None."""
        method, path = call
        thing, place = await self.thing(path, row, queue)
        before = await self._standing(thing)
        body = row.body(queue) if row.body else None
        async with self._session.request(
            method, self._url + place, json=body, headers=asker.headers()
        ) as response:
            status, text = response.status, await response.text()
        told = f"{method} {path} by {asker} in {queue}"
        expected = asker.expects(row, queue)
        if status != expected:
            return f"{told}: {status} instead of {expected}: {text[:200]}"
        if status >= 400 and await self._standing(thing) != before:
            return f"{told}: refused, but done"
        if status < 400 and row.lists:
            return self._listed(told, asker, text)
        return None

    async def thing(self, path: str, row: Row, queue: str) -> tuple[str | None, str]:
        """The path of what the call is about, and that of the call."""
        if "{name}" in path:
            return f"/v1/queues/{queue}", path.replace("{name}", queue)
        if row.told:
            id_ = await self._admin.submit(**job(queue))
            told = await self._box.over(job_id=ids.parse(id_))
            return f"/v1/jobs/{id_}", path.replace("{id}", ids.text(told))
        if row.dead:
            id_ = await self._admin.submit(**dying(queue))
            await self._admin.ended(id_)
            return f"/v1/jobs/{id_}", path.replace("{id}", id_)
        if path.startswith("/v1/jobs/{id}"):
            id_ = await self._admin.submit(**job(queue))
            if row.ended:
                await self._admin.call("POST", f"/v1/jobs/{id_}/cancel")
            return f"/v1/jobs/{id_}", path.replace("{id}", id_)
        if path.startswith("/v1/workflows/{id}"):
            _, made = await self._admin.call("POST", "/v1/workflows", workflow(queue))
            thing = f"/v1/workflows/{made['id']}"
            if row.ended:
                await self._admin.call("POST", f"{thing}/cancel")
            return thing, path.replace("{id}", made["id"])
        asked = row.path or path
        assert "{" not in asked, f"say in the row of {path} which path to call (Row.path)"
        return None, asked

    async def _standing(self, thing: str | None) -> Any:
        """What a call could have changed."""
        view = await self._admin.get(thing) if thing else {}
        return [view.get(name) for name in ("state", "attempt", "cancel_reason", "paused", "jobs")]

    def _listed(self, told: str, asker: Asker, text: str) -> str | None:
        items = orjson.loads(text)["items"]
        found = {queue for queue in (OWN, FOREIGN) if any(queue in item.values() for item in items)}
        wanted = {queue for queue in (OWN, FOREIGN) if asker.opens(queue)}
        return None if found == wanted else f"{told}: lists {found} instead of {wanted}"


async def test_every_role_gets_what_the_contract_says_of_every_call(
    replica: Replica, api: Api, dsn: str
) -> None:
    calls = [(route.method, route.path) for route in ROUTES]
    assert not gaps(calls, ROWS), "\n".join(gaps(calls, ROWS))
    for queue in (OWN, FOREIGN):
        await api.submit(**job(queue))
        await api.ended(await api.submit(**dying(queue)))
    async with aiohttp.ClientSession() as session, opened(dsn) as box:
        stage = Stage(replica.url, api, session, box)
        cells = itertools.product(calls, ASKERS, (OWN, FOREIGN))
        wrong = [await stage.check(call, ROWS[call], asker, queue) for call, asker, queue in cells]
    assert not any(wrong), "\n".join(text for text in wrong if text)


async def test_what_is_foreign_is_answered_as_what_is_unknown(
    replica: Replica, api: Api, dsn: str
) -> None:
    """For every call with something in its path: else one could find out what others have."""
    admin = Asker(("admin",), SCOPE).headers()
    async with aiohttp.ClientSession() as session, opened(dsn) as box:
        stage = Stage(replica.url, api, session, box)
        await api.submit(**job(FOREIGN))
        checked = 0
        for (method, path), row in ROWS.items():
            if row.foreign != 404:
                continue
            _, place = await stage.thing(path, row, FOREIGN)
            unknown = path.replace("{id}", UNKNOWN_ID).replace("{name}", f"{FOREIGN}-unknown")
            body = row.body(FOREIGN) if row.body else None
            told = []
            for one in (place, unknown):
                async with session.request(
                    method, replica.url + one, json=body, headers=admin
                ) as answer:
                    told.append((answer.status, await answer.read(), sorted(answer.headers)))
            assert told[0] == told[1], (method, path)
            assert told[0][0] == 404
            checked += 1
        assert checked > 15


async def test_no_list_holds_anything_foreign(replica: Replica, api: Api, dsn: str) -> None:
    async with aiohttp.ClientSession() as session, opened(dsn) as box:
        held: dict[str, list[str]] = {}
        for queue in (OWN, FOREIGN):
            dead = await api.submit(**dying(queue))
            await api.ended(dead)
            alone = {"name": queue, "jobs": [{"name": "a", **job(queue)}]}
            _, flow = await api.call("POST", "/v1/workflows", alone)
            told = await box.over(job_id=ids.parse(dead))
            held[queue] = [dead, flow["id"], ids.text(told), queue]
        calls = [(r.method, r.path) for r in ROUTES if r.method == "GET" and "{" not in r.path]
        seen = dict.fromkeys((OWN, FOREIGN), 0)
        for asker, (_, path) in itertools.product((Asker(("admin",), SCOPE), FREE), calls):
            if ROWS["GET", path].may is ANYBODY:
                continue
            url = f"{replica.url}{path}"
            async with session.get(url, headers=asker.headers()) as answer:
                text = await answer.text()
                assert answer.status == 200, (path, text)
            for queue in (OWN, FOREIGN):
                found = [one for one in held[queue] if one in text]
                seen[queue] += len(found) if asker is FREE else 0
                assert asker.opens(queue) or not found, (path, text)
        assert seen[FOREIGN] >= 4  # who may sees them, so there was something to hide


async def test_a_refused_submission_leaves_nothing(replica: Replica, dsn: str) -> None:
    async with aiohttp.ClientSession() as session:
        for asker, call in itertools.product(ASKERS, ROWS):
            row = ROWS[call]
            if row.body is None or asker.expects(row, FOREIGN) < 400:
                continue
            async with session.request(
                call[0], replica.url + call[1], json=row.body(FOREIGN), headers=asker.headers()
            ) as response:
                assert response.status >= 400
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM jobs") == 0
    finally:
        await connection.close()


def test_a_route_without_a_row_and_a_row_without_a_route_are_told() -> None:
    whole = [("GET", "/a"), ("POST", "/a")]
    assert gaps(whole, whole) == []
    (lacking,) = gaps([*whole, ("GET", "/new")], whole)
    assert "GET /new has no row: add one to ROWS in tests/api/test_matrix.py" in lacking
    (left,) = gaps(whole[:1], whole)
    assert left.startswith("POST /a has a row but is no route")
