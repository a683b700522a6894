"""Many callers at once, in a process of their own: `python -m tests.bench.crowd`.

In: a `Plan` as JSON in the arguments. Out: what became of each request, in files of a directory.
Apart from the benchmark's own process, so that what looks at the server meanwhile isn't held up.
"""

import array
import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from penstock.cli.looping import run
from tests.bench.client import Client, Link
from tests.bench.figures import BenchError

_TICK_S = 0.001
_SEED = 20_26
_PATIENCE_S = 30.0  # for the last answers


@dataclass(frozen=True, slots=True)
class Plan:
    """`per_s` 0: a closed loop, `at_once` requests are under way, on all links in turn (0: one on
    each); else so many requests a second at random instants, whatever the answers do. It ends
    after `seconds`, or when `jobs` were accepted (each refused request is sent again after its
    Retry-After)."""

    url: str
    bearer: str
    queue: str
    links: int
    batch: int = 1
    at_once: int = 0
    per_s: float = 0.0
    seconds: float = 0.0
    jobs: int = 0


@dataclass(slots=True)
class Outcome:
    """Times are seconds from when a request was due until its answer."""

    accepted_s: "array.array[float]" = field(default_factory=lambda: array.array("d"))
    refused_s: "array.array[float]" = field(default_factory=lambda: array.array("d"))
    ids: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    unsent: int = 0  # due, but no link was free
    overtime_s: float = 0.0  # from the end of the plan until the last answer

    @property
    def asked(self) -> int:
        return sum(self.statuses.values())


class _Crowd:
    """The owner of all links."""

    def __init__(self, plan: Plan, client: Client, links: list[Link]) -> None:
        self._plan = plan
        self._out = Outcome()
        self._bodies: list[bytes] = []
        jobs = [
            {"kind": "echo", "queue": plan.queue, "payload": {"i": i}} for i in range(plan.batch)
        ]
        path, body = (
            ("/v1/jobs", jobs[0]) if plan.batch == 1 else ("/v1/jobs/batch", {"jobs": jobs})
        )
        self._request = client.request("POST", path, body)
        self._idle = deque(links)
        self._due: deque[float] = deque()
        self._under_way = 0
        self._left = plan.jobs // plan.batch
        self._over = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for link in links:
            link.owner = self

    async def run(self) -> Outcome:
        began = time.perf_counter()
        if self._plan.per_s:
            await self._pace(began)
        else:
            for _ in range(self._plan.at_once or self._plan.links):
                self._next(self._idle.popleft())
            if self._plan.seconds:
                await asyncio.sleep(self._plan.seconds)
        if not self._plan.jobs:
            self._out.unsent = len(self._due)
            self._due.clear()
            self._over = True
        ended = time.perf_counter()
        if self._under_way or self._plan.jobs:
            await asyncio.wait_for(self.done, _PATIENCE_S + 600 * bool(self._plan.jobs))
        out = self._out
        out.wall_s = (time.perf_counter() if self._plan.jobs else ended) - began
        out.overtime_s = time.perf_counter() - ended
        used = resource.getrusage(resource.RUSAGE_SELF)
        out.cpu_s = used.ru_utime + used.ru_stime
        for body in self._bodies:
            answer = orjson.loads(body)
            out.ids += [one["id"] for one in answer.get("items", (answer,))]
        return out

    async def _pace(self, began: float) -> None:
        """Puts what is due onto free links, once a millisecond."""
        instants = _instants(self._plan, began)
        at = next(instants, None)
        while at is not None:
            now = time.perf_counter()
            while at is not None and at <= now:
                self._due.append(at)
                at = next(instants, None)
            while self._due and self._idle:
                self._send(self._idle.popleft(), self._due.popleft())
            await asyncio.sleep(_TICK_S)

    def answered(self, link: Link, status: int, body: bytes) -> None:
        out = self._out
        took_s = time.perf_counter() - link.began
        self._under_way -= 1
        out.statuses[status] += 1
        if status == 201:
            out.accepted_s.append(took_s)
            self._bodies.append(body)
        elif status == 503:
            out.refused_s.append(took_s)
        else:
            self._fail(f"answered {status}: {body[:300]!r}")
        if self._plan.per_s:
            if self._due:
                self._send(link, self._due.popleft())
            else:
                self._idle.append(link)
        elif self._plan.jobs and status == 503:
            self._left += 1
            asyncio.get_running_loop().call_later(random.uniform(0.5, 1.5), self._next, link)
        else:
            self._idle.append(link)
            self._next(self._idle.popleft())
        if self._over and not self._under_way and not self.done.done():
            self.done.set_result(None)

    def lost(self) -> None:
        self._fail("the server closed a connection")

    def _fail(self, text: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchError(text))

    def _next(self, link: Link) -> None:
        """A closed loop's next request."""
        if self._over or (self._plan.jobs and not self._left):
            if self._plan.jobs and not self._under_way and not self._left:
                self._over = True
                if not self.done.done():
                    self.done.set_result(None)
            return
        self._left -= 1
        self._send(link, time.perf_counter())

    def _send(self, link: Link, due: float) -> None:
        link.began = due
        self._under_way += 1
        link.send(self._request)


def _instants(plan: Plan, began: float) -> Iterator[float]:
    source = random.Random(_SEED)
    at = source.expovariate(plan.per_s)
    while at < plan.seconds:
        yield began + at
        at += source.expovariate(plan.per_s)


async def _main(plan: Plan) -> Outcome:
    client = Client(plan.url, plan.bearer)
    async with AsyncExitStack() as stack:
        links = await stack.enter_async_context(client.links(plan.links))
        return await _Crowd(plan, client, links).run()


async def crowd(plan: Plan, directory: Path) -> Outcome:
    """Runs a plan in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.crowd", json.dumps(asdict(plan)), str(directory)
    )
    if await process.wait():
        raise BenchError("the crowd failed")
    return _read(directory)


def _write(out: Outcome, directory: Path) -> None:
    for name in ("accepted_s", "refused_s"):
        (directory / name).write_bytes(getattr(out, name).tobytes())
    (directory / "ids").write_text("\n".join(out.ids))
    rest = {name: getattr(out, name) for name in _REST}
    (directory / "rest").write_text(json.dumps(rest))


_REST = ("statuses", "wall_s", "cpu_s", "unsent", "overtime_s")


def _read(directory: Path) -> Outcome:
    rest: dict[str, Any] = json.loads((directory / "rest").read_text())
    rest["statuses"] = Counter({int(k): v for k, v in rest["statuses"].items()})
    out = Outcome(**rest)
    out.accepted_s.frombytes((directory / "accepted_s").read_bytes())
    out.refused_s.frombytes((directory / "refused_s").read_bytes())
    out.ids = (directory / "ids").read_text().split()
    return out


if __name__ == "__main__":
    _write(run(_main(Plan(**json.loads(sys.argv[1])))), Path(sys.argv[2]))
