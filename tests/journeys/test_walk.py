"""A job's walk over HTTP, against real servers."""

from tests.support.api import Api


async def test_a_job_runs_and_shows_its_result(api: Api) -> None:
    id_ = await api.submit("echo", {"a": 1})
    job = await api.ended(id_)
    assert (job["state"], job["result"], job["attempt"]) == ("succeeded", {"a": 1}, 1)


async def test_a_failing_job_is_retried_and_then_dead(api: Api) -> None:
    backoff = {"kind": "fixed", "base_s": 0, "jitter": "none"}
    id_ = await api.submit("fail", {"message": "no"}, max_attempts=3, backoff=backoff)
    job = await api.ended(id_)
    assert (job["state"], job["attempt"], job["failures"]) == ("dead", 3, 3)
    attempts = (await api.get(f"/v1/jobs/{id_}/attempts"))["items"]
    assert [a["outcome"] for a in attempts] == ["failed"] * 3


async def test_a_delayed_job_waits_for_its_time(api: Api) -> None:
    id_ = await api.submit("echo", 1, delay_s=0.5)
    assert (await api.get(f"/v1/jobs/{id_}"))["state"] == "scheduled"
    job = await api.ended(id_)
    assert job["started_at"] >= job["run_at"]
