"""Thousands of jobs fail at once for one cause, while fresh ones come in (F31)."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.bench.figures import percentile
from tests.support.figures import figures
from tests.support.load import Job
from tests.support.scene import Scene
from tests.support.waiting import eventually

_STORM = 6000
_BACKOFF = {"kind": "fixed", "base_s": 4, "jitter": "none"}
_FAILS: Job = {"kind": "logged", "queue": "storm", "payload": {"failures": 1}, "backoff": _BACKOFF}
_FRESH: Job = {"kind": "echo", "queue": "fresh"}
_FRESH_PER_S = 50
_NORMAL = 300  # fresh jobs before the storm
_WORST_S = 3.0  # after the first retry fell due
_BUDGET = {"worker__retry_min_per_s": 400, "worker__retry_burst": 500, "worker__retry_share": 0}

_RETRIES = """
SELECT extract(epoch FROM a.next_run_at - a.finished_at)::float8 AS delay_s,
       extract(epoch FROM b.started_at - a.next_run_at)::float8 AS late_s,
       extract(epoch FROM a.next_run_at)::float8 AS due
FROM attempts a JOIN attempts b USING (job_id) JOIN jobs j USING (job_id)
WHERE j.queue = 'storm' AND a.attempt = 1 AND b.attempt = 2
"""

_WAITS = """
SELECT extract(epoch FROM a.started_at - j.run_at)::float8 * 1000 AS ms,
       extract(epoch FROM j.run_at)::float8 AS at
FROM attempts a JOIN jobs j USING (job_id)
WHERE j.queue = 'fresh'
ORDER BY at
"""


@dataclass(frozen=True, slots=True)
class Storm:
    """`delays_s`: of the retries, in order. 99th percentiles of what fresh jobs waited, in ms:
    before the storm, in the first seconds of the retries, and while any fell due."""

    delays_s: list[float]
    normal_ms: float
    worst_ms: float
    whole_ms: float


async def storm(scene: Scene, jobs: int, **settings: Any) -> Storm:
    """All fail once."""
    (replica,) = await scene.fleet.start(1, **settings)
    await scene.load.bulk(replica.url, [_FRESH])
    async with scene.load.stream(scene.fleet.urls, _FRESH_PER_S, lambda _: _FRESH):

        async def normal() -> bool:
            async with scene.connected() as con:
                return len(await con.fetch(_WAITS)) > _NORMAL

        await eventually(normal, "fresh jobs ran", within_s=30, every_s=0.5)
        await scene.load.bulk(replica.url, [_FAILS] * jobs)

        async def over() -> bool:
            async with scene.connected() as con:
                return len(await con.fetch(_RETRIES)) == jobs

        await eventually(over, "all were tried again", within_s=90, every_s=0.5)
    await scene.end("retry storm")
    async with scene.connected() as con:
        rows, waits = await con.fetch(_RETRIES), await con.fetch(_WAITS)
    assert min(row["late_s"] for row in rows) >= 0
    first, last = min(row["due"] for row in rows), max(row["due"] for row in rows)

    def p99(since: float, until: float) -> float:
        return percentile((row["ms"] for row in waits if since <= row["at"] <= until), 99)

    found = Storm(
        sorted(row["delay_s"] for row in rows),
        percentile((row["ms"] for row in waits[1:_NORMAL]), 99),
        p99(first, first + _WORST_S),
        p99(first, max(last, first + _WORST_S)),
    )
    figures(
        "retry storm", jobs=jobs, fresh=len(waits), longest_s=found.delays_s[-1],
        normal_ms=found.normal_ms, worst_ms=found.worst_ms, whole_ms=found.whole_ms,
    )  # fmt: skip
    return found


@pytest.mark.timeout(120)
async def test_retries_beyond_the_budget_come_one_after_the_other(scene: Scene) -> None:
    delays = (await storm(scene, _STORM, **_BUDGET)).delays_s
    assert delays[0] == pytest.approx(4, abs=0.01)
    assert delays[99] == pytest.approx(4, abs=0.01)
    assert 4 + 5 < delays[-1] < 4 + (_STORM - 500) / 400 + 0.1


@pytest.mark.timeout(120)
async def test_with_the_defaults_a_thousand_come_within_two_seconds_more(scene: Scene) -> None:
    delays = (await storm(scene, 3000)).delays_s
    assert delays[999] < 4 + 2
    assert 4 + 1 < delays[-1] < 4 + 2000 / 100 + 0.1


@pytest.mark.timeout(120)
async def test_without_a_spread_all_retry_as_their_back_off_says(scene: Scene) -> None:
    delays = (await storm(scene, _STORM, worker__retry_spread_max_s=0)).delays_s
    assert delays[-1] == pytest.approx(4, abs=0.01)
