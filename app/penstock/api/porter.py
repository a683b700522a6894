"""The porter: the one wrapper around every request.

In: a request as aiohttp parsed it. Out: always an answer, with a request id. It finds the route,
checks the token and the role, calls the handler, and turns whatever is raised into a problem
document. Always holds: an unexpected exception is logged here with its traceback and answered
without its text; nothing of a request is logged otherwise.
"""

import random
import re
import secrets
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from aiohttp import HttpVersion10, HttpVersion11, web
from pydantic import BaseModel

from penstock import clock
from penstock.api import entries, openapi, problems, queries, rates, requests, splitting
from penstock.api.ask import NOBODY, Ask
from penstock.api.auth import KeyMissing
from penstock.api.bodies import (
    NOTHING,
    Terms,
    expect_nothing,
    jobs_about,
    read_object,
    read_optional,
)
from penstock.api.door import Door
from penstock.api.gate import PLACE, Gate, Traffic
from penstock.api.problems import Problem
from penstock.api.queries import JobsQuery
from penstock.api.room import SMALL_MAX_BYTES, Room, Share
from penstock.api.routes import ROUTES, Route, Table, Takes
from penstock.domain import graph
from penstock.domain.caller import Caller
from penstock.store.lists import PAGE_BYTES
from penstock.telemetry import scope, tracing
from penstock.telemetry.families import OTHER
from penstock.telemetry.logs import get_logger

log = get_logger(__name__)

_IDS = random.Random(secrets.token_bytes(32))  # unique, not secret: no call of the kernel for each
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_VERSIONS = (HttpVersion11, HttpVersion10)
_NOTHING_MAX_BYTES = 1024  # of the body of a call that takes none: an empty object with spaces
_UNROUTED = "none"  # the metric's route for paths that don't exist
_READ = {  # else read_object
    Takes.NOTHING: expect_nothing,
    **{takes: read_optional for takes in Takes if takes.is_optional},
}
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_COUNTS = "/metrics"  # its text is made anew for each who asks, without a token
_HANGS_UP = frozenset({"request-timeout", "bad-request"})  # what comes next can't be trusted


# What a request's answer takes; whoever writes the answer gives it back.
ANSWER = web.RequestKey("answer", Share)


class Porter:
    """Answers requests for one door."""

    def __init__(self, door: Door) -> None:
        self._served = tuple(r for r in ROUTES if door.serves_api or r.role is None)
        self._table = Table(self._served)
        self.use(door)
        self.gate = Gate(door.limits, door.backlog, door.metrics)
        self._room = Room(door.limits.bodies_max_bytes)
        self._limiter = door.limiter
        self._answers = Room(door.limits.answers_max_bytes, "sent")

    def use(self, door: Door) -> None:
        """This one counts for requests that come from now on, but for the limits of the gate and
        of the rooms."""
        self._door = replace(door, document=openapi.written(self._served, door.limits))
        self._terms = _terms(door)

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answers one request; raises nothing but cancellation."""
        about = scope.Request(_request_id(request), _UNROUTED)
        entered = scope.enter(about)
        span = requests.begun(request, about) if tracing.is_on() else None
        try:
            response = await self._served_by(request, about)
            if span is not None:
                requests.ended(span, request, about, response)
            return response
        finally:
            if span is not None:
                span.give_up()
            scope.leave(entered)

    async def _served_by(self, request: web.BaseRequest, about: scope.Request) -> web.Response:
        began = clock.monotonic()
        ask: Ask | None = None
        try:
            _check_framing(request)
            path, _, query = request.raw_path.partition("?")
            route, key = self._table.find(request.method, _clean(path, query))
            about.route = route.path
            if PLACE not in request:
                self.gate.check(route.traffic)  # at once, and again when it has come in whole
            caller = await self._caller(request, route)
            about.caller = caller.sub
            room = request[ANSWER] = self._answers.share(caller.sub)
            ask = Ask(
                *(self._door, request, caller, key, NOTHING, room),
                request_id=about.request_id,
                action=route.action,
            )
            if route.role is not None and not caller.may(route.role):
                raise Problem("forbidden", f"this needs the role {route.role}")
            if self._limiter is not None and self._limiter.rules:
                await rates.enter(self._door, request, route.traffic, caller)
            if (asked := _asked(route, query)) is not None:
                ask = replace(ask, query=asked)
            response = await self._answer(ask, route)
            _settle(room, route, response)
        except Exception as error:
            response = _refusal(request, error)
            if ask is not None and ask.action and response.status == HTTPStatus.FORBIDDEN:
                self._door.refusals.put(entries.refusal(ask))
            if ANSWER in request:
                request[ANSWER].give_back()
        self._count(about.route, request, response, clock.monotonic() - began)
        rates.tell(request, response)
        seal(response, about.request_id)
        return response

    def _count(
        self, place: str, request: web.BaseRequest, response: web.Response, took_s: float
    ) -> None:
        """A request that asked to wait says nothing of how quick we are."""
        metrics, status = self._door.metrics, response.status
        method = request.method if request.method in _METHODS else OTHER
        metrics.http_requests(place, method, str(status)).inc()
        if "wait" not in request.headers.get("Prefer", ""):
            metrics.http_seconds(place, method, f"{status // 100}xx").observe(took_s)

    async def _caller(self, request: web.BaseRequest, route: Route) -> Caller:
        """Who asks. Raises 401. Waits only where the token's key may have been published since."""
        if route.role is None:
            return NOBODY
        try:
            return self._door.verifier.caller(request.headers)
        except KeyMissing:
            if PLACE in request:  # else strangers could take the places of all others
                request[PLACE].leave()
                del request[PLACE]
            return await self._door.verifier.caller_of_late(request.headers)

    async def _answer(self, ask: Ask, route: Route) -> web.Response:
        """Reads the body, while there is room for it, and calls the handler."""
        request = ask.request
        if request.method == "GET":
            self._enter(request, route)
            if isinstance(ask.query, JobsQuery) and ask.query.include:
                ask.room.foresee(PAGE_BYTES)
            return await route.handler(ask)
        share = self._room.share(ask.caller.sub)
        try:
            read = _READ.get(route.takes, read_object)
            enter = partial(self._enter, request, route)
            body = await read(request, self._terms[route.takes], share, enter)
            if route.takes is Takes.JOB:  # which is told in full
                ask.room.foresee(share.taken)
            with_body = Ask(
                *(ask.door, request, ask.caller, ask.key, body, ask.room, ask.query),
                *(ask.request_id, ask.action),
            )
            return await route.handler(with_body)
        finally:
            share.give_back()

    def _enter(self, request: web.BaseRequest, route: Route, raw: bytes = b"") -> None:
        """`raw`: its body, which has just come in whole; nothing of it has been decoded."""
        if PLACE not in request:
            jobs = jobs_about(raw) if route.traffic is Traffic.BATCH else 1
            request[PLACE] = self.gate.enter(route.traffic, jobs)


