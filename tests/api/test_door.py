"""The door with the whole house behind it: real PostgreSQL, real Redis, real loops."""

import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.server import Replica
from tests.support.api import Api, token
from tests.support.waiting import eventually

UNKNOWN = "01934a5b-0000-7000-8000-000000000000"
STATES = {
    "blocked", "scheduled", "ready", "running", "succeeded", "dead", "cancelled", "skipped",
}  # fmt: skip


@pytest.fixture
async def stranger(replica: Replica) -> AsyncIterator[Api]:
    """May do everything, but only in queues named mail-…."""
    async with Api(replica.url, token("admin", sub="stranger", queues=["mail-*"])) as caller:
        yield caller


async def answered(
    api: Api, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, Mapping[str, str]]:
    """Status, body and headers of a POST, or of a GET without a body."""
    method = "GET" if body is None else "POST"
    async with api._session.request(method, api.url + path, json=body, headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


async def test_a_submission_is_answered_as_it_will_be_read(api: Api) -> None:
    run_at = datetime.now(UTC) + timedelta(days=2)
    body = {
        "kind": "echo",
        "payload": {"x": [1, 2.5, "ü", None]},
        "queue": "mail-out",
        "priority": 9,
        "run_at": run_at.isoformat(),
        "max_attempts": 2,
        "backoff": {"kind": "linear", "base_s": 3, "factor": 1, "max_s": 9, "jitter": "equal"},
        "timeout_s": 12.5,
        "on_lost": "dead",
        "tags": ["a", "b"],
    }
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    status, job, headers = await answered(api, "/v1/jobs", body, traceparent=trace)
    assert status == 201
    assert headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["state"] == "scheduled"
    assert job["run_at"] == run_at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{run_at:%f}"[:3] + "Z"
    assert job["traceparent"] == trace
    assert job["created_by"] == "tests"
    sent = {name: value for name, value in body.items() if name != "run_at"}
    assert job == job | sent
    assert await api.get(f"/v1/jobs/{job['id']}") == job


async def test_a_bare_submission_too_while_its_queue_is_paused(api: Api) -> None:
    await api.call("POST", "/v1/queues/default/pause")
    for fields in ({}, {"delay_s": 3600}):
        _, job, _ = await answered(api, "/v1/jobs", {"kind": "echo", **fields})
        assert job["state"] == ("scheduled" if fields else "ready")
        assert await api.get(f"/v1/jobs/{job['id']}") == job


async def test_a_batch_is_answered_in_order(api: Api) -> None:
    jobs = [{"kind": "echo", "payload": i, "delay_s": 60 * (i % 2)} for i in range(600)]
    status, body, _ = await answered(api, "/v1/jobs/batch", {"jobs": jobs})
    assert status == 201
    assert [item["state"] for item in body["items"]] == ["ready", "scheduled"] * 300
    for i in (0, 299, 599):
        assert (await api.get(f"/v1/jobs/{body['items'][i]['id']}"))["payload"] == i


async def test_a_bad_job_refuses_the_whole_batch(api: Api) -> None:
    jobs = [{"kind": "echo"}, {"kind": "sleep", "payload": {"seconds": "x"}}]
    status, body, _ = await answered(api, "/v1/jobs/batch", {"jobs": jobs})
    assert status == 422
    assert body["errors"][0]["pointer"].startswith("/jobs/1/payload")
    assert (await api.get("/v1/queues"))["items"] == []


async def test_a_caller_may_wait_for_the_end_of_what_he_submits(api: Api) -> None:
    body = {"kind": "sleep", "payload": {"seconds": 0.2}}
    status, job, headers = await answered(api, "/v1/jobs", body, Prefer="wait=20")
    assert (status, job["state"], job["result"]) == (201, "succeeded", {"slept_s": 0.2})
    assert headers["Preference-Applied"] == "wait=20"


async def test_waiting_ends_when_the_time_is_up(api: Api) -> None:
    body = {"kind": "sleep", "payload": {"seconds": 30}}
    began = time.monotonic()
    status, job, _ = await answered(api, "/v1/jobs", body, Prefer="wait=1")
    assert (status, job["state"]) == (201, "running")
    status, seen, headers = await answered(api, f"/v1/jobs/{job['id']}", Prefer="wait=1")
    assert (status, seen["state"]) == (200, "running")
    assert headers["Preference-Applied"] == "wait=1"
    assert 2 <= time.monotonic() - began < 4


async def test_a_job_can_be_waited_for_after_the_fact(api: Api) -> None:
    id_ = await api.submit("sleep", {"seconds": 0.3})
    began = time.monotonic()
    _, job, headers = await answered(api, f"/v1/jobs/{id_}", Prefer="wait=3600")
    assert job["state"] == "succeeded"
    assert headers["Preference-Applied"] == "wait=60"
    _, job, _ = await answered(api, f"/v1/jobs/{id_}", Prefer="wait=60")
    assert job["state"] == "succeeded"
    assert time.monotonic() - began < 3


async def test_cancelling_shows_the_cancelled_job_and_only_once(api: Api) -> None:
    id_ = await api.submit("echo", delay_s=600)
    status, job = await api.call("POST", f"/v1/jobs/{id_}/cancel")
    assert (status, job["state"], job["cancel_reason"]) == (200, "cancelled", "requested")
    status, problem = await api.call("POST", f"/v1/jobs/{id_}/cancel")
    assert (status, problem["type"], problem["state"]) == (
        409,
        "/problems/wrong-state",
        "cancelled",
    )


async def test_cancelling_a_running_job_ends_it(api: Api) -> None:
    id_ = await api.submit("sleep", {"seconds": 60})
    await api.in_state(id_, "running")
    status, job = await api.call("POST", f"/v1/jobs/{id_}/cancel")
    assert status == 200
    assert job["state"] in ("running", "cancelled")
    assert (await api.ended(id_))["state"] == "cancelled"


async def test_a_cancelled_job_can_be_retried_and_a_waiting_one_cannot(api: Api) -> None:
    id_ = await api.submit("echo", 5, delay_s=600)
    status, problem = await api.call("POST", f"/v1/jobs/{id_}/retry")
    assert (status, problem["type"]) == (409, "/problems/wrong-state")
    await api.call("POST", f"/v1/jobs/{id_}/cancel")
    status, job = await api.call("POST", f"/v1/jobs/{id_}/retry")
    assert (status, job["cancel_reason"]) == (200, None)
    assert (await api.ended(id_))["result"] == 5


async def test_what_was_tried_and_logged_is_shown(api: Api) -> None:
    id_ = await api.submit("chatty", {"lines": 3})
    await api.ended(id_)
    (attempt,) = (await api.get(f"/v1/jobs/{id_}/attempts"))["items"]
    assert (attempt["attempt"], attempt["outcome"], attempt["error"]) == (1, "succeeded", None)
    assert attempt["started_at"] <= attempt["finished_at"]

    async def logged() -> Any:
        lines = (await api.get(f"/v1/jobs/{id_}/logs"))["items"]
        return lines if len(lines) == 3 else None

    lines = await eventually(logged, "three lines are kept")
    assert [(line["attempt"], line["level"]) for line in lines] == [(1, "info")] * 3
    assert lines[0].keys() == {"time", "attempt", "level", "message"}


async def test_a_job_of_a_foreign_queue_is_not_there(api: Api, stranger: Api) -> None:
    theirs = await api.submit("echo", queue="billing", delay_s=600)
    for method, path in (
        ("GET", "/v1/jobs/{}"),
        ("GET", "/v1/jobs/{}/attempts"),
        ("GET", "/v1/jobs/{}/logs"),
        ("POST", "/v1/jobs/{}/cancel"),
        ("POST", "/v1/jobs/{}/retry"),
    ):
        foreign = await stranger.call(method, path.format(theirs))
        unknown = await stranger.call(method, path.format(UNKNOWN))
        assert foreign == unknown
        assert foreign[0] == 404
    assert (await api.get(f"/v1/jobs/{theirs}"))["state"] == "scheduled"


async def test_only_open_queues_are_listed_and_shown(api: Api, stranger: Api) -> None:
    for queue in ("billing", "mail-a", "mail-b"):
        await api.submit("echo", queue=queue, delay_s=600)
    page = await stranger.get("/v1/queues")
    assert [queue["name"] for queue in page["items"]] == ["mail-a", "mail-b"]
    assert page["next_cursor"] is None
    assert (await stranger.call("GET", "/v1/queues/billing"))[0] == 404
    assert (await api.call("GET", "/v1/queues/never-heard-of"))[0] == 404
    queue = await stranger.get("/v1/queues/mail-a")
    assert queue["counts"].keys() == STATES
    assert queue["counts"]["scheduled"] == 1
    assert queue["oldest_ready_age_s"] is None
    assert queue["throughput"].keys() == {"succeeded_per_s", "dead_per_s"}
    assert queue["settings"] == {"priority_aging_s": 60.0}


async def test_pausing_makes_a_queue_and_resuming_lets_it_go_on(api: Api) -> None:
    status, queue = await api.call("POST", "/v1/queues/new/pause")
    assert (status, queue["name"], queue["paused"]) == (200, "new", True)
    id_ = await api.submit("echo", queue="new")
    _, job, _ = await answered(api, f"/v1/jobs/{id_}", Prefer="wait=1")
    assert job["state"] == "ready"
    status, queue = await api.call("POST", "/v1/queues/new/resume")
    assert (status, queue["paused"]) == (200, False)
    assert (await api.ended(id_))["state"] == "succeeded"


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("worker", 403), ("submitter", 201)])
async def test_submitting_takes_the_role(replica: Replica, role: str, status: int) -> None:
    async with Api(replica.url, token(role)) as caller:
        assert (await caller.call("POST", "/v1/jobs", {"kind": "echo"}))[0] == status


async def test_payloads_come_back_as_they_were_sent(api: Api) -> None:
    payload = {"n": [0, -1, 1.5, 1e300, 2**53, -(2**53)], "t": 'ü€😀"\\\u0001/', "": None}
    id_ = await api.submit("echo", payload)
    job = await api.ended(id_)
    assert job["payload"] == payload
    assert job["result"] == payload


async def test_submissions_are_counted(api: Api) -> None:
    await api.submit_many([{"kind": "echo", "queue": "counted"}] * 7)
    _, text = await api.call("GET", "/metrics")
    assert 'penstock_jobs_submitted_total{queue="counted",source="batch"} 7.0' in text


async def test_it_says_that_it_is_ready(api: Api) -> None:
    ready = await api.get("/readyz")
    assert ready["ready"] is True
    assert ready["reasons"] == []
    assert ready["loops"]
