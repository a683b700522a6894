"""Thousands of jobs fail at once for one cause, while fresh ones come in (F31)."""

from typing import Any

import pytest

from tests.bench.figures import percentile
from tests.support.figures import figures
from tests.support.load import Job
from tests.support.scene import Scene
from tests.support.waiting import eventually

_STORM = 6000
_BACKOFF = {"kind": "fixed", "base_s": 2, "jitter": "none"}
_FAILS: Job = {"kind": "logged", "queue": "storm", "payload": {"failures": 1}, "backoff": _BACKOFF}
_FRESH: Job = {"kind": "echo", "queue": "fresh"}
_FRESH_PER_S = 40
_BUDGET = {"worker__retry_min_per_s": 400, "worker__retry_burst": 500, "worker__retry_share": 0}

_RETRIES = """
SELECT extract(epoch FROM a.next_run_at - a.finished_at)::float8 AS delay_s,
       extract(epoch FROM b.started_at - a.next_run_at)::float8 AS late_s,
       extract(epoch FROM a.next_run_at)::float8 AS due
FROM attempts a JOIN attempts b USING (job_id) JOIN jobs j USING (job_id)
WHERE j.queue = 'storm' AND a.attempt = 1 AND b.attempt = 2
"""

_WAITS = """
SELECT extract(epoch FROM a.started_at - j.run_at)::float8 * 1000 AS ms
FROM attempts a JOIN jobs j USING (job_id)
WHERE j.queue = 'fresh' AND extract(epoch FROM j.run_at) BETWEEN $1 AND $2
"""


async def storm(scene: Scene, **settings: Any) -> tuple[list[float], float]:
    """All fail once; the delays of their retries, in order, and the
    99th percentile of what fresh jobs waited while these fell due, in ms."""
    (replica,) = await scene.fleet.start(1, **settings)
    await scene.load.bulk(replica.url, [_FRESH])
    async with scene.load.stream(scene.fleet.urls, _FRESH_PER_S, lambda _: _FRESH):
        await scene.load.bulk(replica.url, [_FAILS] * _STORM)

        async def over() -> bool:
            async with scene.connected() as con:
                return len(await con.fetch(_RETRIES)) == _STORM

        await eventually(over, "all were tried again", within_s=60, every_s=0.5)
    await scene.end("retry storm")
    async with scene.connected() as con:
        rows = await con.fetch(_RETRIES)
        first, last = min(row["due"] for row in rows), max(row["due"] for row in rows)
        waits = [row["ms"] for row in await con.fetch(_WAITS, first, last)]
    assert min(row["late_s"] for row in rows) >= 0
    delays = sorted(row["delay_s"] for row in rows)
    p99 = percentile(waits, 99)
    figures("retry storm", jobs=_STORM, fresh=len(waits), p99_ms=p99, longest_s=delays[-1])
    return delays, p99


@pytest.mark.timeout(120)
async def test_retries_beyond_the_budget_come_one_after_the_other(scene: Scene) -> None:
    delays, _ = await storm(scene, **_BUDGET)
    assert delays[0] == pytest.approx(2, abs=0.01)
    assert delays[400] == pytest.approx(2, abs=0.01)
    assert 2 + 5 < delays[-1] < 2 + (_STORM - 500) / 400 + 0.1


@pytest.mark.timeout(120)
async def test_without_a_spread_all_retry_as_their_back_off_says(scene: Scene) -> None:
    delays, _ = await storm(scene, worker__retry_spread_max_s=0)
    assert delays[-1] == pytest.approx(2, abs=0.01)
