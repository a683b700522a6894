"""`GET /v1/autoscale`: what it sums up, of which queues, and what it goes by."""

from typing import Any

from penstock.server import Replica, running
from penstock.settings import Settings
from tests.support.api import Api, token
from tests.support.still import changed
from tests.support.waiting import eventually


async def asked(api: Api, query: str = "") -> dict[str, Any]:
    found = await api.get(f"/v1/autoscale{query}")
    assert isinstance(found, dict)
    return found


async def test_it_sums_up_what_the_queues_have_to_do(api: Api, replica: Replica) -> None:
    assert (await api.call("POST", "/v1/queues/held/pause"))[0] == 200
    holding = {"kind": "sleep", "payload": {"seconds": 60}}
    await api.submit_many([{**holding, "queue": "mail"}] * 4 + [{**holding, "queue": "other"}])
    await api.submit_many([{"kind": "echo", "queue": "held"}] * 6)
    await api.submit_many([{"kind": "nobody-has-it", "queue": "mail"}] * 3)

    async def busy() -> dict[str, Any] | None:
        found = await asked(api)
        return found if (found["busy"], found["ready"]) == (5, 3) else None

    found = await eventually(busy, "five run, three wait")
    assert found is not None
    slots = found["slots"]
    assert slots > 100
    assert 0 < found["oldest_ready_age_s"] < 10
    assert found["desired_replicas"] == 1
    mail = await asked(api, "?queue=mail&queue=held")
    assert (mail["ready"], mail["busy"], mail["slots"]) == (3, 4, slots)
    held = await asked(api, "?queue=held")
    assert held == {
        "ready": 0,
        "oldest_ready_age_s": 0.0,
        "slots": slots,
        "busy": 0,
        "desired_replicas": 1,  # autoscale.replicas_min
    }
    async with Api(replica.url, token("viewer", queues=["other", "held"])) as stranger:
        own = await asked(stranger)
        assert (own["ready"], own["busy"]) == (0, 1)
        foreign = await asked(stranger, "?queue=mail")
        assert (foreign["ready"], foreign["busy"], foreign["slots"]) == (0, 0, 0)


async def test_it_goes_by_the_settings(replica_settings: Settings) -> None:
    scaling = {"slots_per_replica": 2, "replicas_min": 0, "replicas_max": 4, "target_age_s": 5}
    settings = changed(replica_settings, autoscale=scaling)
    async with running(settings) as replica, Api(replica.url) as api:
        assert (await asked(api))["desired_replicas"] == 0
        for count, wanted in ((1, 1), (4, 3), (40, 4)):
            await api.submit_many([{"kind": "nobody-has-it"}] * count)

            async def is_so(wanted: int = wanted) -> bool:
                return bool((await asked(api))["desired_replicas"] == wanted)

            await eventually(is_so, f"{wanted} replicas are wanted")
