"""What can become of a job: cancelled, timed out, retried, held, run in a thread, over HTTP."""

import asyncio

from penstock import settings
from penstock.server import running
from tests.support.api import Api
from tests.support.waiting import eventually

NO_WAIT = {"kind": "fixed", "base_s": 0, "jitter": "none"}


async def outcomes(api: Api, id_: str) -> list[str | None]:
    return [a["outcome"] for a in (await api.get(f"/v1/jobs/{id_}/attempts"))["items"]]


async def test_a_waiting_job_is_cancelled_at_once(api: Api) -> None:
    id_ = await api.submit("echo", 1, delay_s=60)
    status, job = await api.call("POST", f"/v1/jobs/{id_}/cancel")
    assert (status, job["state"], job["cancel_reason"]) == (200, "cancelled", "requested")
    assert await outcomes(api, id_) == []


async def test_a_running_job_is_stopped_and_cancelled(api: Api) -> None:
    id_ = await api.submit("sleep", {"seconds": 60})
    await api.in_state(id_, "running")
    status, _ = await api.call("POST", f"/v1/jobs/{id_}/cancel")
    assert status == 200
    job = await api.ended(id_, within_s=5)
    assert (job["state"], job["cancel_reason"]) == ("cancelled", "requested")
    assert await outcomes(api, id_) == ["cancelled"]


async def test_a_running_plain_function_is_stopped_where_it_asks(api: Api) -> None:
    id_ = await api.submit("logged-thread", {"seconds": 60})
    await api.in_state(id_, "running")
    await api.call("POST", f"/v1/jobs/{id_}/cancel")
    assert (await api.ended(id_, within_s=5))["state"] == "cancelled"


async def test_an_ended_job_can_not_be_cancelled(api: Api) -> None:
    id_ = await api.submit("echo", 1)
    await api.ended(id_)
    status, problem = await api.call("POST", f"/v1/jobs/{id_}/cancel")
    assert status == 409
    assert "succeeded" in problem["detail"]


async def test_a_dead_job_gets_a_second_life_with_its_budget_fresh(api: Api) -> None:
    id_ = await api.submit("fail", {}, max_attempts=2, backoff=NO_WAIT)
    assert (await api.ended(id_))["attempt"] == 2
    status, job = await api.call("POST", f"/v1/jobs/{id_}/retry")
    assert (status, job["failures"]) == (200, 0)

    async def look() -> bool:
        job = await api.get(f"/v1/jobs/{id_}")
        return bool(job["state"] == "dead" and job["attempt"] == 4 and job["failures"] == 2)

    await eventually(look, "it dies again after two more attempts")
    assert await outcomes(api, id_) == ["failed"] * 4


async def test_a_job_that_fails_for_good_is_dead_at_once(api: Api) -> None:
    id_ = await api.submit("fail", {"retryable": False, "type": "no", "message": "never"})
    job = await api.ended(id_)
    assert (job["state"], job["attempt"]) == ("dead", 1)
    assert (job["error"]["type"], job["error"]["message"]) == ("no", "never")


async def test_an_attempt_that_runs_too_long_times_out(api: Api) -> None:
    id_ = await api.submit("sleep", {"seconds": 60}, timeout_s=0.2, max_attempts=1)
    job = await api.ended(id_, within_s=5)
    assert (job["state"], job["error"]["type"]) == ("dead", "timeout")
    assert await outcomes(api, id_) == ["timed_out"]


async def test_a_handler_that_swallows_its_cancellation_is_settled_without_it(api: Api) -> None:
    id_ = await api.submit("stubborn", {"seconds": 8}, timeout_s=0.2, max_attempts=1)
    job = await api.ended(id_, within_s=7)
    assert job["error"]["type"] == "timeout"

    async def look() -> bool:
        return "penstock_leaked_slots 1.0" in str(await api.get("/metrics"))

    await eventually(look, "one slot is shown as leaked", within_s=3)


async def test_a_retry_waits_for_its_back_off(api: Api) -> None:
    backoff = {"kind": "fixed", "base_s": 0.5, "jitter": "none"}
    id_ = await api.submit("logged", {"failures": 1}, backoff=backoff)
    job = await api.ended(id_)
    assert (job["state"], job["attempt"], job["failures"]) == ("succeeded", 2, 1)
    first, second = (await api.get(f"/v1/jobs/{id_}/attempts"))["items"]
    assert first["next_run_at"] <= second["started_at"]
    assert first["error"]["type"] == "ValueError"


