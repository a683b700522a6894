"""Handlers that block the event loop or hold the interpreter (reliability.md: F24), and that leak
their slots (F28).

Scaled down to an eighth: a time to live of 1.25 s for 10, a block of 0.6, 3.75 and 11 s for 5, 30
and 90, a longest stall of 7.5 s for 60. `STALL_SCALE=1` takes the times of production, and minutes.
"""

import asyncio
import os
import signal
import time

import pytest

from penstock.loops.keeper import EXIT_STALLED
from penstock.server import EXIT_LEAKY
from tests.support.figures import figures
from tests.support.load import Job
from tests.support.replica import ReplicaProcess
from tests.support.scene import Scene
from tests.support.waiting import eventually

SCALE = float(os.environ.get("STALL_SCALE", "0.125"))
TTL_S, STALL_MAX_S = 10 * SCALE, 60 * SCALE
TIMES = {
    "worker__ttl_s": TTL_S,
    "worker__beat_s": 2 * SCALE,
    "worker__stall_max_s": STALL_MAX_S,
    "queue__lease_s": 10 * SCALE,
    "queue__renew_s": 3 * SCALE,
}
RESCUE_MAX_S = 12 * SCALE + 3  # the reaper's tick and a busy machine don't scale


def _logged(count: int, seconds: float) -> list[Job]:
    return [{"kind": "logged", "payload": {"seconds": seconds * SCALE}}] * count


async def _ran_by(scene: Scene, id_: str, attempt: int = 1) -> ReplicaProcess:
    await scene.begun({(id_, attempt)}, within_s=30 * SCALE + 30)
    pid = next(e.pid for e in scene.log.starts() if e.key == (id_, attempt))
    return next(one for one in scene.fleet.replicas if one.pid == pid)


def _lines(replica: ReplicaProcess, event: str) -> list[str]:
    return [line for line in replica.log_file.read_text().splitlines() if f'"{event}"' in line]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seconds", [5, 30])
async def test_a_handler_that_blocks_the_loop_costs_nobody_his_attempt(
    scene: Scene, seconds: float
) -> None:
    url = (await scene.fleet.start(2, **TIMES))[0].url
    blocking: Job = {"kind": "blocking", "payload": {"seconds": seconds * SCALE}}
    ids = await scene.load.bulk(url, [*_logged(200, 8), blocking])
    blocked = await _ran_by(scene, ids[-1])
    beside = len(scene.log.under_way(blocked.pid))
    report = await scene.end(f"blocked {seconds} s", within_s=60 * SCALE + 30)
    assert report.outcomes == {"succeeded": 201}, "no second execution"
    stalls = await scene.fleet.metric(blocked, "penstock_loop_stall_seconds_sum")
    told = _lines(blocked, "loop_stalled")
    figures(f"blocked {seconds} s", beside=beside, stalls_s=stalls, told=len(told))
    if seconds * SCALE > 2:
        assert seconds * SCALE * 0.9 < stalls < seconds * SCALE + 3
        assert len(told) == 1
        assert "blocking (" in told[0]
        assert "kinds.py:" in told[0], "where the main thread stood"


@pytest.mark.timeout(480)
async def test_a_replica_whose_loop_is_blocked_for_too_long_ends_and_is_rescued(
    scene: Scene,
) -> None:
    await scene.fleet.start(2, **TIMES)
    url = scene.fleet.urls[0]
    blocking: Job = {"kind": "blocking", "payload": {"seconds": 90 * SCALE}, "max_attempts": 1}
    (id_,) = await scene.load.bulk(url, [blocking])
    victim = await _ran_by(scene, id_)
    assert await asyncio.to_thread(victim.wait, 60 * SCALE + 60) == EXIT_STALLED
    ended_at = time.time()
    words = victim.last_words()
    assert "the event loop stood still" in words
    assert "in blocking" in words, "it shows the stacks"
    await scene.begun({(id_, 2)}, within_s=RESCUE_MAX_S + 5)
    again = next(e.t for e in scene.log.starts() if e.key == (id_, 2))
    figures("blocked 90 s", again_after_s=again - ended_at)
    assert again - ended_at <= RESCUE_MAX_S
    other = await _ran_by(scene, id_, 2)
    victim.start()
    await victim.ready()
    assert await asyncio.to_thread(other.wait, 60 * SCALE + 60) == EXIT_STALLED
    report = await scene.end("blocked 90 s", within_s=120 * SCALE + 30)
    assert report.outcomes == {"lost": 2, "succeeded": 1}, "in a child it holds up nobody"


