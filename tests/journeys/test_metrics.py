"""What the metrics say after a workload is what the workload must give, to the last job."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from penstock.settings import Settings
from tests.support.api import Api
from tests.support.fleet import Fleet
from tests.support.scrape import Scrape, scraped, scraped_when
from tests.support.waiting import eventually

NO_WAIT = {"kind": "fixed", "base_s": 0, "jitter": "none"}
QUICK = {"worker__ttl_s": 1, "worker__beat_s": 0.2, "queue__lease_s": 2, "queue__renew_s": 0.5}


def counted(scrape: Scrape, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The series that aren't 0, by the values of their labels."""
    return {
        tuple(dict(series)[label] for label in labels): value
        for series, value in scrape.series(name).items()
        if value
    }


async def workload(api: Api) -> None:
    """5 single jobs, 10 in a batch, a chain of 3, a handler's 2, a retry, two that die (one is
    replayed, one retried, both die again), one too late, one cancelled, one delayed."""
    ids = [await api.submit("echo", n) for n in range(5)]
    ids += await api.submit_many([{"kind": "echo", "queue": "mail"}] * 10)
    chain = [
        {"name": f"n{n}", "kind": "echo", "depends_on": [f"n{n - 1}"] * (n > 0)} for n in range(3)
    ]
    _, workflow = await api.call("POST", "/v1/workflows", {"name": "chain", "jobs": chain})
    ids.append(await api.submit("spawning", {"count": 2}))
    ids.append(await api.submit("logged", {"failures": 2}, max_attempts=3, backoff=NO_WAIT))
    dead = [await api.submit("fail", {"retryable": False}, queue="mail") for _ in range(2)]
    ids.append(await api.submit("sleep", {"seconds": 60}, timeout_s=0.1, max_attempts=1))
    ids.append(await api.submit("echo", delay_s=0.6))
    late = await api.submit("echo", delay_s=60)
    for id_ in [*ids, *dead]:
        await api.ended(id_)
    assert (await api.call("POST", f"/v1/jobs/{late}/cancel"))[0] == 200
    assert (await api.call("POST", f"/v1/dead-letters/{dead[0]}/replay"))[0] == 200
    assert (await api.call("POST", f"/v1/jobs/{dead[1]}/retry"))[0] == 200
    for id_ in dead:
        await api.ended(id_)

    async def over() -> bool:
        return bool((await api.get(f"/v1/workflows/{workflow['id']}"))["state"] == "succeeded")

    await eventually(over, "the workflow is over")


ENDS = {
    ("default", "succeeded"): 11.0,  # 5 + 3 + spawning + logged + delayed
    ("a", "succeeded"): 2.0,
    ("mail", "succeeded"): 10.0,
    ("mail", "dead"): 4.0,
    ("default", "dead"): 1.0,
    ("default", "cancelled"): 1.0,
}


async def test_the_metrics_are_those_of_the_workload(api: Api) -> None:
    await workload(api)

    def is_over(scrape: Scrape) -> bool:
        return sum(scrape.series("jobs_ended_total").values()) == sum(ENDS.values())

    found = await scraped_when(api.url, is_over, "all ends are counted")
    assert counted(found, "jobs_ended_total", "queue", "state") == ENDS
    assert counted(found, "jobs_submitted_total", "queue", "source") == {
        ("default", "api"): 10,  # 5, spawning, logged, sleep, two echo
        ("mail", "batch"): 10,
        ("default", "workflow"): 3,
        ("a", "handler"): 2,
        ("mail", "api"): 2,
        ("mail", "replay"): 1,
        ("mail", "retry"): 1,
    }
    assert counted(found, "attempts_total", "kind", "outcome") == {
        ("echo", "succeeded"): 5 + 10 + 3 + 1,
        ("spawning", "succeeded"): 1,
        ("logged", "failed"): 2,
        ("logged", "succeeded"): 1 + 2,
        ("fail", "failed"): 4,
        ("sleep", "timed_out"): 1,
    }
    assert counted(found, "retries_total", "queue", "kind") == {("default", "logged"): 2}
    starts = {("default",): 5 + 3 + 1 + 3 + 1 + 1, ("a",): 2, ("mail",): 10 + 4}
    assert counted(found, "queue_wait_seconds_count", "queue") == starts
    assert counted(found, "run_duration_seconds_count", "queue", "kind", "outcome") == {
        ("default", "echo", "succeeded"): 9,
        ("mail", "echo", "succeeded"): 10,
        ("default", "spawning", "succeeded"): 1,
        ("default", "logged", "failed"): 2,
        ("default", "logged", "succeeded"): 1,
        ("a", "logged", "succeeded"): 2,
        ("mail", "fail", "failed"): 4,
        ("default", "sleep", "timed_out"): 1,
    }
    ran = {("default",): 11 + 1, ("a",): 2, ("mail",): 10 + 4}
    assert counted(found, "end_to_end_seconds_count", "queue") == ran
    slept = found.value(
        "run_duration_seconds_sum", queue="default", kind="sleep", outcome="timed_out"
    )
    assert slept is not None
    assert 0.1 <= slept < 5
    promoted = found.value("schedule_lag_seconds_count")
    assert promoted is not None
    assert 1 <= promoted <= 3  # and two retries, if they didn't get in line at once
    assert found.value("jobs_unlocked_total") == 3  # two of the chain, the second of the handler's
    assert found.value("workflows_ended_total", state="succeeded") == 1
    assert found.value("unsettled") == 0
    assert counted(found, "submissions_keyed_total", "outcome") == {}, "a workflow has no key"


