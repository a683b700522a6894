"""SIGTERM under load (reliability.md: F3, I15)."""

import asyncio
import time

import pytest

from tests.support.figures import figures
from tests.support.load import Job
from tests.support.replica import ReplicaProcess
from tests.support.scene import Scene, next_starts
from tests.support.submissions import NO_ANSWER, REFUSED
from tests.support.waiting import eventually

_GRACE_S = 2
_LONG_S = 8
_LATE_START_S = 0.1
_ELSEWHERE_S = 1.5


@pytest.mark.timeout(90)
async def test_a_replica_told_to_end_hands_back_what_it_cannot_finish(scene: Scene) -> None:
    (leaver,) = await scene.fleet.start(1, worker__drain_grace_s=_GRACE_S)
    await scene.load.bulk(leaver.url, [_long("logged")] * 150 + [_long("logged-thread")] * 12)
    await scene.started(162)
    (stayer,) = await scene.fleet.start(1)
    async with scene.load.stream([leaver.url, stayer.url], 200, _short):
        await scene.started(162 + 300)
        told_at = time.time()
        leaver.terminate()
        unready_s = await _unready(leaver)
        status = await asyncio.to_thread(leaver.wait)
        took_s = time.time() - told_at
    await scene.end("SIGTERM")
    attempts = {(a["job"], a["attempt"]): a for a in await scene.attempts()}
    began = next_starts(scene.log.events)
    released = {key: a["finished_at"] for key, a in attempts.items() if a["outcome"] == "released"}
    again = [began[job, n + 1] - at for (job, n), at in released.items()]
    late = [e.t - told_at for e in scene.log.starts() if e.pid == leaver.pid and e.t > told_at]
    figures(
        "SIGTERM",
        unready_s=unready_s,
        answers=scene.load.submitted.between(told_at, told_at + took_s).statuses(),
        exit_s=took_s,
        released=len(released),
        again_max_s=max(again),
        starts_after=len(late),
        last_start_after_s=max(late, default=0.0),
    )
    assert status == 0
    assert took_s <= _GRACE_S + 5
    assert len(released) >= 162 - 10
    assert unready_s < 0.3
    assert scene.load.submitted.between(0, told_at + took_s).statuses().keys() <= {
        REFUSED,
        NO_ANSWER,
        201,
    }
    assert {a["outcome"] for a in attempts.values()} == {"succeeded", "released"}
    assert max(again) <= _ELSEWHERE_S
    assert max(late, default=0.0) <= _LATE_START_S


@pytest.mark.timeout(60)
async def test_a_second_signal_ends_a_replica_at_once(scene: Scene) -> None:
    leaver, stayer = await scene.fleet.start(2, worker__ttl_s=2, worker__beat_s=0.3)
    await scene.load.bulk(stayer.url, [{"kind": "logged", "payload": {"seconds": 2}}] * 1000)
    await scene.busy(leaver, 50)
    leaver.terminate()
    await asyncio.sleep(0.5)
    told_at = time.time()
    leaver.terminate()
    status = await asyncio.to_thread(leaver.wait)
    took_s = time.time() - told_at
    report = await scene.end("second SIGTERM")
    figures("second SIGTERM", exit_s=took_s)
    assert status == 130
    assert took_s < 1
    assert report.outcomes["succeeded"] == 1000


async def _unready(replica: ReplicaProcess) -> float:
    """Seconds until a balancer that asks would leave the replica out."""
    began = time.monotonic()

    async def look() -> bool:
        return not await asyncio.to_thread(replica.is_ready)

    await eventually(look, f"{replica.url} is not ready", 5, every_s=0.01)
    return time.monotonic() - began


def _long(kind: str) -> Job:
    return {"kind": kind, "payload": {"seconds": _LONG_S}}


def _short(number: int) -> Job:
    return {"kind": "logged", "payload": {"seconds": 0.05 * (number % 8)}}
