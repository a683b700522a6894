"""`GET /metrics` at the door: what is bounded, what is left out, and that it is sound."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from penstock.api import health
from penstock.domain.autoscale import Capacity, Cluster, Load
from penstock.domain.job import State
from penstock.telemetry.families import NAMES_MAX
from penstock.telemetry.metrics import Metrics
from tests.api.conftest import Served
from tests.api.wire import call, raw
from tests.support.scrape import Scrape


class Told:
    """Reads of a PostgreSQL that has these queues, with so many ready jobs each."""

    def __init__(self, queues: Sequence[str]) -> None:
        loads = [Load(name, False, {State.READY: 2}, 7.5, 0, 0.0) for name in queues]
        self._cluster = Cluster(loads, [Capacity(("*",), 3, 30)])

    async def cluster(self) -> Cluster:
        return self._cluster


async def told(served: Served, **parts: Any) -> Scrape:
    async with served(**parts) as port:
        return Scrape((await call(port, "GET", "/metrics")).body.decode())


async def test_without_postgres_the_figures_of_all_replicas_are_left_out(served: Served) -> None:
    found = await told(served)
    assert found.value("cluster_told") == 0
    for name in ("queue_depth", "queue_oldest_ready_age_seconds", "workers", "workers_slots"):
        assert found.series(name) == {}
    assert found.value("reaped_total") == 0  # what is ours is told all the same


async def test_old_figures_are_not_told_again_once_postgres_is_away(served: Served) -> None:
    metrics = Metrics()
    there = await told(served, metrics=metrics, reads=cast(Any, Told(["a"])))
    assert there.value("queue_depth", queue="a", state="ready") == 2
    assert (await told(served, metrics=metrics)).series("queue_depth") == {}


async def test_what_is_counted_of_a_queue_is_there_at_0_before_anything_is(
    served: Served,
) -> None:
    found = await told(served, reads=cast(Any, Told(["a"])))
    assert found.value("jobs_submitted_total", queue="a", source="api") == 0
    assert found.value("jobs_ended_total", queue="a", state="dead") == 0
    assert found.value("jobs_expired_total", queue="a") == 0


async def test_queues_beyond_the_200th_are_told_as_one(served: Served) -> None:
    names = [f"q{n:03}" for n in range(NAMES_MAX + 50)]
    found = await told(served, reads=cast(Any, Told(names)))
    assert found.value("queue_depth", queue="q199", state="ready") == 2
    assert found.value("queue_depth", queue="q200", state="ready") is None
    assert found.value("queue_depth", queue="other", state="ready") == 100
    assert found.value("queue_oldest_ready_age_seconds", queue="other") == 7.5
    assert found.value("workers") == 3
    assert found.value("workers_slots") == 30


async def test_methods_and_paths_that_nobody_knows_are_one(served: Served) -> None:
    async with served() as port:
        for method in ("PURGE", "PROPFIND", "MKCOL"):
            await raw(port, f"{method} /nowhere/{method} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        found = Scrape((await call(port, "GET", "/metrics")).body.decode())
    assert set(found.series("http_requests_total").values()) == {3}
    labels = {"route": "none", "method": "other", "status": "4xx"}
    assert found.value("http_request_duration_seconds_count", **labels) == 3


async def test_who_asks_to_wait_does_not_count_as_slow(served: Served) -> None:
    async with served() as port:
        for wait in (b"Prefer: wait=10\r\n", b"Prefer: return=minimal\r\n"):
            await raw(port, b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\n" + wait + b"\r\n")
        found = Scrape((await call(port, "GET", "/metrics")).body.decode())
    labels = {"route": "/v1/jobs", "method": "GET", "status": "4xx"}
    assert found.value("http_request_duration_seconds_count", **labels) == 1


def full() -> Metrics:
    """As many series as callers can bring about."""
    metrics = Metrics()
    queues = [f"queue-{n:03}" for n in range(NAMES_MAX + 20)]
    for queue in queues:
        metrics.jobs_submitted(queue, "api").inc()
        metrics.jobs_ended(queue, "succeeded").inc()
        metrics.queue_wait(queue).observe(0.1)
        metrics.end_to_end(queue).observe(0.1)
        for outcome in ("succeeded", "failed"):
            metrics.run_duration(queue, f"kind-{queue}", outcome).observe(0.1)
            metrics.attempts(f"kind-{queue}", outcome).inc()
        metrics.retries(queue, f"kind-{queue}").inc()
    reads = Told(queues)
    health.tell(metrics, reads._cluster)
    return metrics


def test_the_series_are_bounded_whatever_callers_name() -> None:
    scrape = Scrape(full().exposition()[0].decode())
    assert 10_000 < len(scrape) < 25_000
    assert len(scrape.text) < 3_000_000


def test_a_scrape_of_200_queues_and_kinds_holds_the_loop_for_a_moment_only() -> None:
    metrics = full()

    def took_s() -> float:
        began = time.process_time()
        metrics.exposition()
        return time.process_time() - began

    assert min(took_s() for _ in range(5)) < 0.06  # 19 ms; by the library it would be 156


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool isn't here: apt-get install prometheus")
    said = subprocess.run(
        [promtool, "check", "metrics"],
        input=full().exposition()[0],
        capture_output=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in said.stderr.decode().splitlines() if line.startswith("penstock_")]
    assert lines == []
