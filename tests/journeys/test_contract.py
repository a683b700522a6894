"""The rest of POST /v1/jobs over HTTP: keys, expiry, repeated requests."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock.server import Replica, running
from penstock.settings import Settings
from tests.support.api import Api, token

JOB = "/v1/jobs"
BATCH = "/v1/jobs/batch"


def waiting(**fields: Any) -> dict[str, Any]:
    """A job that stays where it is."""
    return {"kind": "echo", "delay_s": 3600, **fields}


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


@pytest.fixture
async def other(replica: Replica) -> AsyncIterator[Api]:
    async with Api(replica.url, token(sub="other")) as caller:
        yield caller


# unique_key


async def test_a_second_job_with_a_live_ones_key_is_refused_with_its_id(api: Api) -> None:
    first = await api.submit("echo", unique_key="nightly", delay_s=3600)
    status, problem = await api.call("POST", JOB, waiting(unique_key="nightly"))
    assert (status, problem["type"]) == (409, "/problems/duplicate-job")
    assert problem["job_id"] == first
    assert problem["errors"] == [
        {"pointer": "/unique_key", "detail": f"is held by the job {first}"}
    ]
    await api.call("POST", f"{JOB}/{first}/cancel")
    second = await api.submit("echo", unique_key="nightly", delay_s=3600)
    job = await api.get(f"{JOB}/{second}")
    assert job["unique_key"] == "nightly"


async def test_who_asks_for_the_holder_gets_it(api: Api) -> None:
    first = await api.submit("echo", unique_key="nightly", delay_s=3600)
    status, job = await api.call(
        "POST", JOB, {"kind": "sum", "unique_key": "nightly", "on_conflict": "return"}
    )
    assert (status, job["id"], job["kind"]) == (200, first, "echo")
    assert job == await api.get(f"{JOB}/{first}")


async def test_the_holder_is_waited_for_as_ones_own(api: Api) -> None:
    first = await api.submit("echo", {"n": 1}, unique_key="soon", delay_s=0.3)
    sent = {"kind": "echo", "unique_key": "soon", "on_conflict": "return"}
    status, job = await api.call("POST", JOB, sent, {"Prefer": "wait=10"})
    assert (status, job["id"], job["state"]) == (200, first, "succeeded")


async def test_a_batch_names_the_jobs_whose_keys_are_held_and_stores_none(api: Api) -> None:
    first = await api.submit("echo", unique_key="a", delay_s=3600)
    jobs = [waiting(), waiting(unique_key="b"), waiting(unique_key="a")]
    status, problem = await api.call("POST", BATCH, {"jobs": jobs})
    assert (status, problem["type"]) == (409, "/problems/duplicate-job")
    assert [error["pointer"] for error in problem["errors"]] == ["/jobs/2/unique_key"]
    assert problem["job_id"] == first
    jobs[2]["on_conflict"] = "return"
    status, batch = await api.call("POST", BATCH, {"jobs": jobs})
    assert status == 201
    assert batch["items"][2] == {"id": first, "state": "scheduled"}
    assert len({item["id"] for item in batch["items"]}) == 3


async def test_a_dead_jobs_second_life_takes_its_key_again_or_is_refused(api: Api) -> None:
    dead = await api.submit("fail", {"retryable": False}, unique_key="a")
    await api.ended(dead)
    holder = await api.submit("echo", unique_key="a", delay_s=3600)
    status, problem = await api.call("POST", f"{JOB}/{dead}/retry")
    assert (status, problem["type"], problem["job_id"]) == (
        409,
        "/problems/duplicate-job",
        holder,
    )
    assert (await api.get(f"{JOB}/{dead}"))["state"] == "dead"
    await api.call("POST", f"{JOB}/{holder}/cancel")
    status, _ = await api.call("POST", f"{JOB}/{dead}/retry")
    assert status == 200


# Expiry


async def test_what_is_not_started_in_time_is_cancelled_as_expired(api: Api) -> None:
    await api.call("POST", "/v1/queues/still/pause")
    status, job = await api.call(
        "POST", JOB, {"kind": "echo", "queue": "still", "ttl_s": 0.2}, {"Prefer": "wait=10"}
    )
    assert (status, job["state"], job["cancel_reason"]) == (201, "cancelled", "expired")
    assert job["expires_at"] <= job["finished_at"]
    assert job["attempt"] == 0
    await api.call("POST", "/v1/queues/still/resume")
    assert (await api.get(f"{JOB}/{job['id']}/attempts"))["items"] == []


async def test_an_expiry_is_shown_as_it_was_asked_for(api: Api) -> None:
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds")
    id_ = await api.submit("echo", queue="q", delay_s=60, expires_at=in_an_hour)
    job = await api.get(f"{JOB}/{id_}")
    assert job["expires_at"] == in_an_hour.replace("+00:00", "Z")
    _, submitted = await api.call("POST", JOB, waiting(ttl_s=7200))
    assert submitted == await api.get(f"{JOB}/{submitted['id']}")


# Idempotency-Key


async def test_a_request_sent_again_is_answered_as_the_first_time(api: Api) -> None:
    first = await send(api, JOB, waiting(payload={"a": 1, "b": 2}), "k1")
    again = await send(api, JOB, waiting(payload={"b": 2, "a": 1}), "k1")
    assert first[:2] == again[:2]
    assert (first[0], first[2], again[2]) == (201, None, "true")
    in_batch = {"jobs": [waiting(), waiting(queue="other")]}
    first, again = [await send(api, BATCH, in_batch, "k1") for _ in range(2)]
    assert first[:2] == again[:2]
    assert (first[0], first[2], again[2]) == (201, None, "true")
    _, queues = await api.call("GET", "/v1/queues")
    assert sum(queue["counts"]["scheduled"] for queue in queues["items"]) == 3


async def test_the_first_answer_stands_though_the_job_has_moved_on(api: Api) -> None:
    sent = {"kind": "echo", "payload": 1}
    first = await send(api, JOB, sent, "k")
    await api.ended(first[1]["id"])
    again = await send(api, JOB, sent, "k")
    assert again[:2] == first[:2]
    _, waited = await api.call("POST", JOB, sent, {**keyed("k"), "Prefer": "wait=5"})
    assert (waited["id"], waited["state"]) == (first[1]["id"], "succeeded")


async def test_the_first_answer_stands_though_the_defaults_are_others_by_now(
    api: Api, replica_settings: Settings
) -> None:
    strange = {"kind": "nobodys", "delay_s": 3600}
    first = await send(api, JOB, waiting(), "k"), await send(api, JOB, strange, "s")
    update = {"priority": 2, "max_attempts": 9, "strict_kinds": True}
    jobs = replica_settings.jobs.model_copy(update=update)
    others = replica_settings.model_copy(update={"jobs": jobs})
    async with running(others) as other, Api(other.url) as there:
        again = await send(there, JOB, waiting(), "k"), await send(there, JOB, strange, "s")
        fresh = await send(there, JOB, waiting(), "l")
        refused = await send(there, JOB, strange, "t")
    assert [one[:2] for one in again] == [one[:2] for one in first]
    assert fresh[1]["priority"] == 2
    assert (refused[0], refused[1]["errors"][0]["pointer"]) == (422, "/kind")


async def test_run_at_is_never_after_the_start(api: Api) -> None:
    id_ = await api.submit("echo", delay_s=3600)
    await api.call("POST", f"{JOB}/{id_}/cancel")
    await api.call("POST", f"{JOB}/{id_}/retry")
    job = await api.ended(id_)
    assert job["state"] == "succeeded"
    assert job["run_at"] <= job["started_at"]


async def test_a_request_is_repeatable_though_its_times_have_passed(api: Api) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    sent = {"kind": "echo", "expires_at": soon.isoformat()}
    first = await send(api, JOB, sent, "k")
    assert first[0] == 201
    await asyncio.sleep(0.5)
    again = await send(api, JOB, sent, "k")
    assert again[:2] == first[:2]
    assert (await send(api, JOB, sent, "another"))[0] == 422
    assert (await send(api, JOB, {**sent, "payload": 1}, "k"))[0] == 422


async def test_another_body_under_the_same_key_is_refused(api: Api) -> None:
    await send(api, JOB, waiting(payload=1), "k")
    status, problem, _ = await send(api, JOB, waiting(payload=2), "k")
    assert (status, problem["type"]) == (422, "/problems/idempotency-key-reuse")


@pytest.mark.parametrize("size", [20_000, 100_000])
@pytest.mark.parametrize("count", [0, 1, 4])
async def test_large_requests_are_repeatable_too(api: Api, size: int, count: int) -> None:
    """Alone, or so many in a batch. What is over 64 KiB has to be the same byte by byte, unless
    it was decoded with its batch."""
    path = BATCH if count else JOB

    def sent(payload: dict[str, Any]) -> dict[str, Any]:
        job = waiting(payload=payload)
        return {"jobs": [job] * count} if count else job

    payload = {"a": "x" * size, "b": 1}
    first, again = [await send(api, path, sent(payload), "k") for _ in range(2)]
    assert (first[0], first[2], again[2]) == (201, None, "true")
    assert again[:2] == first[:2]
    turned = await send(api, path, sent({"b": 1, "a": "x" * size}), "k")
    is_raw = size > 64 * 1024 and count != 1
    assert turned[0] == (422 if is_raw else 201)
    other = await send(api, path, sent({**payload, "b": 2}), "k")
    assert (other[0], other[1]["type"]) == (422, "/problems/idempotency-key-reuse")


async def test_keys_of_others_and_of_other_calls_are_other_keys(api: Api, other: Api) -> None:
    answers = [
        await send(api, JOB, waiting(), "k"),
        await send(other, JOB, waiting(), "k"),
        await send(api, BATCH, {"jobs": [waiting()]}, "k"),
    ]
    assert [status for status, _, replayed in answers] == [201] * 3
    assert [replayed for _, _, replayed in answers] == [None] * 3


async def test_what_was_refused_does_not_use_its_key_up(api: Api) -> None:
    await api.submit("echo", unique_key="a", delay_s=3600)
    refused = await send(api, JOB, waiting(unique_key="a"), "k")
    assert refused[0] == 409
    assert (await send(api, JOB, {"kind": 5}, "k"))[0] == 422
    stored = await send(api, JOB, waiting(unique_key="b"), "k")
    assert (stored[0], stored[2]) == (201, None)


async def test_a_hundred_at_once_make_one_job(api: Api) -> None:
    sent = waiting()
    answers = await asyncio.gather(*(send(api, JOB, sent, "k") for _ in range(100)))
    made = {body["id"] for status, body, _ in answers if status == 201}
    assert len(made) == 1
    for status, body, _ in answers:
        assert status == 201 or body["type"] == "/problems/idempotency-key-in-progress"


async def test_a_repeated_request_for_a_holder_is_answered_with_it_again(api: Api) -> None:
    first = await api.submit("echo", unique_key="a", delay_s=3600)
    sent = {"kind": "echo", "unique_key": "a", "on_conflict": "return"}
    answers = [await send(api, JOB, sent, "k") for _ in range(2)]
    assert [(status, body["id"], replayed) for status, body, replayed in answers] == [
        (200, first, None),
        (200, first, "true"),
    ]


async def test_a_holder_that_is_gone_since_is_said_to_be(api: Api, dsn: str) -> None:
    first = await api.submit("echo", unique_key="a", delay_s=3600)
    sent = {"kind": "echo", "unique_key": "a", "on_conflict": "return"}
    await send(api, JOB, sent, "k")
    con = await asyncpg.connect(dsn)
    await con.execute("DELETE FROM jobs; DELETE FROM job_due; DELETE FROM job_unique")
    await con.close()
    status, problem, _ = await send(api, JOB, sent, "k")
    assert (status, problem["type"]) == (410, "/problems/gone")
    assert first in problem["detail"]


async def test_a_repeated_request_shows_the_trace_of_the_first(api: Api) -> None:
    traces = [f"00-{n:032x}-{n:016x}-01" for n in (1, 2)]
    answers = []
    for trace in traces:
        headers = {**keyed("k"), "traceparent": trace}
        answers.append(await api.call("POST", JOB, waiting(), headers))
    assert answers[0] == answers[1]
    assert answers[0][1]["traceparent"] == traces[0]


async def send(api: Api, path: str, body: Any, key: str) -> tuple[int, Any, str | None]:
    """Status, body, and what Idempotent-Replayed says."""
    async with api.answer("POST", path, body, keyed(key)) as answer:
        return answer.status, await answer.json(), answer.headers.get("Idempotent-Replayed")
