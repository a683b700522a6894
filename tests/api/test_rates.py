"""Rate limits over HTTP: what counts, what is told, what is refused before it is read."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from penstock.server import Replica, running
from penstock.settings import RateLimits, Settings
from tests.api.wire import raw
from tests.support.api import Api, token

JOB: dict[str, Any] = {"kind": "echo", "delay_s": 3600}
PER_DAY = 86_400

Told = tuple[int, str, dict[str, str]]


def rules(*rows: dict[str, Any]) -> RateLimits:
    return RateLimits.model_validate({"rules": [{"period_s": PER_DAY, **row} for row in rows]})


Replicas = Callable[..., AbstractAsyncContextManager[list[Replica]]]


@pytest.fixture
def limited(replica_settings: Settings) -> Replicas:
    @asynccontextmanager
    async def opened(*rows: dict[str, Any], count: int = 1) -> AsyncIterator[list[Replica]]:
        # Replicas that wait for a busy machine in vain would go by their own counts.
        redis = replica_settings.redis.model_copy(update={"timeout_s": 10.0})
        settings = replica_settings.model_copy(update={"rate_limits": rules(*rows), "redis": redis})
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(running(settings)) for _ in range(count)]

    return opened


async def asked(api: Api, method: str, path: str, body: Any = None) -> Told:
    """Status, type and headers of an answer that is as documented."""
    async with api.answer(method, path, body) as answer:
        is_problem = answer.status >= 400
        slug = (await answer.json())["type"].rpartition("/")[2] if is_problem else ""
        return answer.status, slug, dict(answer.headers)


async def statuses(api: Api, count: int, *call: Any) -> list[int]:
    return [(await asked(api, *call))[0] for _ in range(count)]


async def test_answers_tell_what_is_left_and_a_refusal_when_to_come_again(
    limited: Replicas,
) -> None:
    async with limited({"counts": "jobs", "limit": 3}) as (replica,), Api(replica.url) as api:
        for left in (2, 1, 0):
            status, _, headers = await asked(api, "POST", "/v1/jobs", JOB)
            assert status == 201
            assert headers["RateLimit-Policy"] == '"jobs";q=3;w=86400'
            assert re.fullmatch(rf'"jobs";r={left};t=\d+', headers["RateLimit"])
        status, slug, headers = await asked(api, "POST", "/v1/jobs", JOB)
        assert (status, slug) == (429, "rate-limited")
        assert 28_000 < int(headers["Retry-After"]) <= 28_800
        assert headers["RateLimit"].startswith('"jobs";r=0;t=')
        for path in ("/v1/jobs", "/v1/queues"):  # reads have no limit here
            status, _, headers = await asked(api, "GET", path)
            assert status == 200
            assert "RateLimit" not in headers
        metrics = replica.engine.metrics.registry
        labels = {"counts": "jobs"}
        assert metrics.get_sample_value("penstock_rate_limited_total", labels) == 1
        assert len((await api.get("/v1/jobs"))["items"]) == 3


async def test_each_sort_of_request_has_a_limit_of_its_own(limited: Replicas) -> None:
    rows = ({"counts": what, "limit": 2} for what in ("jobs", "changes", "reads"))
    async with limited(*rows) as (replica,), Api(replica.url) as api:
        id_ = await api.submit(**JOB)
        for call in (
            ("POST", "/v1/queues/default/pause"),
            ("GET", f"/v1/jobs/{id_}"),
        ):
            assert await statuses(api, 3, *call) == [200, 200, 429]
        assert (await asked(api, "POST", "/v1/queues/default/resume"))[0] == 429
        assert (await asked(api, "POST", f"/v1/jobs/{id_}/cancel"))[0] == 429
        assert (await asked(api, "GET", "/v1/workers"))[0] == 429
        assert await statuses(api, 2, "POST", "/v1/jobs", JOB) == [201, 429]
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
            assert (await asked(api, "GET", path))[0] == 200


async def test_batches_and_workflows_cost_what_they_hold(limited: Replicas) -> None:
    flow = {"name": "f", "jobs": [{"name": name, **JOB} for name in "abc"]}
    async with limited({"counts": "jobs", "limit": 12}) as (replica,), Api(replica.url) as api:

        async def left(path: str, body: Any) -> tuple[int, str]:
            status, _, headers = await asked(api, "POST", path, body)
            return status, headers["RateLimit"].split(";")[1]

        assert await left("/v1/jobs/batch", {"jobs": [JOB] * 4}) == (201, "r=8")
        assert await left("/v1/workflows", flow) == (201, "r=5")
        (item,) = (await api.get("/v1/workflows"))["items"]
        more = {"jobs": [{"name": "d", **JOB}, {"name": "e", **JOB}]}
        assert await left(f"/v1/workflows/{item['id']}/jobs", more) == (201, "r=3")
        assert await left("/v1/jobs/batch", {"jobs": [JOB] * 4}) == (429, "r=3")
        assert await left("/v1/workflows", {**flow, "jobs": [*flow["jobs"]] * 2}) == (429, "r=3")
        assert await left("/v1/jobs/batch", {"jobs": [{"kind": 5}, JOB]}) == (422, "r=1")
        assert await left("/v1/jobs", JOB) == (201, "r=0")
        assert await left("/v1/jobs/batch", {"jobs": [JOB]}) == (429, "r=0")
        assert len((await api.get("/v1/jobs?limit=200"))["items"]) == 10


async def test_a_batch_larger_than_the_burst_comes_in_alone(limited: Replicas) -> None:
    row = {"counts": "jobs", "limit": 100, "burst": 10}
    async with limited(row) as (replica,), Api(replica.url) as api:
        assert (await asked(api, "POST", "/v1/jobs/batch", {"jobs": [JOB] * 50}))[0] == 201
        status, _, headers = await asked(api, "POST", "/v1/jobs", JOB)
        assert status == 429
        assert int(headers["Retry-After"]) > 40 * 860


async def test_callers_have_budgets_of_their_own_by_the_first_rule_that_fits(
    limited: Replicas,
) -> None:
    rows = (
        {"counts": "reads", "limit": 4, "sub": "ci-*"},
        {"counts": "reads", "limit": 3, "roles": ["operator", "admin"]},
        {"counts": "reads", "limit": 2},
    )
    bearers = {
        token("viewer", sub="ci-1"): 4,
        token("admin", sub="ci-2"): 4,
        token("operator", sub="root"): 3,
        token("viewer", sub="ada"): 2,
        token("viewer", sub="eve"): 2,
    }
    async with limited(*rows) as (replica,):
        for bearer, most in bearers.items():
            async with Api(replica.url, bearer) as api:
                assert await statuses(api, 6, "GET", "/v1/queues") == [200] * most + [429] * (
                    6 - most
                )
        again = token("viewer", sub="ada", queues=["x"])  # another token, the same caller
        async with Api(replica.url, again) as api:
            assert await statuses(api, 1, "GET", "/v1/queues") == [429]


async def test_replicas_share_a_budget_also_under_fire(limited: Replicas) -> None:
    async with limited({"counts": "jobs", "limit": 60}, count=2) as (one, two), Api(one.url) as api:

        async def submit(n: int) -> int:
            url = (one, two)[n % 2].url
            return (await api.call_at(url, "POST", "/v1/jobs", JOB))[0]

        found = await asyncio.gather(*map(submit, range(150)))
        found += [await submit(n) for n in range(10)]
        assert found.count(201) == 60
        assert found.count(429) == 100


async def test_a_refusal_comes_before_the_body(limited: Replicas) -> None:
    async with limited({"counts": "jobs", "limit": 1}) as (replica,), Api(replica.url) as api:
        await api.submit(**JOB)
        port = int(replica.url.rpartition(":")[2])
        for path in ("/v1/jobs", "/v1/jobs/batch", "/v1/workflows"):
            head = (
                f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token()}\r\n"
                "content-type: application/json\r\ncontent-length: 500\r\n\r\n"
            )
            answer = await raw(port, head.encode())  # of the body nothing is sent
            assert answer.status == 429, path


async def test_who_is_nobody_or_may_not_spends_nothing(limited: Replicas) -> None:
    row = {"counts": "jobs", "limit": 1}
    async with limited(row) as (replica,), aiohttp.ClientSession() as session:

        async def submit(bearer: str) -> int:
            headers = {"Authorization": f"Bearer {bearer}"}
            async with session.post(f"{replica.url}/v1/jobs", json=JOB, headers=headers) as answer:
                return answer.status

        forged = token(sub="ada", secret="x" * 40)
        assert [await submit(forged) for _ in range(5)] == [401] * 5
        assert [await submit(token("viewer", sub="ada")) for _ in range(5)] == [403] * 5
        assert await submit(token(sub="ada")) == 201
        assert await submit(token(sub="ada")) == 429
