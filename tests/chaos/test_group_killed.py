"""`kill -9` of who groups, at each step: each death is told of once, and a message that comes twice
is the same twice."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.chaos.test_relay_killed import QUICK, time_passes
from tests.egress.receiver import Receiver, receiver, saying
from tests.support.api import Api
from tests.support.fleet import Fleet
from tests.support.scene import staged
from tests.support.servers import Servers
from tests.support.waiting import eventually

JOBS = 3


@pytest.mark.parametrize(
    ("point", "sent"),
    [
        ("after_join_groups", 0),
        ("before_fix_message", 0),
        ("after_fix_message", 0),
        ("after_deliver", 1),
    ],
)
async def test_a_message_that_was_begun_is_sent_as_it_was_settled(
    servers: Servers, dsn: str, workplace: Path, point: str, sent: int
) -> None:
    async with staged(servers, dsn, workplace) as scene, receiver(saying()) as there:
        group = {"by": ["kind"], "wait_s": 0.5, "every_s": 0}
        rule = {"name": "r", "on": ["dead"], "webhook": there.url, "group": group}
        (replica,) = await scene.fleet.start(
            1, **QUICK, notifications__rules=json.dumps([rule]), chaos=f"{point}:#1:exit"
        )
        died = await die(scene.fleet)
        await asyncio.to_thread(replica.wait)
        assert len(there.seen) == sent
        replica.environ["PENSTOCK_CHAOS"] = ""
        await time_passes(scene)
        replica.start()
        await replica.ready()
        died |= await die(scene.fleet)
        messages = await told(there, died)
    assert {job for one in messages.values() for job in one["jobs"]} == died
    assert sum(one["count"] for one in messages.values()) == len(died), "each is told of once"
    if sent:
        assert there.seen[0].body in [one.body for one in there.seen[1:]]


async def die(fleet: Fleet) -> set[str]:
    job = {"kind": "fail", "payload": {"retryable": False}}
    async with Api(fleet.urls[0]) as api:
        status, answer = await api.call("POST", "/v1/jobs/batch", {"jobs": [job] * JOBS})
    assert status == 201, answer
    return {item["id"] for item in answer["items"]}


async def told(there: Receiver, died: set[str]) -> dict[str, dict[str, Any]]:
    """The messages by their ids, once all have been told of."""
    found: dict[str, dict[str, Any]] = {}

    async def look() -> bool:
        for seen in there.seen:
            event = orjson.loads(seen.body)
            data = {**event["data"], "jobs": [job["id"] for job in event["data"]["jobs"]]}
            assert found.setdefault(event["id"], data) == data, "the same at each sending"
        return bool(sum(one["count"] for one in found.values()) >= len(died))

    await eventually(look, "all deaths were told of", 30)
    return found