async def test_what_a_handler_logs_is_kept_with_the_job(api: Api) -> None:
    id_ = await api.submit("chatty", {"lines": 3})
    await api.ended(id_)
    logs = (await api.get(f"/v1/jobs/{id_}/logs"))["items"]
    assert [line["message"] for line in logs] == ["line number=0", "line number=1", "line number=2"]
    assert {(line["attempt"], line["level"]) for line in logs} == {(1, "info")}


async def test_a_paused_queue_holds_its_jobs_and_gives_them_back(api: Api) -> None:
    status, queue = await api.call("POST", "/v1/queues/held/pause")
    assert (status, queue["paused"]) == (200, True)
    id_ = await api.submit("echo", 1, queue="held")
    free = await api.submit("echo", 1)
    await api.ended(free)
    assert (await api.get(f"/v1/jobs/{id_}"))["state"] == "ready"
    await api.call("POST", "/v1/queues/held/resume")
    assert (await api.ended(id_, within_s=3))["state"] == "succeeded"


async def test_higher_priorities_run_first_and_equals_in_order(
    replica_settings: settings.Settings,
) -> None:
    worker = replica_settings.worker.model_copy(update={"concurrency": 1})
    one_slot = replica_settings.model_copy(update={"worker": worker})
    async with running(one_slot) as replica, Api(replica.url) as api:
        await api.call("POST", "/v1/queues/ordered/pause")
        priorities = [1, 5, 9, 5, 9, 0, 5]
        jobs = [
            {"kind": "sleep", "queue": "ordered", "payload": {"seconds": 0.01}, "priority": p}
            for p in priorities
        ]
        ids = await api.submit_many(jobs)
        await api.call("POST", "/v1/queues/ordered/resume")
        ended = [await api.ended(id_) for id_ in ids]
    order = sorted(range(len(ids)), key=lambda n: ended[n]["started_at"])
    assert order == sorted(range(len(ids)), key=lambda n: (-priorities[n], n))


async def test_a_kind_that_nobody_serves_lies_still(api: Api) -> None:
    nobody = await api.submit("no-such-kind", 1, queue="mixed")
    somebody = await api.submit("echo", 1, queue="mixed")
    await api.ended(somebody)
    job = await api.get(f"/v1/jobs/{nobody}")
    assert (job["state"], job["attempt"]) == ("ready", 0)


async def test_no_more_queues_can_be_made_than_the_setting_allows(
    replica_settings: settings.Settings,
) -> None:
    queue = replica_settings.queue.model_copy(update={"count_max": 2})
    few = replica_settings.model_copy(update={"queue": queue})
    async with running(few) as replica, Api(replica.url) as api:
        for name in ("one", "two", "one"):
            await api.submit("echo", 1, queue=name)
        body = {"kind": "echo", "queue": "three"}
        status, problem = await api.call("POST", "/v1/jobs", body)
        assert (status, problem["type"]) == (422, "/problems/too-many-queues")
        assert "queue.count_max" in problem["detail"]


async def test_counts_by_state_add_up(api: Api) -> None:
    many = [{"kind": "echo", "queue": "counted", "payload": n} for n in range(30)]
    many += [{"kind": "fail", "queue": "counted", "payload": {"retryable": False}}] * 5
    many += [{"kind": "echo", "queue": "counted", "payload": 1, "delay_s": 60}] * 4
    await api.submit_many(many)

    async def look() -> bool:
        counts = (await api.get("/v1/queues/counted"))["counts"]
        return bool(
            (counts["succeeded"], counts["dead"], counts["scheduled"], counts["ready"])
            == (30, 5, 4, 0)
        )

    await eventually(look, "30 succeeded, 5 dead, 4 scheduled")


async def test_many_callers_can_wait_for_their_jobs(api: Api) -> None:
    async def one(n: int) -> object:
        body = {"kind": "sleep", "payload": {"seconds": 0.2}, "queue": f"w{n % 3}"}
        status, job = await api.call("POST", "/v1/jobs", body, {"Prefer": "wait=10"})
        assert status == 201
        return job["state"]

    async with asyncio.timeout(8):
        assert set(await asyncio.gather(*(one(n) for n in range(60)))) == {"succeeded"}


async def test_what_a_plain_function_binds_does_not_reach_the_next_job(api: Api) -> None:
    ids = [await api.submit("bound", 3) for _ in range(40)]
    found = {(await api.ended(id_))["result"] for id_ in ids}
    assert len(found) == 1
    assert found != {3}
