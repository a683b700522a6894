"""Callers that submit, look and change while servers and replicas come and go."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from tests.support.api import Api
from tests.support.checker import Said, Submitted
from tests.support.submissions import NO_ANSWER, REFUSED, SubmissionLog, judged

_TURN_S = 0.02
_UNDER_WAY_MAX = 500
_BATCH = 5000

DOOMED = "doomed"  # the tag of jobs that may die

Job = Mapping[str, Any]
Urls = str | Sequence[str]  # of replicas: who finds nobody at one goes to the next


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. `sent_at`: seconds since 1970 by the host; `status`: 0 when no answer came, -1
    when nobody took it."""

    sent_at: float
    took_s: float
    status: int

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


class Answers(list[Answer]):
    """All of one sort, in the order in which they came."""

    def between(self, since: float, until: float) -> "Answers":
        """Those of the requests that were sent in this time."""
        return Answers(one for one in self if since <= one.sent_at <= until)

    def statuses(self) -> dict[int, int]:
        return dict(Counter(one.status for one in self))

    def slowest_s(self) -> float:
        return max((one.took_s for one in self), default=0.0)

    def first_good(self, since: float) -> float:
        """When the first request sent after `since` had its 2xx."""
        return min(one.sent_at + one.took_s for one in self if one.sent_at >= since and one.is_good)


@dataclass(frozen=True, slots=True)
class Request:
    """A submission that can be sent again: one job, a batch, or a workflow of which `workflow` says
    all but its jobs."""

    jobs: Sequence[Job]
    is_batch: bool
    key: str | None = None
    marker: str = ""
    workflow: Job | None = None

    def in_order(self) -> Sequence[Job]:
        """The jobs as their ids are told: those of a workflow in the order of names."""
        return sorted(self.jobs, key=_name) if self.workflow is not None else self.jobs


def _name(job: Job) -> str:
    return str(job["name"])


