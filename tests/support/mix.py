"""Mixed load: what callers do all day, drawn by a seed, at so many jobs a second.

Singles and batches, with and without an Idempotency-Key, unique keys, delays, expiries,
priorities, cancels, retries of dead jobs, looks; workflows and jobs that wait for others; jobs from
1 ms to `longest_s`, some of which fail, and some (tagged `doomed`) for good. Whoever isn't doomed
must not end dead.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from tests.support.fleet import Fleet
from tests.support.graph_mix import edges, workflow
from tests.support.load import DOOMED, Job, Load, Request

__all__ = ["DOOMED", "Mix", "Shape", "Weights"]

_ALWAYS = 1_000_000  # failures
_UNIQUE_KEYS = 20
_CHOICES_MAX = 2000  # of the jobs that may be cancelled, looked at or retried: the latest


@dataclass(frozen=True, slots=True)
class Weights:
    """How often each sort of call is made, relative to the others."""

    single: float = 55
    keyed_single: float = 12
    unique: float = 5
    batch: float = 10
    keyed_batch: float = 4
    again: float = 4  # one of which nobody knows what became, with its key
    cancel: float = 4
    retry: float = 2
    look: float = 6
    workflow: float = 5
    keyed_workflow: float = 2
    waiting: float = 4  # for jobs of before
    cancel_workflow: float = 1
    retry_workflow: float = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """`batch_max`: jobs of a batch; `graph_max`: of a workflow; `longest_s`: of a job."""

    weights: Weights = Weights()
    batch_max: int = 40
    graph_max: int = 10
    longest_s: float = 20.0

    @property
    def jobs_per_call(self) -> float:
        """The mean."""
        weights = self.weights
        singles = weights.single + weights.keyed_single + weights.unique + weights.waiting
        batched = (weights.batch + weights.keyed_batch) * (2 + self.batch_max) / 2
        in_graphs = (weights.workflow + weights.keyed_workflow) * (1 + self.graph_max) / 2
        calls: float = sum(getattr(weights, one.name) for one in fields(weights))
        return (singles + batched + in_graphs) / calls


class Mix:
    def __init__(self, load: Load, fleet: Fleet, shape: Shape, seed: int) -> None:
        self._load = load
        self._fleet = fleet
        self._shape = shape
        self._chance = random.Random(f"{seed}/load")
        self._recent: list[str] = []
        self._doomed: list[str] = []
        self._keys = 0
        self._calls: dict[str, Callable[[], Awaitable[None]]] = {
            "single": lambda: self._submit(1, is_batch=False),
            "keyed_single": lambda: self._submit(1, is_batch=False, key=self._key()),
            "unique": self._unique,
            "batch": lambda: self._submit(self._batch(), is_batch=True),
            "keyed_batch": lambda: self._submit(self._batch(), is_batch=True, key=self._key()),
            "again": self._again,
            "cancel": lambda: self._change(self._recent, "cancel"),
            "retry": lambda: self._change(self._doomed, "retry"),
            "look": self._look,
            "workflow": self._workflow,
            "keyed_workflow": lambda: self._workflow(self._key()),
            "waiting": self._waiting,
            "cancel_workflow": lambda: self._change(self._load.workflows, "cancel", "workflows"),
            "retry_workflow": lambda: self._change(self._load.workflows, "retry", "workflows"),
        }
        self._weights = [getattr(shape.weights, name) for name in self._calls]

    async def call(self, _number: int) -> None:
        """One call of any sort; returns when it has been answered, or not."""
        (name,) = self._chance.choices(list(self._calls), self._weights)
        await self._calls[name]()

    def job(self) -> Job:
        """One job of any sort."""
        chance = self._chance
        failures = chance.choices([0, 1, 2, 3, _ALWAYS], [85, 6, 4, 2, 3])[0]
        kinds = ["logged"] if failures else ["logged", "logged-thread"]
        job: dict[str, Any] = {
            "kind": chance.choices(kinds, [9, 1][: len(kinds)])[0],
            "queue": chance.choice(["a", "b", "c"]),
            "priority": chance.randint(0, 9),
            "payload": {"seconds": self._length_s(failures), "failures": failures},
            "backoff": {"kind": "fixed", "base_s": 0.3},
        }
        if failures == _ALWAYS:
            return {**job, "max_attempts": 2, "tags": [DOOMED]}
        timing = chance.choices(["now", "later", "or never"], [85, 13, 2])[0]
        if timing == "later":
            job["delay_s"] = chance.uniform(0, 4)
        elif timing == "or never":
            job["ttl_s"] = chance.uniform(1, 10)
        return job

    def _length_s(self, failures: int) -> float:
        """Those that fail aren't long: a run would wait for all of their attempts."""
        chance, longest_s = self._chance, self._shape.longest_s
        ranges = [(0.001, 0.001), (0.01, 0.1), (0.1, 0.1 * longest_s), (0.1 * longest_s, longest_s)]
        weights = [60, 25, 12, 0 if failures else 3]
        return chance.uniform(*chance.choices(ranges, weights)[0])

    async def _submit(self, count: int, *, is_batch: bool, key: str | None = None) -> None:
        jobs = [self.job() for _ in range(count)]
        await self._send(Request(jobs, is_batch, key))

    async def _unique(self) -> None:
        name = f"u-{self._chance.randrange(_UNIQUE_KEYS)}"
        await self._send(Request([{**self.job(), "unique_key": name}], is_batch=False))

    async def _workflow(self, key: str | None = None) -> None:
        graph = workflow(self._chance, self._chance.randint(1, self._shape.graph_max), self.job)
        await self._send(replace(graph, key=key))

    async def _waiting(self) -> None:
        parents = self._chance.sample(self._recent, min(len(self._recent), 3))
        await self._send(Request([{**self.job(), **edges(self._chance, parents)}], is_batch=False))

    async def _send(self, request: Request) -> None:
        ids = await self._load.submit(self._urls(), request)
        self._recent = [*self._recent, *ids][-_CHOICES_MAX:]
        pairs = zip(ids, request.in_order(), strict=False)
        self._doomed += [id_ for id_, job in pairs if DOOMED in job.get("tags", ())]
        self._doomed = self._doomed[-_CHOICES_MAX:]

    async def _again(self) -> None:
        if self._load.open:
            await self._send(self._chance.choice(list(self._load.open.values())))

    async def _change(self, ids: list[str], verb: str, of: str = "jobs") -> None:
        if ids:
            id_ = self._chance.choice(ids[-_CHOICES_MAX:])
            await self._load.change(self._urls(), id_, verb, of)

    async def _look(self) -> None:
        if self._recent:
            await self._load.look(self._urls(), f"/v1/jobs/{self._chance.choice(self._recent)}")

    def _batch(self) -> int:
        return self._chance.randint(2, self._shape.batch_max)

    def _key(self) -> str:
        self._keys += 1
        return f"key-{self._keys}"

    def _urls(self) -> list[str]:
        """In some order: whoever finds nobody at the first goes to the next."""
        return self._chance.sample(self._fleet.urls, len(self._fleet.urls))
