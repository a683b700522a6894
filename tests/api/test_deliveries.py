"""Deliveries over HTTP: the list, sending again, endpoints that fail, tests."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.domain import ids
from penstock.domain.delivery import endpoint_id
from penstock.domain.ids import JobId
from penstock.server import Replica
from tests.support.api import Api, token
from tests.support.letterbox import HOOK, Letterbox, opened

PATH = "/v1/deliveries"


@pytest.fixture
async def box(dsn: str) -> AsyncIterator[Letterbox]:
    async with opened(dsn) as one:
        yield one


async def a_job(api: Api, **fields: Any) -> tuple[str, JobId]:
    text = await api.submit("echo", delay_s=3600, **fields)
    id_ = ids.parse(text)
    assert id_ is not None
    return text, id_


async def listed(api: Api, query: str = "") -> list[str]:
    return [one["id"] for one in (await api.get(f"{PATH}?{query}"))["items"]]


async def test_what_left_and_what_is_to_leave_is_listed(api: Api, box: Letterbox) -> None:
    text, job = await a_job(api)
    sent = ids.text(await box.over(job_id=job, dedupe="the id"))
    waits = ids.text(await box.pending(job_id=job, error="503", tries=2, rule="ops"))
    mail = ids.text(await box.over("failed", channel="email", endpoint="ops@example.com"))
    assert await listed(api) == [mail, waits, sent]
    assert await listed(api, f"job_id={text}") == [waits, sent]
    assert await listed(api, "outcome=pending&outcome=failed") == [mail, waits]
    assert await listed(api, "channel=email") == [mail]
    page = await api.get(f"{PATH}?limit=2")
    assert await listed(api, f"limit=2&cursor={page['next_cursor']}") == [sent]
    one = await api.get(f"{PATH}/{sent}")
    assert one["message_id"] == "the id"
    assert (one["job_id"], one["outcome"], one["next_try_at"]) == (text, "delivered", None)
    other = await api.get(f"{PATH}/{waits}")
    assert (other["outcome"], other["tries"], other["error"]) == ("pending", 2, "503")
    assert (other["rule"], other["finished_at"]) == ("ops", None)


async def test_no_secret_of_a_url_is_shown(api: Api, box: Letterbox) -> None:
    sent = ids.text(await box.over())
    await box.fails()
    for path in (PATH, f"{PATH}/{sent}", "/v1/endpoints"):
        assert "secret" not in str(await api.get(path))
    (endpoint,) = (await api.get("/v1/endpoints"))["items"]
    assert (endpoint["endpoint"], endpoint["id"]) == ("https://example.com/…", endpoint_id(HOOK))
    assert (await api.get(f"{PATH}/{sent}"))["endpoint_id"] == endpoint["id"]


@pytest.mark.parametrize("query", ["job=1", "job_id=1", "outcome=sent", "channel=sms", "cursor=x"])
async def test_a_query_with_a_typo_is_refused(api: Api, query: str) -> None:
    status, _ = await api.call("GET", f"{PATH}?{query}")
    assert status == 400


async def test_what_failed_is_sent_again(api: Api, box: Letterbox) -> None:
    _, job = await a_job(api)
    id_ = ids.text(await box.over("failed", job_id=job, dedupe="j:1", error="503"))
    status, again = await api.call("POST", f"{PATH}/{id_}/resend")
    assert (status, again["id"], again["message_id"]) == (200, id_, "j:1")
    assert len(await listed(api)) == 1


async def test_what_tells_of_a_deleted_job_is_not_sent_again(api: Api, box: Letterbox) -> None:
    nobody = JobId(b"n" * 16)
    for columns in ({"job_id": nobody}, {"workflow_id": nobody}):
        id_ = ids.text(await box.over("failed", **columns))
        status, problem = await api.call("POST", f"{PATH}/{id_}/resend")
        assert (status, problem["type"]) == (410, "/problems/gone")
        assert (await api.get(f"{PATH}/{id_}"))["outcome"] == "failed"


async def test_what_went_to_an_endpoint_that_was_given_up_is_not_sent_again(
    api: Api, box: Letterbox
) -> None:
    _, job = await a_job(api)
    id_ = ids.text(await box.over("failed", job_id=job))
    await box.fails(is_disabled=True)
    status, problem = await api.call("POST", f"{PATH}/{id_}/resend")
    assert (status, problem["type"]) == (409, "/problems/endpoint-disabled")
    assert endpoint_id(HOOK) in problem["detail"]
    assert "secret" not in str(problem)
    assert (await api.get(f"{PATH}/{id_}"))["outcome"] == "failed"
    await api.call("POST", "/v1/endpoints/enable", {"endpoint": endpoint_id(HOOK)})
    assert (await api.call("POST", f"{PATH}/{id_}/resend"))[0] == 200


@pytest.mark.parametrize("id_", ["x", "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"])
async def test_an_unknown_delivery_is_not_there(api: Api, id_: str) -> None:
    assert (await api.call("GET", f"{PATH}/{id_}"))[0] == 404
    assert (await api.call("POST", f"{PATH}/{id_}/resend"))[0] == 404


async def test_who_sees_some_queues_sees_only_what_tells_of_their_jobs(
    replica: Replica, api: Api, box: Letterbox
) -> None:
    text, own = await a_job(api, queue="own")
    foreign_text, foreign = await a_job(api, queue="foreign")
    jobs = [{"name": "a", "kind": "echo", "queue": "own", "delay_s": 3600}]
    _, flow = await api.call("POST", "/v1/workflows", {"name": "w", "jobs": jobs})
    mine = ids.text(await box.over(job_id=own))
    other = ids.text(await box.over(job_id=foreign))
    flows = ids.text(await box.pending(workflow_id=ids.parse(flow["id"])))
    test = ids.text(await box.over(state="test"))
    await box.fails()
    async with Api(replica.url, token("operator", queues=["own"])) as caller:
        assert await listed(caller) == [flows, mine]
        assert await listed(caller, f"job_id={text}") == [mine]
        assert await listed(caller, f"job_id={foreign_text}") == []
        assert await listed(caller, f"workflow_id={flow['id']}") == [flows]
        assert (await caller.get(f"{PATH}/{flows}"))["workflow_id"] == flow["id"]
        for id_ in (other, test):
            assert (await caller.call("GET", f"{PATH}/{id_}"))[0] == 404
        assert (await caller.get("/v1/endpoints"))["items"] == []
        status, _ = await caller.call("POST", "/v1/endpoints/enable", {"endpoint": HOOK})
        assert status == 404
    assert len((await api.get("/v1/endpoints"))["items"]) == 1


async def test_an_endpoint_is_taken_back(api: Api, box: Letterbox) -> None:
    await box.fails(is_disabled=True)
    (found,) = (await api.get("/v1/endpoints"))["items"]
    assert found["disabled_at"] is not None
    status, taken = await api.call("POST", "/v1/endpoints/enable", {"id": found["id"]})
    assert status == 200
    assert taken == {name: found[name] for name in ("id", "endpoint", "channel")}
    assert (await api.get("/v1/endpoints"))["items"] == []


@pytest.mark.parametrize("body", [{}, {"id": "0" * 16, "endpoint": HOOK}, {"id": HOOK}])
async def test_what_names_no_endpoint_is_refused(api: Api, body: Any) -> None:
    status, problem = await api.call("POST", "/v1/endpoints/enable", body)
    assert (status, problem["type"]) == (422, "/problems/validation-failed")


async def test_endpoints_are_paged(api: Api, box: Letterbox) -> None:
    for n in range(3):
        await box.fails(f"https://{n}.example.com/")
    page = await api.get("/v1/endpoints?limit=2")
    rest = await api.get(f"/v1/endpoints?limit=2&cursor={page['next_cursor']}")
    shown = {one["endpoint"] for one in page["items"] + rest["items"]}
    assert shown == {f"https://{n}.example.com/…" for n in range(3)}
    assert rest["next_cursor"] is None


async def test_a_test_is_written_and_told(api: Api) -> None:
    body = {"webhook": "https://example.invalid/hook"}
    status, told = await api.call("POST", "/v1/notifications/test", body)
    assert (status, told["event"], told["job_id"]) == (202, "penstock.test.v1", None)
    assert told["endpoint"] == "https://example.invalid/…"
    assert await listed(api) == [told["id"]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"webhook": "https://example.com/", "email": "ops@example.com"}, ""),
        ({"webhook": "http://169.254.169.254/"}, "/webhook"),
        ({"webhook": 1}, "/webhook"),
        ({"email": "ops@example.com"}, "/email"),
        ({"url": "https://example.com/"}, "/url"),
        ({"rule": "nobody"}, "/rule"),
        ({"rule": ""}, "/rule"),
        ({"rule": "r", "webhook": "https://example.com/"}, ""),
    ],
)
async def test_a_bad_test_is_refused(api: Api, body: Any, pointer: str) -> None:
    status, problem = await api.call("POST", "/v1/notifications/test", body)
    assert status == 422
    assert problem["errors"][0]["pointer"] == pointer
    assert await listed(api) == []
