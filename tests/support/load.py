"""Callers that submit while servers and replicas come and go; the submission log.

What was answered 2xx is `accepted` and must never be lost. What was not answered, or with 5xx, may
have happened or not: `unknown` counts how many jobs that were.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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


class Load:
    """Each method takes the URLs to call, one after the other."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.accepted: set[str] = set()
        self.unknown = 0
        self.answers: list[Answer] = []

    async def bulk(self, url: str, jobs: Sequence[Job]) -> list[str]:
        """Submits all of them in batches, each of which must be accepted; answers their ids."""
        accepted: list[str] = []
        for first in range(0, len(jobs), _BATCH):
            body = {"jobs": jobs[first : first + _BATCH]}
            accepted += await self._call(url, "/v1/jobs/batch", body)
        assert len(accepted) == len(jobs), self.answers[-1]
        return accepted

    @asynccontextmanager
    async def stream(
        self, urls: Sequence[str], per_s: float, job: Callable[[int], Job]
    ) -> AsyncIterator[None]:
        """Submits single jobs at a steady rate, whatever becomes of the requests before."""
        under_way: set[asyncio.Task[list[str]]] = set()
        stream = asyncio.create_task(self._stream(urls, per_s, job, under_way))
        try:
            yield
        finally:
            stream.cancel()
            await asyncio.wait([stream, *under_way])

    def worst(self, since: float, until: float) -> float:
        """The longest that a request sent in that time took."""
        return max((a.took_s for a in self.answers if since <= a.sent_at <= until), default=0.0)

    def statuses(self, since: float, until: float) -> dict[int, int]:
        """How many requests sent in that time got which answer."""
        found: dict[int, int] = {}
        for answer in self.answers:
            if since <= answer.sent_at <= until:
                found[answer.status] = found.get(answer.status, 0) + 1
        return found

    async def _stream(
        self,
        urls: Sequence[str],
        per_s: float,
        job: Callable[[int], Job],
        under_way: set[asyncio.Task[list[str]]],
    ) -> None:
        began, count = time.monotonic(), 0
        while True:
            wanted = int((time.monotonic() - began) * per_s)
            while count < wanted and len(under_way) < _UNDER_WAY_MAX:
                url = urls[count % len(urls)]
                task = asyncio.create_task(self._call(url, "/v1/jobs", job(count)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                count += 1
            await asyncio.sleep(_TURN_S)

    async def _call(self, url: str, path: str, body: Mapping[str, Any]) -> list[str]:
        """The ids that were accepted."""
        sent_at, began = time.time(), time.monotonic()
        try:
            status, answer = await self._api.call_at(url, "POST", path, body)
        except (aiohttp.ClientError, TimeoutError):
            status, answer = 0, None
        self.answers.append(Answer(sent_at, time.monotonic() - began, status))
        if status == 201:
            items = answer.get("items", (answer,))
            ids = [str(item["id"]) for item in items]
            self.accepted.update(ids)
            return ids
        assert status == 0 or status >= 500, (status, answer)
        self.unknown += len(body.get("jobs", (body,)))
        return []