async def test_what_all_replicas_have_is_told_by_each_and_by_no_counter(api: Api) -> None:
    await api.submit_many([{"kind": "echo", "queue": "held", "delay_s": 60}] * 7)
    assert (await api.call("POST", "/v1/queues/held/pause"))[0] == 200
    await api.submit_many([{"kind": "echo", "queue": "held"}] * 3)
    dead = await api.submit("fail", {"retryable": False})
    await api.ended(dead)

    def is_new(scrape: Scrape) -> bool:
        depth = counted(scrape, "queue_depth", "queue", "state")
        return {("default", "dead"), ("held", "ready")} <= depth.keys()

    found = await scraped_when(api.url, is_new, "the figures are new")
    assert found.value("cluster_told") == 1
    assert counted(found, "queue_depth", "queue", "state") == {
        ("held", "scheduled"): 7,
        ("held", "ready"): 3,
        ("default", "dead"): 1,
    }
    oldest = found.value("queue_oldest_ready_age_seconds", queue="held")
    assert oldest is not None
    assert 0 < oldest < 10
    assert found.value("queue_oldest_ready_age_seconds", queue="default") == 0
    assert found.value("queue_paused", queue="held") == 1
    assert found.value("workers") == 1
    assert found.value("jobs_ended_total", queue="held", state="succeeded") == 0  # before any has
    slots = sum(found.series("slots").values())
    assert found.value("workers_slots") == slots > 0


async def test_who_we_are_and_what_we_stand_on(api: Api, replica_settings: Settings) -> None:
    found = await scraped(api.url)
    assert counted(found, "role", "role") == {(role,): 1 for role in replica_settings.roles}
    assert list(found.series("build_info").values()) == [1]
    assert found.value("ready") == 1
    size = replica_settings.postgres.read_connections
    assert found.value("postgres_pool_size", pool="read") == size
    assert found.value("postgres_connections", pool="engine", state="busy") is not None
    assert found.value("postgres_waiters", pool="engine") == 0
    assert sum(found.series("redis_connections").values()) > 0
    assert found.value("attempts_total", kind="echo", outcome="lost") == 0  # before any is

    def leads(scrape: Scrape) -> bool:
        return scrape.value("leader", task="reconcile") == 1

    await scraped_when(api.url, leads, "the only replica leads")


def of_cluster(scrape: Scrape) -> Mapping[str, object]:
    names = ("queue_depth", "queue_paused", "workers", "workers_slots")
    return {name: scrape.series(name) for name in names}


async def test_a_replica_that_is_killed_falsifies_no_figure_of_all(
    dsn: str, redis_url: str, tmp_path: Path
) -> None:
    fleet = Fleet(dsn, redis_url, tmp_path)
    try:
        one, other = await fleet.start(2, **QUICK)
        async with Api(one.url) as api:
            held = {"kind": "logged", "payload": {"seconds": 3}, "queue": "mail"}
            await api.submit_many([held] * 20)
            await api.submit_many([{"kind": "echo", "queue": "mail", "delay_s": 900}] * 30)

            def runs(scrape: Scrape) -> bool:
                return scrape.value("queue_depth", queue="mail", state="running") == 20

            await scraped_when(one.url, runs, "all run")
            both = await asyncio.gather(scraped(one.url), scraped(other.url))
            assert of_cluster(both[0]) == of_cluster(both[1])
            assert both[0].value("workers") == 2
            one.kill()

            def is_mended(scrape: Scrape) -> bool:
                depth = counted(scrape, "queue_depth", "queue", "state")
                return depth.keys() == {("mail", "scheduled")} and scrape.value("workers") == 1

            found = await scraped_when(other.url, is_mended, "what was lost ran again", 20)
            assert found.value("queue_depth", queue="mail", state="scheduled") == 30
            assert found.value("queue_oldest_ready_age_seconds", queue="mail") == 0
            lost = found.value("attempts_total", kind="logged", outcome="lost")
            assert lost == found.value("reaped_total")
            assert found.value("workers_condemned_total") == 1
    finally:
        fleet.stop()
