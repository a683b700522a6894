"""Callers that submit and look while servers and replicas come and go; the submission log.

What was answered 2xx is `accepted` and must never be lost. What was not answered, or with 5xx, may
have happened or not: `unknown` counts how many jobs that were.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.support.api import Api

_TURN_S = 0.02
_UNDER_WAY_MAX = 500
_BATCH = 5000

Job = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. `sent_at`: seconds since 1970 by the host; `status` 0: no answer came."""

    sent_at: float
    took_s: float
    status: int


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
        return min(
            one.sent_at + one.took_s for one in self if one.sent_at >= since and one.status < 300
        )


class Load:
    """`submitted` and `looked` hold what became of the requests."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.accepted: set[str] = set()
        self.unknown = 0
        self.submitted = Answers()
        self.looked = Answers()

    async def bulk(self, url: str, jobs: Sequence[Job]) -> list[str]:
        """Submits all of them in batches, each of which must be accepted; answers their ids."""
        accepted: list[str] = []
        for first in range(0, len(jobs), _BATCH):
            body = {"jobs": jobs[first : first + _BATCH]}
            accepted += await self._submit(url, "/v1/jobs/batch", body)
        assert len(accepted) == len(jobs), self.submitted[-1]
        return accepted

    async def offer(self, url: str, jobs: Sequence[Job]) -> list[str]:
        """Submits them in one batch; the ids, if they were accepted."""
        return await self._submit(url, "/v1/jobs/batch", {"jobs": list(jobs)})

    @asynccontextmanager
    async def stream(
        self, urls: Sequence[str], per_s: float, job: Callable[[int], Job]
    ) -> AsyncIterator[None]:
        """Submits single jobs at a steady rate, whatever becomes of the requests before."""

        def send(number: int) -> Awaitable[object]:
            return self._submit(urls[number % len(urls)], "/v1/jobs", job(number))

        async with _repeated(per_s, send):
            yield

    @asynccontextmanager
    async def looks(self, urls: Sequence[str], per_s: float, path: str) -> AsyncIterator[None]:
        """Reads at a steady rate."""

        def send(number: int) -> Awaitable[object]:
            return self.call(self.looked, urls[number % len(urls)], "GET", path)

        async with _repeated(per_s, send):
            yield

    async def cancel_some(self, url: str, count: int, chance: random.Random) -> None:
        """Tries to cancel some of what was accepted; it may be over, or nobody may answer."""
        for id_ in chance.sample(sorted(self.accepted), min(count, len(self.accepted))):
            await self.call(Answers(), url, "POST", f"/v1/jobs/{id_}/cancel")

    async def _submit(self, url: str, path: str, body: Mapping[str, Any]) -> list[str]:
        """The ids that were accepted."""
        status, answer = await self.call(self.submitted, url, "POST", path, body)
        if status == 201:
            ids = [str(item["id"]) for item in answer.get("items", (answer,))]
            self.accepted.update(ids)
            return ids
        assert status == 0 or status >= 500, (status, answer)
        self.unknown += len(body.get("jobs", (body,)))
        return []

    async def call(
        self, answers: Answers, url: str, method: str, path: str, body: Job | None = None
    ) -> tuple[int, Any]:
        """Status and body, noted in `answers`; status 0 if no answer came."""
        sent_at, began = time.time(), time.monotonic()
        try:
            status, answer = await self.api.call_at(url, method, path, body)
        except (aiohttp.ClientError, TimeoutError):
            status, answer = 0, None
        answers.append(Answer(sent_at, time.monotonic() - began, status))
        return status, answer


@asynccontextmanager
async def _repeated(per_s: float, send: Callable[[int], Awaitable[object]]) -> AsyncIterator[None]:
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
