"""Small workflows for the mixed load: diamonds, fans, chains, nested ones, of any jobs."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.load import DOOMED, Job, Request

_RUN_IFS = (
    *("all_succeeded",) * 4,
    *("all_finished",) * 3,
    *("any_succeeded", "any_failed", "none_failed", "none_skipped", "all_failed"),
)
_NESTED = 0.08  # how many jobs are workflows themselves
_SPAWNING = 0.04  # and submit more jobs while they run


def workflow(chance: random.Random, count: int, job: Callable[[], Job]) -> Request:
    """One of so many jobs, each as `job` makes it."""
    shape = chance.choice(["diamonds", "fan out", "fan in", "chain", "any"])
    jobs: list[Job] = []
    for number in range(count):
        names = [str(one["name"]) for one in jobs]
        parents = _parents(chance, shape, names, is_last=number == count - 1)
        one = _any(chance, job)
        jobs.append({**one, "name": f"n{number:02}", **edges(chance, parents)})
    rule = chance.choice(["continue", "continue", "stop"])
    return Request(jobs, is_batch=True, workflow={"name": shape, "on_failure": rule})


def edges(chance: random.Random, parents: Sequence[str]) -> dict[str, Any]:
    """What a job with these parents says of them."""
    if not parents:
        return {}
    return {"depends_on": list(parents), "run_if": chance.choice(_RUN_IFS)}


def _parents(
    chance: random.Random, shape: str, before: Sequence[str], *, is_last: bool
) -> Sequence[str]:
    match shape:
        case "chain":
            return before[-1:]
        case "fan out":
            return before[:1]
        case "fan in":
            return before if is_last else ()
        case "diamonds":
            place = len(before) % 3  # one, two below it, one below both
            return (before[-2:], before[-1:], before[-2:-1])[place]
        case _:
            return chance.sample(before, min(len(before), chance.randint(0, 3)))


def _any(chance: random.Random, job: Callable[[], Job]) -> Job:
    drawn = chance.random()
    if drawn < _NESTED:
        return _nested(chance, job)
    if drawn < _NESTED + _SPAWNING:
        payload = {"count": 3, "seconds": 0, "failures": 0}
        # Where its workflow has stopped meanwhile its jobs are refused, and it dies.
        return {"kind": "spawning", "queue": "a", "payload": payload, "tags": [DOOMED]}
    return job()


def _nested(chance: random.Random, job: Callable[[], Job]) -> Job:
    """A job that is a workflow of two jobs, and dies if one of those does."""
    inner = [{**job(), "name": "a"}, {**job(), "name": "b"}]
    inner[1] |= edges(chance, chance.choice([["a"], []]))
    is_doomed = any(DOOMED in one.get("tags", ()) for one in inner)
    payload = {"name": "nested", "jobs": inner}
    return {"kind": "workflow", "payload": payload, "tags": [DOOMED] if is_doomed else []}