class Load:
    """`log` holds what became of the jobs, `submitted` and `looked` of the requests; `open` are
    those with a key of which nobody knows what became: sent again, they must yield one answer."""

    def __init__(self, api: Api, log: SubmissionLog | None = None) -> None:
        self.api = api
        self.log = log or SubmissionLog()
        self.submitted = Answers()
        self.looked = Answers()
        self.changed = Answers()
        self.open: dict[str, Request] = {}
        self.workflows: list[str] = []  # ids of those that were accepted

    @property
    def accepted(self) -> set[str]:
        return self.log.accepted

    @property
    def unknown(self) -> int:
        return self.log.unknown

    async def bulk(self, url: str, jobs: Sequence[Job]) -> list[str]:
        """Submits all of them in batches, each of which must be accepted; answers their ids."""
        accepted: list[str] = []
        for first in range(0, len(jobs), _BATCH):
            request = Request(jobs[first : first + _BATCH], is_batch=True)
            accepted += await self.submit(url, request)
        assert len(accepted) == len(jobs), self.submitted[-1]
        return accepted

    async def offer(self, url: str, jobs: Sequence[Job]) -> list[str]:
        """Submits them in one batch; the ids, if they were accepted."""
        return await self.submit(url, Request(jobs, is_batch=True))

    @asynccontextmanager
    async def stream(
        self, urls: Sequence[str], per_s: float, job: Callable[[int], Job]
    ) -> AsyncIterator[None]:
        """Submits single jobs at a steady rate, whatever becomes of the requests before."""

        def send(number: int) -> Awaitable[object]:
            request = Request([job(number)], is_batch=False)
            return self.submit(urls[number % len(urls)], request)

        async with repeated(per_s, send):
            yield

    @asynccontextmanager
    async def looks(self, urls: Sequence[str], per_s: float, path: str) -> AsyncIterator[None]:
        """Reads at a steady rate."""

        def send(number: int) -> Awaitable[object]:
            return self.look(urls[number % len(urls)], path)

        async with repeated(per_s, send):
            yield

    async def submit(self, urls: Urls, request: Request) -> list[str]:
        """The ids that were accepted, by the first of these replicas that takes the connection."""
        marked = request if request.marker else replace(request, marker=self.log.marker())
        path, body = _body(marked)
        headers = {"Idempotency-Key": marked.key} if marked.key is not None else None
        try:
            status, answer = await self.call(self.submitted, urls, "POST", path, body, headers)
        except asyncio.CancelledError:  # whoever asked is gone; it may have been carried out
            unknown = Submitted(marked.marker, Said.UNKNOWN, len(marked.jobs), (), marked.key)
            self.log.add(unknown, NO_ANSWER)
            raise
        said = judged(status, answer)
        ids = _ids(marked, answer) if said is Said.OK else []
        if said is Said.OK and marked.workflow is not None:
            self.workflows.append(str(answer["id"]))
        assert status < 400 or status in (409, 429) or status >= 500, (status, answer)
        self.log.add(
            Submitted(marked.marker, said, len(marked.jobs), tuple(ids), marked.key), status
        )
        self._keep(marked, said)
        return ids

    async def look(self, urls: Urls, path: str) -> int:
        """The status of a read."""
        status, _ = await self.call(self.looked, urls, "GET", path)
        return status

    async def change(self, urls: Urls, id_: str, verb: str, of: str = "jobs") -> int:
        """Cancels or retries a job, or one of `of`, if that can still be done; the status."""
        status, _ = await self.call(self.changed, urls, "POST", f"/v1/{of}/{id_}/{verb}", {})
        return status

    def _keep(self, request: Request, said: Said) -> None:
        if said is Said.OK:
            self.open.pop(request.marker, None)
        elif said is Said.UNKNOWN and request.key is not None:
            self.open[request.marker] = request

    async def call(
        self,
        answers: Answers,
        urls: Urls,
        method: str,
        path: str,
        body: Job | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and body, noted in `answers`; a status below 100 if no answer came."""
        status, answer = REFUSED, None
        for url in [urls] if isinstance(urls, str) else urls:
            sent_at, began = time.time(), time.monotonic()
            try:
                status, answer = await self.api.call_at(url, method, path, body, headers)
            except aiohttp.ClientConnectorError:
                status = REFUSED
            except (aiohttp.ClientError, TimeoutError):
                status = NO_ANSWER
            answers.append(Answer(sent_at, time.monotonic() - began, status))
            if status != REFUSED:
                break
        return status, answer


def _body(request: Request) -> tuple[str, Job]:
    """The path and the body of a submission, its jobs marked."""
    marked = [{**job, "tags": [request.marker, *job.get("tags", ())]} for job in request.jobs]
    if request.workflow is not None:
        return "/v1/workflows", {**request.workflow, "jobs": marked}
    return ("/v1/jobs/batch", {"jobs": marked}) if request.is_batch else ("/v1/jobs", marked[0])


def _ids(request: Request, answer: Any) -> list[str]:
    """Of its jobs, as it was answered; those of a workflow in the order of names."""
    if request.workflow is not None:
        return [str(one["id"]) for one in sorted(answer["jobs"], key=_name)]
    return [str(one["id"]) for one in answer.get("items", (answer,))]


@asynccontextmanager
async def repeated(per_s: float, send: Callable[[int], Awaitable[object]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(_repeat(group, per_s, send))
        try:
            yield
        finally:
            sending.cancel()


async def _repeat(
    group: asyncio.TaskGroup, per_s: float, send: Callable[[int], Awaitable[object]]
) -> None:
    began, count = time.monotonic(), 0
    under_way = asyncio.Semaphore(_UNDER_WAY_MAX)

    async def one(number: int) -> None:
        async with under_way:
            await send(number)

    while True:
        wanted = int((time.monotonic() - began) * per_s)
        for number in range(count, wanted):
            group.create_task(one(number))
        count = wanted
        await asyncio.sleep(_TURN_S)
