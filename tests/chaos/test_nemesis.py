"""The nemesis draws the same by the same seed; the gates follow from the faults; the verdict sees
what it must see. What a whole run finds, `test_everything.py` shows."""

import asyncio
import random
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from tests.chaos import sampler
from tests.chaos.__main__ import main
from tests.chaos.nemesis import FAULTS, Nemesis, NemesisLog, Turn, draw, lanes
from tests.chaos.verdict import Promise, Rescue, Verdict, executed_twice, late_drains, rescues
from tests.support.checker import Drained
from tests.support.execution_log import Event
from tests.support.load import Request
from tests.support.mix import DOOMED, Mix, Shape
from tests.support.proxy import BLACK_HOLE, KILLED, PASS
from tests.support.scene import Scene
from tests.support.waiting import eventually

_TTL_S = 10.0
_QUICK = {"worker__ttl_s": 1, "worker__beat_s": 0.2, "queue__lease_s": 2, "queue__renew_s": 0.5}


def test_a_seed_draws_the_same_strikes_and_another_seed_draws_others() -> None:
    def drawn(seed: int) -> list[tuple[str, int, float, float, float]]:
        found = [draw(seed, "redis", n, lanes(FAULTS)["redis"], _TTL_S) for n in range(50)]
        return [(s.fault, s.victim, s.seconds, s.pause_s, s.chance.random()) for s in found]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("lane", lanes(FAULTS))
def test_each_fault_of_a_lane_is_drawn_and_lasts_as_long_as_its_row_says(lane: str) -> None:
    names = lanes(FAULTS)[lane]
    found = [draw(1, lane, number, names, _TTL_S) for number in range(1000)]
    assert {one.fault for one in found} == set(names)
    for one in found:
        shortest, longest = FAULTS[one.fault].lasts
        unit_s = _TTL_S if FAULTS[one.fault].in_ttls else 1.0
        assert shortest * unit_s <= one.seconds <= longest * unit_s


