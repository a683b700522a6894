"""Counts what was started and settled: a batch at a time, never a lock or a call for each job."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from penstock.domain.job import Started
from penstock.store.jobs import Settlement
from penstock.telemetry.metrics import Metrics


def count_started(metrics: Metrics, started: Iterable[Started]) -> None:
    """How long they had been due."""
    waits: dict[str, list[float]] = defaultdict(list)
    for job in started:
        waits[job.queue].append((job.started_at - job.ready_at).total_seconds())
    for queue, waited_s in waits.items():
        metrics.queue_wait(queue).observe_all(waited_s)


def count_settled(metrics: Metrics, settled: Sequence[Settlement], now_ms: int) -> None:
    """Attempts, retries, ends; how long attempts ran, and how long jobs took from due to over."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    runs: dict[tuple[str, str, str], list[float | None]] = defaultdict(list)
    ends: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in settled:
        job, state = one.job, one.verdict.state
        runs[job.queue, job.kind, one.ending.outcome].append(one.ran_s)
        if state is not None:
            took = now - (job.first_started_at or job.ready_at)
            ends[job.queue, state].append(took.total_seconds())
        elif one.verdict.failures > job.failures:
            metrics.retries(job.queue, job.kind).inc()
    for (queue, kind, outcome), ran in runs.items():
        metrics.attempts(kind, outcome).inc(len(ran))
        if known := [seconds for seconds in ran if seconds is not None]:
            metrics.run_duration(queue, kind, outcome).observe_all(known)
    for (queue, end), took_s in ends.items():
        metrics.jobs_ended(queue, end).inc(len(took_s))
        metrics.end_to_end(queue).observe_all([max(seconds, 0.0) for seconds in took_s])
