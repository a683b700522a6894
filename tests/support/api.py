"""A caller of the REST API."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt

from tests.support.contract import contract
from tests.support.replica import SECRET
from tests.support.waiting import eventually


def token(
    *roles: str, sub: str = "tests", queues: Sequence[str] | None = None, secret: str = SECRET
) -> str:
    """A token of an hour."""
    claims: dict[str, Any] = {
        "sub": sub,
        "roles": roles or ("admin",),
        "exp": int(time.time()) + 3600,
    }
    if queues is not None:
        claims["queues"] = queues
    return jwt.encode(claims, secret, "HS256")


class Api:
    """One session with one token. `url` may be changed: another replica is as good."""

    def __init__(self, url: str, bearer: str | None = None) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {bearer or token()}"}
        self._session = aiohttp.ClientSession(headers=headers)

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and decoded body."""
        return await self.call_at(self.url, method, path, body, headers)

    async def call_at(
        self,
        url: str,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """The same, of another replica."""
        async with self.answer(method, path, body, headers, url) as answer:
            is_json = "json" in answer.headers.get("Content-Type", "")
            return answer.status, await (answer.json() if is_json else answer.text())

    @asynccontextmanager
    async def answer(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        url: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer itself, for its headers, once it was found to be as documented."""
        total = aiohttp.ClientTimeout(total=30)
        async with self._session.request(
            method, (url or self.url) + path, json=body, headers=headers, timeout=total
        ) as answer:
            raw = await answer.read()
            contract().check(method, path, answer.status, answer.headers, raw)
            if answer.ok:
                contract().check_accepted(method, path, body)
            yield answer

    async def get(self, path: str) -> Any:
        """The body of a 200."""
        status, body = await self.call("GET", path)
        assert status == 200, (status, body)
        return body

    async def submit(self, kind: str, payload: Any = None, **fields: Any) -> str:
        """Submits one job; its id."""
        status, body = await self.call(
            "POST", "/v1/jobs", dict(kind=kind, payload=payload, **fields)
        )
        assert status == 201, (status, body)
        return str(body["id"])

    async def submit_many(self, jobs: Sequence[dict[str, Any]]) -> list[str]:
        """Submits a batch; its ids."""
        status, body = await self.call("POST", "/v1/jobs/batch", {"jobs": list(jobs)})
        assert status == 201, (status, body)
        return [item["id"] for item in body["items"]]

    async def ended(self, id_: str, within_s: float = 15.0) -> Any:
        """The job once it is over."""

        async def look() -> Any:
            job = await self.get(f"/v1/jobs/{id_}")
            return job if job["state"] in ("succeeded", "dead", "cancelled") else None

        return await eventually(look, f"job {id_} ends", within_s)

    async def in_state(self, id_: str, state: str, within_s: float = 15.0) -> Any:
        async def look() -> Any:
            job = await self.get(f"/v1/jobs/{id_}")
            return job if job["state"] == state else None

        return await eventually(look, f"job {id_} is {state}", within_s)