def test_the_gates_follow_from_the_faults() -> None:
    assert Promise.of(["flush", "pg-restart", "sigterm", "redis-stall"]) == Promise(False, False)
    assert Promise.of(["flush", "kill"]) == Promise(loses=True, overlaps=False)
    assert Promise.of(["kill", "pg-black-hole"]) == Promise(loses=True, overlaps=True)
    bad = Verdict(1, {}, overlaps=1, outcomes={"lost": 1}, repeated=["job"])
    assert all(bad.gates(Promise(loses=True, overlaps=True)).values())
    assert not all(bad.gates(Promise(loses=True, overlaps=False)).values())
    kept = bad.gates(Promise(loses=False, overlaps=True))
    assert {gate for gate, holds in kept.items() if not holds} == {
        *("attempts lost 0", "executed again 0")
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 1},
        {"settled_twice": 1},
        {"innocents": ["job"]},
        {"duplicated": ["job"]},
        {"complaints": ["a rule"]},
        {"trends": {"replica": {"rss_mib": sampler.Trend(80, 80, 301, 0)}}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_nothing_excuses(wrong: dict[str, Any]) -> None:
    assert not all(Verdict(1, {}, **wrong).gates(Promise(loses=True, overlaps=True)).values())


def test_what_was_executed_twice_is_told_with_and_without_a_loss() -> None:
    events = [
        _ended("failed first", 1),
        _ended("failed first", 2),
        _ended("lost first", 1),
        _ended("lost first", 2),
        _ended("twice", 1),
        _ended("twice", 2),
        _ended("lost, and twice", 1),
        _ended("lost, and twice", 2),
        _ended("lost, and twice", 3),
        _ended("unsettled", 1),
        _ended("unsettled", 2),
    ]
    attempts = [
        _attempt("failed first", 1, "failed"),
        _attempt("failed first", 2, "succeeded"),
        _attempt("lost first", 1, "lost"),
        _attempt("lost first", 2, "succeeded"),
        _attempt("twice", 1, "released"),
        _attempt("twice", 2, "succeeded"),
        _attempt("lost, and twice", 1, "lost"),
        _attempt("lost, and twice", 2, "released"),
        _attempt("lost, and twice", 3, "succeeded"),
        _attempt("unsettled", 2, "succeeded"),
    ]
    duplicated, repeated = executed_twice(events, attempts)
    assert duplicated == ["lost, and twice", "twice", "unsettled"]
    assert repeated == ["lost first"]


def test_a_rescue_lasts_from_the_kill_to_the_next_start() -> None:
    attempts = [
        {"job": "a", "attempt": 1, "outcome": "lost", "worker": "w", "finished_at": 23.0},
        {"job": "b", "attempt": 1, "outcome": "lost", "worker": "v", "finished_at": 23.0},
        {"job": "a", "attempt": 2, "outcome": "succeeded", "worker": "v", "finished_at": 29.0},
        {"job": "b", "attempt": 2, "outcome": "succeeded", "worker": "v", "finished_at": 29.0},
    ]
    began = {("a", 1): 10.0, ("b", 1): 11.0, ("a", 2): 24.5, ("b", 2): 30.0}
    for one in attempts:
        one["started_at"] = began[str(one["job"]), int(str(one["attempt"]))]
    assert rescues(attempts, {"w": 12.0}) == [Rescue(reaped_s=11.0, again_s=12.5)]


def test_a_process_number_that_comes_again_is_another_worker() -> None:
    log = NemesisLog(1)
    log.add("kill", "replica", "start", 7)
    at = log.lines[0]["t"]
    workers = [("first", 7, at - 5), ("second", 7, at + 5), ("other", 8, at - 5)]
    assert log.killed_at(workers) == {"first": at}


def test_a_drain_that_fails_or_takes_too_long_is_told() -> None:
    good = Drained(1, signalled_at=10.0, exited_at=14.0, status=0, grace_s=3.0)
    late = Drained(2, signalled_at=10.0, exited_at=18.5, status=0, grace_s=3.0)
    failed = Drained(3, signalled_at=10.0, exited_at=11.0, status=1, grace_s=3.0)
    told = late_drains([good, late, failed])
    assert [text.split(":")[0] for text in told] == ["SIGTERM to 2", "SIGTERM to 3"]


def test_a_trend_tells_a_leak_from_a_level() -> None:
    level = sampler.trend([(float(t), 50.0) for t in range(100)])
    leak = sampler.trend([(float(t), 50.0 + t) for t in range(100)])
    assert (level.first, level.last, level.per_hour) == (50.0, 50.0, 0.0)
    assert (leak.first, leak.last, leak.largest) == (62.0, 137.0, 149.0)
    assert leak.per_hour == pytest.approx(3600)


def test_a_mix_is_drawn_by_its_seed_and_holds_all_sorts() -> None:
    def jobs(seed: int) -> list[Any]:
        mix = Mix(_unused(), _unused(), Shape(), seed)
        return [mix.job() for _ in range(2000)]

    assert jobs(1) == jobs(1)
    assert jobs(1) != jobs(2)
    drawn = jobs(1)
    assert {job["kind"] for job in drawn} == {"logged", "logged-thread"}
    assert {job["priority"] for job in drawn} == set(range(10))
    for field in ("delay_s", "ttl_s", "max_attempts"):
        assert 0 < sum(field in job for job in drawn) < 400
    for job in drawn:
        fails_for_good = job["payload"]["failures"] >= job.get("max_attempts", 5)
        assert fails_for_good == (DOOMED in job.get("tags", ()))
        assert 0.001 <= job["payload"]["seconds"] <= Shape().longest_s


async def test_a_strike_is_logged_and_healing_ends_what_it_left(
    proxied_scene: Scene, workplace: Path
) -> None:
    scene, log = proxied_scene, NemesisLog(1, workplace / "nemesis.log")
    nemesis = Nemesis(scene, log, 1.0)
    one, other = await scene.fleet.start(2, **_QUICK)
    await nemesis.strike_each(Turn("kill", 1, 0.0), (0.0, 0.0))
    await nemesis.strike_each(Turn("redis-black-hole", 2, 0.1), (0.0, 0.0))
    assert log.struck == {"kill0": 1, "redis-black-hole0.1": 2}
    assert [line["event"] for line in log.lines] == ["start", "stop"] * 3
    assert (workplace / "nemesis.log").read_text().count("\n") == 6
    one.proxies["postgres"].apply(BLACK_HOLE)
    other.proxies["redis"].apply(KILLED)
    other.kill()
    scene.servers.redis.kill()
    await nemesis.heal()
    assert one.is_ready()
    assert other.is_ready()
    assert {proxy.fault for proxy in (*one.proxies.values(), *other.proxies.values())} == {PASS}
    await scene.load.bulk(one.url, [{"kind": "logged"}] * 10)
    await scene.end("healed")


async def test_one_replica_loses_redis_and_the_other_does_not(proxied_scene: Scene) -> None:
    scene = proxied_scene
    one, other = await scene.fleet.start(2)
    one.proxies["redis"].apply(BLACK_HOLE)

    async def is_away() -> bool:
        return await scene.fleet.metric(one, "penstock_redis_breaker_open") == 1

    await eventually(is_away, "it has found that Redis is away")
    assert await scene.fleet.metric(other, "penstock_redis_breaker_open") == 0
    await scene.load.bulk(one.url, [{"kind": "logged"}] * 10)
    await scene.end("one of them without Redis")


async def test_a_replica_that_dies_by_itself_is_started_again(scene: Scene) -> None:
    (one,) = await scene.fleet.start(1, worker__stall_max_s=1)
    pid = one.pid
    async with scene.fleet.supervised():
        block = {"kind": "blocking", "payload": {"seconds": 60}, "on_lost": "dead"}
        await scene.load.submit(one.url, Request([block], is_batch=False))

        async def is_another() -> bool:
            return one.pid != pid

        await eventually(is_another, "it was started again", 20)
        await one.ready()
    assert [(death.pid, death.status) for death in scene.fleet.deaths] == [(pid, 70)]
    assert one.environ["PENSTOCK_WORKER__STALL_MAX_S"] == "1"


async def test_the_submission_log_has_three_outcomes(scene: Scene) -> None:
    (one,), load = await scene.fleet.start(1), scene.load
    await load.submit(one.url, Request([{"kind": "logged"}], is_batch=False, key="a"))
    one.pause()
    unheard = Request([{"kind": "logged"}] * 3, is_batch=True, key="b")
    unanswered = asyncio.create_task(load.submit(one.url, unheard))
    await connections(one.port, 1)
    one.kill()
    await unanswered
    await load.submit(one.url, Request([{"kind": "logged"}], is_batch=False))
    assert load.log.counts() == {"ok": 1, "failed": 1, "unknown": 1}
    assert (load.unknown, len(load.open)) == (3, 1)
    one.start()
    await one.ready()
    (again,) = load.open.values()
    assert len(await load.submit(one.url, again)) == 3
    assert (load.unknown, len(load.open)) == (0, 0)
    report = await scene.end("three outcomes")
    assert report.jobs == 4


async def connections(port: int, count: int) -> None:
    """Returns when our requests to that port are under way."""

    async def look() -> bool:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(one.raddr) and one.raddr.port == port for one in found) >= count

    await eventually(look, f"{count} connections to {port}")


@pytest.mark.parametrize(
    "words", [["--plan", "oops:3"], ["--plan", "kill"], ["--minutes", "1", "--faults", "oops"], []]
)
def test_a_plan_that_makes_no_sense_is_refused(words: list[str]) -> None:
    assert CliRunner().invoke(main, words).exit_code == 2


def _ended(job: str, attempt: int) -> Event:
    return Event(random.random(), 1, job, attempt, "end")


def _attempt(job: str, attempt: int, outcome: str, at: float = 0.0) -> dict[str, Any]:
    return {"job": job, "attempt": attempt, "outcome": outcome, "finished_at": at}


def _unused() -> Any:
    return None
