"""What operators do about what doesn't arrive: tests, sending again, taking endpoints back."""

import asyncio
from typing import Any

import pytest

from penstock.settings import Settings
from tests.egress.receiver import Receiver, receiver, saying
from tests.outlets.mailbox import Mailbox
from tests.support.api import Api
from tests.support.still import changed
from tests.support.waiting import eventually

ALL = ["succeeded", "dead", "cancelled"]


@pytest.fixture
def replica_settings(replica_settings: Settings, smtp: dict[str, Any]) -> Settings:
    return changed(replica_settings, smtp=smtp)


async def stands(api: Api, id_: str, outcome: str) -> Any:
    async def look() -> Any:
        found = await api.get(f"/v1/deliveries/{id_}")
        return found if found["outcome"] == outcome else None

    return await eventually(look, f"the delivery {id_} is {outcome}", within_s=10)


async def test_a_test_arrives_by_webhook_and_mail(api: Api, there: Receiver, box: Mailbox) -> None:
    for body in ({"webhook": there.url}, {"email": "ops@example.com"}):
        status, told = await api.call("POST", "/v1/notifications/test", body)
        assert status == 202, told
        await stands(api, told["id"], "delivered")
    assert [b"penstock.test.v1" in seen.body for seen in there.seen] == [True]
    ((_, recipients, letter),) = box.letters
    assert recipients == ["ops@example.com"]
    assert letter["Subject"] == "[Penstock] test"


async def test_what_arrived_is_sent_again_under_its_id(api: Api, there: Receiver) -> None:
    id_ = await api.submit("echo", notify=[{"on": ALL, "webhook": there.url}])

    async def delivered() -> Any:
        page = await api.get(f"/v1/deliveries?job_id={id_}&outcome=delivered")
        return page["items"]

    (first,) = await eventually(delivered, "it was delivered", within_s=10)
    status, _ = await api.call("POST", f"/v1/deliveries/{first['id']}/resend")
    assert status == 200

    async def twice() -> bool:
        return len(there.seen) == 2

    await eventually(twice, "it came again", within_s=10)
    told = [seen.headers["webhook-id"] for seen in there.seen]
    assert told == [first["message_id"]] * 2
    again = await stands(api, first["id"], "delivered")
    assert again["tries"] == 1


async def test_an_endpoint_that_was_given_up_is_taken_back(api: Api) -> None:
    async with receiver(saying(status=410)) as gone:
        id_ = await api.submit("echo", notify=[{"on": ALL, "webhook": gone.url}])

        async def given_up() -> Any:
            page = await api.get("/v1/endpoints")
            return [one for one in page["items"] if one["disabled_at"]]

        (endpoint,) = await eventually(given_up, "the endpoint is given up", within_s=10)
        assert gone.url.partition("//")[2].partition("/")[0] in endpoint["endpoint"]
        status, _ = await api.call("POST", "/v1/endpoints/enable", {"endpoint": gone.url})
        assert status == 200
        assert (await api.get("/v1/endpoints"))["items"] == []
        (failed,) = (await api.get(f"/v1/deliveries?job_id={id_}"))["items"]
        assert failed["error"] == "the endpoint answered 410"


async def test_a_replayed_job_that_dies_again_is_told_again(api: Api, there: Receiver) -> None:
    notify = [{"on": ["dead"], "webhook": there.url}]
    id_ = await api.submit("fail", {"retryable": False}, notify=notify)
    await api.ended(id_)
    await api.call("POST", f"/v1/dead-letters/{id_}/replay")

    async def twice() -> bool:
        return len(there.seen) == 2

    await eventually(twice, "both deaths were told", within_s=10)
    assert len({seen.headers["webhook-id"] for seen in there.seen}) == 2
    (letter,) = (await api.get("/v1/dead-letters"))["items"]
    assert letter["attempt"] == 2
    await asyncio.gather(*(api.call("DELETE", f"/v1/dead-letters/{id_}") for _ in range(3)))
    assert (await api.get("/v1/dead-letters"))["items"] == []
