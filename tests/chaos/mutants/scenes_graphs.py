"""What is done to a mutant of graphs, a few seconds each."""

import random
from collections.abc import Sequence
from typing import Any

from tests.chaos.mutants.scenes import job
from tests.chaos.mutants.stage import QUICK, Job, Stage
from tests.support import graph_mix
from tests.support.load import Request
from tests.support.waiting import eventually

_SEED = 11
_FOR_GOOD = 1_000_000  # failures


def dying(**fields: object) -> Job:
    return job(0, failures=_FOR_GOOD, max_attempts=1, **fields)


def graph(on_failure: str = "continue", /, **jobs: Job) -> Request:
    """A workflow of these, by name."""
    named = [{**one, "name": name} for name, one in jobs.items()]
    return Request(named, is_batch=True, workflow={"name": "made", "on_failure": on_failure})


async def woven(stage: Stage) -> None:
    """Small workflows of all shapes, of whose jobs some fail, some die, some are to come."""
    chance = random.Random(_SEED)

    def any_job() -> Job:
        delay_s = 0.7 if chance.random() < 0.2 else 0.0
        if chance.random() < 0.15:
            return dying()
        return job(chance.choice([0, 0.1]), chance.choice([0, 0, 0, 1]), delay_s=delay_s)

    await stage.fleet.start(1, **QUICK)
    for _ in range(40):
        await stage.weave(graph_mix.workflow(chance, chance.randint(2, 8), any_job))
    await stage.weave(graph(a=job(0), b=job(0, delay_s=2.0, depends_on=["a"])))
    await _nested(stage)


async def _nested(stage: Stage) -> None:
    good = {"jobs": [{**job(0.1), "name": "x"}, {**job(0.1), "name": "y", "depends_on": ["x"]}]}
    bad = {"jobs": [{**dying(), "name": "x"}]}
    for payload in (good, bad):
        holder: dict[str, Any] = {"kind": "workflow", "payload": payload}
        after = job(0, depends_on=["h"], run_if="all_finished")
        await stage.weave(graph(h=holder, after=after))


async def joined(stage: Stage) -> None:
    """Jobs that depend on jobs that are over, that run, and that wait."""
    await stage.fleet.start(1, **QUICK)
    over = list(await stage.submit(job(0), dying()))
    running = list(await stage.submit(job(1.5)))
    waiting = list(await stage.submit(job(0, delay_s=1.0)))
    await _over(stage, *over)
    for parents in (over[:1], running, waiting, over + running, running + waiting):
        await stage.submit(job(0, depends_on=parents, run_if="all_finished"))
        await stage.submit(job(0, depends_on=parents))


async def fanned_out(stage: Stage) -> None:
    """A parent with more children than one step tells: all skipped, and all run."""
    stage.drain_s = 30.0
    await stage.fleet.start(1, **QUICK)
    for run_if in ("all_failed", "all_finished"):
        child = job(0, depends_on=["a"], run_if=run_if)
        children = {f"c{number}": child for number in range(1030)}
        await stage.weave(graph(a=job(0), **children))


async def stopped(stage: Stage) -> None:
    """Workflows that stop at the first death: some of their jobs run, wait for a retry, wait."""
    await stage.fleet.start(1, **QUICK)
    for _ in range(5):
        slow = {"kind": "fixed", "base_s": 1.5}
        await stage.weave(
            graph(
                "stop",
                dies=job(0.5, failures=_FOR_GOOD, max_attempts=1),
                fails={**job(0, failures=1), "backoff": slow},
                runs=job(1.0),
                comes=job(0, delay_s=2.0),
                waits=job(0, depends_on=["runs"]),
                tells=job(0, depends_on=["dies"], run_if="any_failed"),
                cleans=job(0, depends_on=["runs", "comes", "waits"], run_if="all_finished"),
            )
        )


async def cancelled(stage: Stage) -> None:
    """Workflows are cancelled while some of their jobs run, which fail or would."""
    await stage.fleet.start(1, **QUICK)
    for number in range(5):
        failing = job(1.0, failures=1)
        id_, ids = await stage.weave(
            graph(a=failing, b=job(0, depends_on=["a"]), c=job(0, delay_s=3.0), d=job(1.0))
        )
        await _begun(stage, ids["a"], ids["d"])
        await stage.change(id_, "cancel", "workflows")
        if number % 2:
            await _over(stage, *ids.values())
            await stage.change(id_, "retry", "workflows")


async def retried(stage: Stage) -> None:
    """Workflows are retried when they are over, and while a branch of them still runs."""
    await stage.fleet.start(1, **QUICK)
    two_lives = job(0, failures=1, max_attempts=1)
    for _ in range(5):
        id_, ids = await stage.weave(
            graph(
                dies=two_lives,
                long=job(1.5),
                good=job(0),
                below=job(0, depends_on=["dies", "good"]),
                both=job(0, depends_on=["dies", "long"], run_if="all_finished"),
            )
        )
        await _over(stage, ids["below"])
        await stage.change(id_, "retry", "workflows", **{"from": ["dies"]})
    for _ in range(5):
        id_, ids = await stage.weave(graph(a=two_lives, b=job(0, depends_on=["a"])))
        await _over(stage, *ids.values())
        await stage.change(id_, "retry", "workflows")


async def _over(stage: Stage, *ids: str) -> None:
    await _in_states(stage, ids, ("succeeded", "dead", "cancelled", "skipped"))


async def _begun(stage: Stage, *ids: str) -> None:
    await _in_states(stage, ids, ("running", "succeeded", "dead"))


async def _in_states(stage: Stage, ids: Sequence[str], states: Sequence[str]) -> None:
    async def look() -> bool:
        paths = [f"/v1/jobs/{id_}" for id_ in ids]
        url = stage.fleet.urls[0]
        found = [await stage.api.call_at(url, "GET", path) for path in paths]
        return all(job["state"] in states for _, job in found)

    await eventually(look, f"{len(ids)} jobs are {' or '.join(states)}")