def _terms(door: Door) -> dict[Takes, Terms]:
    limits = door.limits
    crowd = limits.containers_max
    one = Terms(limits.body_max_bytes, limits.body_timeout_s, crowd, door.pace)
    items = splitting.Limits(limits.body_max_bytes, crowd, limits.batch_jobs_max)
    many = replace(one, max_bytes=limits.batch_body_max_bytes, items=items)
    graph_ = replace(many, items=replace(items, items_max=graph.JOBS_MAX))
    return {
        **dict.fromkeys(Takes, one),
        Takes.NOTHING: replace(one, max_bytes=_NOTHING_MAX_BYTES),
        Takes.BATCH: many,
        Takes.WORKFLOW: graph_,
        Takes.MORE: graph_,
    }


def _settle(room: Share, route: Route, response: web.Response) -> None:
    """Counts what the answer came to. The documents are the same bytes for all who ask."""
    size = len(response.body) if isinstance(response.body, bytes) else 0
    if size > SMALL_MAX_BYTES:
        response._send_headers_immediately = True  # else aiohttp copies the body behind its head
    if route.role is not None or route.path == _COUNTS:
        room.settle(size, is_done=route.method != "GET")


def seal(response: web.Response, request_id: str) -> None:
    """Sets what every answer carries."""
    headers = response.headers
    headers["X-Request-Id"] = request_id
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Server"] = "penstock"


def new_request_id() -> str:
    return f"{_IDS.getrandbits(96):024x}"


def _request_id(request: web.BaseRequest) -> str:
    sent = request.headers.get("X-Request-Id")
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new_request_id()


def _asked(route: Route, query: str) -> BaseModel | None:
    """The parameters; where a call has none, or needs no token, nobody reads them."""
    if route.asks is not None:
        return queries.parse(route.asks, query)
    if query and route.role is not None:
        raise queries.unknown(query.partition("=")[0].partition("&")[0], None)
    return None


def _clean(path: str, query: str) -> str:
    if "%00" in path or "%00" in query:
        raise Problem("bad-request", "the URL has a NUL in it")
    return path


def _check_framing(request: web.BaseRequest) -> None:
    if request._version not in _VERSIONS:  # `version` would be kept, and told in the answer
        request._version = HttpVersion10
        raise Problem("bad-request", "speak HTTP/1.1")
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise Problem("bad-request", "the only transfer coding that is known is chunked")


def _refusal(request: web.BaseRequest, error: Exception) -> web.Response:
    problem = problems.problem_of(error)
    if problem is None:
        log.error("request_failed", exc_info=error)
        problem = Problem("internal-error", "this is a fault of ours; it has been logged")
    response = problems.answer(problem)
    if problem.slug in _HANGS_UP:
        response.force_close()
        stop_reading(request)
    return response


def stop_reading(request: web.BaseRequest) -> None:
    """Else aiohttp would wait ten seconds for the rest of the body, to throw it away."""
    request.protocol.close()
    if not request.content.is_eof():
        request.content.feed_eof()