@pytest.mark.timeout(240)
async def test_a_handler_that_holds_the_interpreter_for_too_long_is_fenced(scene: Scene) -> None:
    await scene.fleet.start(2, **TIMES)
    url = scene.fleet.urls[0]
    holding: Job = {"kind": "holding", "payload": {"seconds": 30 * SCALE}}
    *_, id_ = await scene.load.bulk(url, [*_logged(40, 8), holding])
    holder = await _ran_by(scene, id_)
    held = scene.log.under_way(holder.pid)
    report = await scene.end("held 30 s", within_s=240 * SCALE + 40, overlaps_max=len(held) + 2)
    attempts = [a for a in await scene.attempts() if a["outcome"] == "lost"]
    stale = [
        await scene.fleet.metric(one, "penstock_stale_settlements_total")
        for one in scene.fleet.replicas
    ]
    figures("held 30 s", held=len(held), outcomes=report.outcomes, stale=stale)
    assert report.outcomes["succeeded"] == 41
    assert {(a["job"], a["attempt"]) for a in attempts} >= {(id_, 1)}
    assert sum(stale) >= 1, "what it settled late was refused"
    assert all(not one.ended for one in scene.fleet.replicas), "it takes a new name and goes on"
    assert len(_lines(holder, "condemned")) >= 1
    assert "nobody could look" in "".join(_lines(holder, "loop_stalled"))
    (fresh,) = await scene.load.bulk(holder.url, _logged(1, 0))
    await scene.end("held 30 s, afterwards", overlaps_max=len(held) + 2)
    assert fresh


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kind", ["stubborn", "deaf"])
async def test_a_replica_that_has_leaked_too_many_slots_drains_and_leaves_with_75(
    scene: Scene, kind: str
) -> None:
    slots = {"worker__concurrency": 8, "worker__threads": 8, "worker__cancel_grace_s": 0.2}
    (leaky,) = await scene.fleet.start(1, **slots)
    leaking: Job = {"kind": kind, "payload": {"seconds": 60}, "timeout_s": 0.3, "max_attempts": 1}
    await scene.load.bulk(leaky.url, [leaking])

    async def leaked() -> bool:
        return await scene.fleet.metric(leaky, "penstock_leaked_slots") == 1

    await eventually(leaked, "one slot is leaked")
    assert leaky.is_ready(), "an eighth is no reason to leave"
    (good,) = await scene.load.bulk(leaky.url, [{"kind": "logged", "payload": {"seconds": 5}}])
    await scene.begun({(good, 1)})
    await scene.load.bulk(leaky.url, [leaking])
    reason = await _unready(leaky)
    assert "handlers that ignore their end have taken too many slots" in reason
    assert await asyncio.to_thread(leaky.wait, 30) == EXIT_LEAKY
    report = await scene.end(f"leaks of {kind}")
    assert report.outcomes == {"timed_out": 2, "succeeded": 1}, "it let the good one finish"
    (line,) = _lines(leaky, "too_many_leaks")
    assert kind in line


async def _unready(replica: ReplicaProcess) -> str:
    async def look() -> str:
        return await asyncio.to_thread(replica.reasons)

    return await eventually(look, "it says why it isn't ready", 20.0, every_s=0.02)


@pytest.mark.timeout(60)
async def test_a_leaky_replica_that_is_told_to_end_ends_well(scene: Scene) -> None:
    (leaky,) = await scene.fleet.start(1, worker__cancel_grace_s=0.2, worker__leaks_max_percent=100)
    leaking: Job = {"kind": "deaf", "payload": {"seconds": 60}, "timeout_s": 0.3, "max_attempts": 1}
    await scene.load.bulk(leaky.url, [leaking] * 32)

    async def leaked() -> bool:
        return await scene.fleet.metric(leaky, "penstock_leaked_slots") == 32

    await eventually(leaked, "all threads are leaked", 20.0)
    assert leaky.is_ready(), "100 percent: never"
    os.kill(leaky.pid, signal.SIGTERM)
    assert await asyncio.to_thread(leaky.wait, 20) == 0
