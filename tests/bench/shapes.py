"""Workflows in the shapes that strain an engine: jobs of a submission, parents first."""

import math
from collections.abc import Callable

Job = dict[str, object]


def chain(size: int) -> list[Job]:
    """One after the other."""
    return [_job(n, [n - 1] if n else []) for n in range(size)]


def fan_out(size: int) -> list[Job]:
    """One, then all others."""
    return [_job(n, [0] if n else []) for n in range(size)]


def fan_in(size: int) -> list[Job]:
    """One that waits for all others."""
    return [*(_job(n, []) for n in range(size - 1)), _job(size - 1, range(size - 1))]


def diamond(size: int) -> list[Job]:
    """One, then all but two, then one."""
    between = [_job(n, [0]) for n in range(1, size - 1)]
    return [_job(0, []), *between, _job(size - 1, range(1, size - 1))]


def grid(size: int) -> list[Job]:
    """A square (as near as can be) whose cells wait for those to their left and above."""
    side = math.isqrt(size)
    return [
        _job(n, [*([n - 1] if n % side else []), *([n - side] if n >= side else [])])
        for n in range(size)
    ]


SHAPES: dict[str, Callable[[int], list[Job]]] = {
    "chain": chain,
    "fan-out": fan_out,
    "fan-in": fan_in,
    "diamond": diamond,
    "grid": grid,
}


def _job(number: int, parents: "list[int] | range") -> Job:
    job: Job = {"name": str(number), "kind": "echo", "payload": {"i": number}}
    return {**job, "depends_on": [str(parent) for parent in parents]} if parents else job
