"""Jobs that end their process (reliability.md: F27) are dead as poison in the end, and alone."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from penstock.loops.keeper import EXIT_STALLED
from tests.support.api import token
from tests.support.figures import figures
from tests.support.load import Job
from tests.support.replica import ReplicaProcess
from tests.support.scene import Scene
from tests.support.waiting import eventually

# A short life, so that a lost replica costs a second and not twelve; all else is as in production.
QUICK = {"worker__ttl_s": 1.2, "worker__beat_s": 0.2, "queue__lease_s": 1.5, "queue__renew_s": 0.4}
ENDS_ITSELF = ("exit", "segfault", "kill", "stack")
DEATHS_MAX = 4  # of replicas, for one poison
_UNHARMED = {("succeeded", 0, 0)}


class Warden:
    """Starts anew each replica that has died, as an orchestrator would, and counts the deaths."""

    def __init__(self, replicas: list[ReplicaProcess]) -> None:
        self._replicas = replicas
        self.statuses: list[int] = []

    async def watch(self) -> None:
        while True:
            for one in self._replicas:
                if one.ended:
                    self.statuses.append(one.wait())
                    one.start()
                    await one.ready()
            await asyncio.sleep(0.05)


async def outcomes(scene: Scene, id_: str) -> list[str]:
    status, answer = await scene.load.api.call_at(
        scene.fleet.urls[0], "GET", f"/v1/jobs/{id_}/attempts"
    )
    assert status == 200, answer
    return [attempt["outcome"] for attempt in answer["items"]]


async def job(scene: Scene, id_: str) -> dict[str, Any]:
    async with scene.connected() as con:
        row = await con.fetchrow("SELECT * FROM job_ended WHERE job_id = $1::uuid", id_)
    return dict(row) if row is not None else {}


async def over(scene: Scene, ids: list[str], within_s: float) -> None:
    async def look() -> bool:
        return all([await job(scene, id_) for id_ in ids])

    await eventually(look, f"{len(ids)} jobs are over", within_s, every_s=0.2)


def innocents(count: int, seconds: float) -> list[Job]:
    return [{"kind": "logged", "payload": {"seconds": seconds}, "max_attempts": 1}] * count


async def fates(scene: Scene, ids: list[str]) -> list[dict[str, Any]]:
    return [await job(scene, id_) for id_ in ids]


@asynccontextmanager
async def replaced(replicas: list[ReplicaProcess]) -> AsyncIterator[Warden]:
    warden = Warden(replicas)
    watching = asyncio.create_task(warden.watch())
    yield warden
    watching.cancel()
    await asyncio.wait([watching])


@pytest.mark.timeout(150)
async def test_a_job_that_ends_its_process_ends_two_replicas_and_then_only_itself(
    scene: Scene,
) -> None:
    replicas = await scene.fleet.start(2, **QUICK)
    began = time.monotonic()
    async with replaced(replicas) as warden:
        # Some are long enough to be beside the poison all along, and to be lost twice with it.
        jobs = [*innocents(12, 4), *innocents(100, 0.2), _poison("segfault")]
        *others, poison = await scene.load.bulk(replicas[0].url, jobs)
        await over(scene, [poison, *others], 90)
    assert await outcomes(scene, poison) == ["lost"] * 2 + ["crashed"] * 3
    (row,) = await fates(scene, [poison])
    assert (row["state"], row["reason"]) == ("dead", "poison")
    assert (row["failures"], row["losses"], row["crashes"]) == (0, 2, 3)
    assert orjson.loads(row["error"])["message"] == "the child process was ended by SIGSEGV"
    ended = await fates(scene, others)
    assert {(one["state"], one["failures"], one["crashes"]) for one in ended} == _UNHARMED
    assert warden.statuses == [-signal.SIGSEGV] * 2
    await scene.end("a poison", overlaps_max=0)
    figures(
        "a poison",
        dead_after_s=time.monotonic() - began,
        innocents_in_children=sum(one["losses"] >= 2 for one in ended),
    )


@pytest.mark.timeout(150)
async def test_four_sorts_of_poison_at_once_are_all_found_and_nobody_else(scene: Scene) -> None:
    replicas = await scene.fleet.start(2, **QUICK)
    async with replaced(replicas) as warden:
        jobs = [*innocents(100, 0.5), *(_poison(how) for how in ENDS_ITSELF)]
        ids = await scene.load.bulk(replicas[0].url, jobs)
        await over(scene, ids, 100)
    others, poisons = ids[:100], ids[100:]
    ended = await fates(scene, others)
    assert {(one["state"], one["failures"], one["crashes"]) for one in ended} == _UNHARMED
    found = [await outcomes(scene, id_) for id_ in poisons]
    for each in found:
        assert each[:2] == ["lost"] * 2
        assert each.count("crashed") == 3
        assert set(each) == {"lost", "crashed"}
    rows = await fates(scene, poisons)
    assert {(row["state"], row["reason"]) for row in rows} == {("dead", "poison")}
    assert len(warden.statuses) <= DEATHS_MAX * len(poisons)
    await scene.end("four poisons")
    figures("four poisons", deaths=warden.statuses, outcomes=found)


@pytest.mark.timeout(90)
async def test_a_good_job_that_was_there_when_two_replicas_died_succeeds_in_its_child(
    scene: Scene,
) -> None:
    replicas = await scene.fleet.start(2, **QUICK)
    own = {one.pid for one in replicas}
    ids = await scene.load.bulk(replicas[0].url, innocents(3, 5))
    for attempt in (1, 2):
        await scene.begun({(id_, attempt) for id_ in ids})
        for victim in {e.pid for e in scene.log.starts() if e.attempt == attempt}:
            one = next(one for one in replicas if one.pid == victim)
            one.kill()
            one.start()
            await one.ready()
            own.add(one.pid)
    report = await scene.end("killed twice", within_s=45)
    assert report.outcomes == {"lost": 6, "succeeded": 3}
    last = {event.pid for event in scene.log.starts() if event.attempt == 3}
    assert len(last) == 3, "each in a process of its own"
    assert last.isdisjoint(own)


@pytest.mark.timeout(90)
async def test_a_job_that_spins_for_ever_is_killed_in_its_child_at_its_deadline(
    scene: Scene,
) -> None:
    replicas = await scene.fleet.start(2, **QUICK, worker__stall_max_s=1)
    async with replaced(replicas) as warden:
        spinning = {**_poison("spin"), "timeout_s": 2}
        *others, spin = await scene.load.bulk(replicas[0].url, [*innocents(30, 1), spinning])
        await over(scene, [spin, *others], 60)
    assert await outcomes(scene, spin) == ["lost", "lost", "timed_out"]
    assert warden.statuses == [EXIT_STALLED] * 2
    ended = await fates(scene, others)
    assert {(one["state"], one["failures"], one["crashes"]) for one in ended} == _UNHARMED
    await scene.end("a spinning job")


def _poison(how: str) -> Job:
    """It begins when the others are under way."""
    return {"kind": "poison", "payload": {"how": how}, "max_attempts": 1, "delay_s": 0.5}


@pytest.mark.timeout(60)
async def test_a_shutdown_lets_children_finish_and_hands_back_the_late_ones(scene: Scene) -> None:
    (leaver,) = await scene.fleet.start(1, worker__drain_grace_s=3)
    jobs: list[Job] = [
        {"kind": "logged", "payload": {"seconds": seconds}, "delay_s": 1} for seconds in (2, 20)
    ]
    quick, slow = await scene.load.bulk(leaver.url, jobs)
    async with scene.connected() as con:
        assert await con.execute("UPDATE job_due SET losses = 2") == "UPDATE 2"
    await scene.begun({(quick, 1), (slow, 1)})
    pids = scene.log.pids()
    assert len(pids) == 2
    assert leaver.pid not in pids
    leaver.terminate()
    assert await asyncio.to_thread(leaver.wait, 20) == 0
    found = {a["job"]: a["outcome"] for a in await scene.attempts()}
    assert found == {quick: "succeeded", slow: "released"}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.timeout(60)
async def test_a_child_that_ignores_its_cancel_is_gone_before_its_job_is_handed_back(
    scene: Scene,
) -> None:
    (leaver,) = await scene.fleet.start(1, worker__drain_grace_s=1)
    endless = {"kind": "ticking", "payload": {"seconds": 30, "how": "block"}, "delay_s": 1}
    (id_,) = await scene.load.bulk(leaver.url, [endless])
    async with scene.connected() as con:
        assert await con.execute("UPDATE job_due SET losses = 2") == "UPDATE 1"
    await scene.begun({(id_, 1)})
    host, _, port = leaver.url.removeprefix("http://").rpartition(":")
    _, slow = await asyncio.open_connection(host, int(port))
    slow.write(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
    slow.write(b"authorization: Bearer %b\r\ncontent-length: 9\r\n\r\n{" % token().encode())
    leaver.terminate()
    assert await asyncio.to_thread(leaver.wait, 20) == 0
    slow.close()
    (attempt,) = await scene.attempts()
    assert attempt["outcome"] == "released"
    late = [event.t for event in scene.log.read() if event.t > attempt["finished_at"]]
    assert late == [], "another replica may have begun it by then"
