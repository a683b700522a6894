"""What a running stack must be able to do, seen from outside: the API, the topic, the mailbox.

It knows nothing of how the stack was started: by compose.yaml, on Kubernetes, or as processes (the
test beside it does that). Every job is of the sample handlers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from penstock.settings.brokers import TOPIC
from tests.support.api import Api
from tests.support.brokers import header, records_in, value_of
from tests.support.waiting import eventually

_SLEEPERS, _SLEEP_S = 40, 5.0
_MENDED_S = 90.0  # time to live 10 s, a restart, and a busy machine


Kill = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Stack:
    """`kafka`, `mail` (of Mailpit's API) and `kill` may be missing. `kill` is told the host of the
    busiest replica and kills it at once. `patience_s`: for a job that does nothing."""

    url: str
    token: str
    kafka: str | None = None
    mail: str | None = None
    kill: Kill | None = None
    patience_s: int = 30

    @property
    def waits(self) -> dict[str, str]:
        return {"Prefer": f"wait={self.patience_s}"}


async def drive(stack: Stack, say: Callable[[str], None]) -> None:
    """Does everything that the stack has the parts for; fails with what didn't happen."""
    async with Api(stack.url, stack.token) as api:
        await _is_ready(api)
        say("ready")
        await _runs_a_job(api, stack.waits)
        say("a job ran, and its result came in the same call")
        await _runs_a_workflow(api, stack.waits)
        say("a workflow ran, and results reached its children")
        dead = await _dies(api, stack.waits, "smoke@example.com" if stack.mail else None)
        say(f"job {dead} died, and its letter is listed")
        if stack.kafka:
            await _is_in_kafka(stack.kafka, dead)
            say("its letter is in Kafka")
        if stack.mail:
            await _is_in_the_mailbox(stack.mail, dead)
            say("its mail is in the mailbox")
        if stack.kill:
            lost = await _outlives_a_kill(api, stack.kill)
            say(f"a replica was killed; {_SLEEPERS} jobs ran, {lost} of them again")


async def _is_ready(api: Api) -> None:
    async def look() -> bool:
        try:
            status, _ = await api.call("GET", "/readyz")
        except aiohttp.ClientError:
            return False
        return status == 200

    await eventually(look, "the stack is ready", within_s=120, every_s=0.5)


async def _runs_a_job(api: Api, waits: dict[str, str]) -> None:
    body = {"kind": "echo", "payload": {"to": "ada"}}
    status, job = await api.call("POST", "/v1/jobs", body, waits)
    assert (status, job["state"], job["result"]) == (201, "succeeded", {"to": "ada"}), job


async def _runs_a_workflow(api: Api, waits: dict[str, str]) -> None:
    jobs = [
        {"name": "extract", "kind": "echo", "payload": {"rows": [3, 4]}},
        {
            "name": "load",
            "kind": "echo",
            "depends_on": ["extract"],
            "payload": {"$result": "extract", "pointer": "/rows/1"},
        },
    ]
    body = {"name": "smoke", "jobs": jobs}
    status, workflow = await api.call("POST", "/v1/workflows", body, waits)
    assert (status, workflow["state"]) == (201, "succeeded"), workflow
    (load,) = [job["id"] for job in workflow["jobs"] if job["name"] == "load"]
    assert (await api.get(f"/v1/jobs/{load}"))["result"] == 4


async def _dies(api: Api, waits: dict[str, str], email: str | None) -> str:
    body: dict[str, Any] = {"kind": "fail", "payload": {"retryable": False}}
    if email:
        body["notify"] = [{"on": ["dead"], "email": email}]
    status, job = await api.call("POST", "/v1/jobs", body, waits)
    assert (status, job["state"]) == (201, "dead"), job
    letters = (await api.get("/v1/dead-letters?kind=fail"))["items"]
    assert job["id"] in [letter["job_id"] for letter in letters]
    return str(job["id"])


async def _is_in_kafka(address: str, id_: str) -> None:
    async def look() -> bool:
        records = await records_in(address, TOPIC, 1)
        ours = [record for record in records if record.key == id_.encode()]
        assert all(header(one, "ce_id").startswith(f"{id_}:") for one in ours)
        return any(value_of(one)["id"] == id_ for one in ours)

    await eventually(look, f"job {id_} is in {TOPIC}", within_s=60)


async def _is_in_the_mailbox(url: str, id_: str) -> None:
    async with aiohttp.ClientSession() as session:

        async def look() -> bool:
            async with session.get(f"{url}/api/v1/messages") as answer:
                assert answer.status == 200, await answer.text()
                found = (await answer.json())["messages"]
            return any(id_ in message["Snippet"] for message in found)

        await eventually(look, f"mail about job {id_} came", within_s=60)


async def _outlives_a_kill(api: Api, kill: Kill) -> int:
    """Kills while jobs run; how many of them were lost with it, and ran again."""
    jobs = [{"kind": "sleep", "payload": {"seconds": _SLEEP_S}}] * _SLEEPERS
    ids = await api.submit_many(jobs)
    await api.in_state(ids[0], "running", within_s=30)
    await kill(await _busiest(api))
    ended = await asyncio.gather(*(_ended(api, id_) for id_ in ids))
    assert {job["state"] for job in ended} == {"succeeded"}, ended
    await _is_ready(api)
    lost = sum(1 for job in ended if job["attempt"] > 1)
    assert lost, "the replica that was killed ran nothing"
    return lost


async def _busiest(api: Api) -> str:
    """The host of the replica that runs most of the jobs."""

    async def look() -> Any:
        workers = (await api.get("/v1/workers"))["items"]
        busy = [worker for worker in workers if worker["running"]]
        return max(busy, key=lambda worker: worker["running"], default=None)

    return str((await eventually(look, "a replica runs jobs"))["host"])


async def _ended(api: Api, id_: str) -> Any:
    """As `Api.ended`, through a door behind which a replica has just died."""

    async def look() -> Any:
        try:
            status, job = await api.call("GET", f"/v1/jobs/{id_}")
        except aiohttp.ClientError:
            return None
        ended = status == 200 and job["state"] in ("succeeded", "dead", "cancelled")
        return job if ended else None

    return await eventually(look, f"job {id_} ends", _MENDED_S, every_s=0.5)
