"""Random graphs on the real engine: `python -m tests.properties.workflows --graphs 200 --seed 7`.

Two replicas as processes, one or the other of which is killed every few seconds; callers who submit
graphs over HTTP, add to them, cancel them or jobs of them, and retry them when they are over. Each
job must end as the reference says that it may; then the checker holds all of its rules.
"""

import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import click

from tests.chaos.mutants.stage import QUICK
from tests.properties.scripts import Part, Script, drawn
from tests.support.figures import crowded, figures
from tests.support.scene import Scene, staged
from tests.support.servers import Servers
from tests.support.workflow_reference import CANCELLED, Graph, Sets

AT_ONCE = 24
KILL_EVERY_S = 4.0
_LATE_S = 120.0  # a graph that isn't over by then hangs
_RETRIES_MEANWHILE = 8  # most of them find nothing that could run again
_ENDS = {"succeeded", "dead", "cancelled", "skipped"}


@dataclass(slots=True)
class Tally:
    """What was seen; none of it is a fault, but for `wrong`."""

    graphs: int = 0
    jobs: int = 0
    open_jobs: int = 0  # of which the reference allows several ends
    kills: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Callers:
    """Callers of a fleet. An answer that doesn't come is asked for again until it does."""

    def __init__(self, scene: Scene, directory: Path) -> None:
        self._scene = scene
        self._directory = directory
        self._numbers = itertools.count(1)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._late_s = crowded(_LATE_S)
        self.accepted: set[str] = set()
        self.tally = Tally()

    async def run_all(self, scripts: Sequence[Script]) -> None:
        await asyncio.gather(*(self._run(one) for one in scripts))

    async def _run(self, script: Script) -> None:
        async with self._slots:
            try:
                async with asyncio.timeout(self._late_s):
                    await (self._loose(script) if script.is_loose else self._workflow(script))
            except TimeoutError:
                self._accuse(script, f"not over after {self._late_s:.0f} s")
            self.tally.graphs += 1

    async def _workflow(self, script: Script) -> None:
        mended = str(self._directory / f"mended-{next(self._numbers)}")
        body = {
            "name": "script",
            "on_failure": "stop" if script.stop else "continue",
            "jobs": [part.body(mended) for part in script.parts],
        }
        _, made = await self._create("/v1/workflows", body)
        path = f"/v1/workflows/{made['id']}"
        ids = {job["name"]: job["id"] for job in made["jobs"]}
        script = await self._meanwhile(script, path, ids, mended)
        over = await self._over(path)
        ends: Mapping[str, str] = self._held_against(script, script.first, over)
        await asyncio.to_thread(Path(mended).touch)
        for names in script.again:
            ends = await self._again(script, path, ends, names)
        self._count(script.first, ends)

    async def _meanwhile(
        self, script: Script, path: str, ids: Mapping[str, str], mended: str
    ) -> Script:
        """Makes the calls; the script with what came in time."""
        await asyncio.sleep(script.after_s)
        if script.added:
            body = {"jobs": [part.body(mended) for part in script.added]}
            status, answer = await self._create(f"{path}/jobs", body, (409,))
            self.tally.calls["add" if status == 201 else "add, too late"] += 1
            if status == 201:
                self.accepted.update(item["id"] for item in answer["items"])
            else:
                script = replace(script, added=())
        for name in script.cancelled:
            await self._cancel(f"/v1/jobs/{ids[name]}")
        if script.is_cancelled:
            await self._cancel(path)
        for _ in range(_RETRIES_MEANWHILE if script.is_retried else 0):
            status, _, _ = await self._send("POST", f"{path}/retry", {}, (409,))
            self.tally.calls["retry meanwhile"] += status == 200
            await asyncio.sleep(0.1)
        return script

    async def _cancel(self, path: str) -> None:
        status, _, _ = await self._send("POST", f"{path}/cancel", None, (409,))
        self.tally.calls["cancel" if status == 200 else "cancel, too late"] += 1

    async def _again(
        self, script: Script, path: str, ends: Mapping[str, str], names: Sequence[str]
    ) -> Mapping[str, str]:
        """Retries a workflow that is over."""
        graph = script.retried(ends, names)
        expected = {name for name in ends if name not in graph.kept}
        body = {"from": list(names)} if names else {}
        status, tries, answer = await self._send("POST", f"{path}/retry", body, (409,))
        self.tally.calls["retry" if status == 200 else "retry of nothing"] += 1
        if tries == 1 and (status == 200) != bool(expected):
            self._accuse(script, f"retry of {names} of {ends} is {status}, expected {expected}")
        elif tries == 1 and status == 200 and set(answer["again"]) != expected:
            self._accuse(script, f"retry of {names} runs {answer['again']}, expected {expected}")
        return self._held_against(script, graph, await self._over(path))

    async def _loose(self, script: Script) -> None:
        ids: dict[str, str] = {}
        for part in script.parts:
            body = _loosely(part, ids)
            _, made = await self._create("/v1/jobs", body)
            ids[part.name] = made["id"]
            self.accepted.add(made["id"])
        await asyncio.sleep(script.after_s)
        for name in script.cancelled:
            await self._cancel(f"/v1/jobs/{ids[name]}")
        jobs = [{**await self._over(f"/v1/jobs/{ids[n]}"), "name": n} for n in ids]
        ends = self._held_against(script, script.first, {"jobs": jobs})
        self._count(script.first, ends)

    def _held_against(
        self, script: Script, graph: Graph, over: Mapping[str, Any]
    ) -> dict[str, str]:
        """How the jobs ended, and whether that may be."""
        ends = {job["name"]: job["state"] for job in over["jobs"]}
        self.accepted.update(job["id"] for job in over["jobs"])
        sets: Sets = graph.possible()
        for name, state in ends.items():
            if state not in sets.get(name, ()):
                may = sorted(sets.get(name, ()))
                self._accuse(script, f"{name} ended {state}, and may only end {may}")
        if missing := sets.keys() - ends.keys():
            self._accuse(script, f"these are not there: {sorted(missing)}")
        if "state" in over:
            was_cancelled = over["state"] == CANCELLED and script.is_cancelled
            if over["state"] != graph.ends_as(ends, was_cancelled=was_cancelled):
                self._accuse(script, f"it ended {over['state']} with {Counter(ends.values())}")
        return ends

    def _count(self, graph: Graph, ends: Mapping[str, str]) -> None:
        self.tally.jobs += len(ends)
        self.tally.open_jobs += sum(len(states) > 1 for states in graph.possible().values())
        self.tally.ends.update(ends.values())

    def _accuse(self, script: Script, what: str) -> None:
        self.tally.wrong.append(f"{script.name}: {what}")

    async def _over(self, path: str) -> Any:
        """The job or workflow once it is over."""
        headers = {"Prefer": "wait=10"}
        while True:
            _, _, found = await self._send("GET", path, None, (), headers)
            if found["state"] in {*_ENDS, "failed"}:
                return found

    async def _create(self, path: str, body: Any, may_be: Sequence[int] = ()) -> tuple[int, Any]:
        headers = {"Idempotency-Key": f"key {next(self._numbers)}"}
        status, _, answer = await self._send("POST", path, body, may_be, headers)
        return status, answer

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        may_be: Sequence[int] = (),
        headers: dict[str, str] | None = None,
    ) -> tuple[int, int, Any]:
        """Status, the number of the try that was answered, and the answer."""
        for tries in itertools.count(1):
            urls = self._scene.fleet.urls
            url = urls[next(self._numbers) % len(urls)]
            try:
                status, answer = await self._scene.load.api.call_at(
                    url, method, path, body, headers
                )
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.1)
                continue
            is_busy = status == 409 and "in-progress" in str(answer)
            if status < 300 or (status in may_be and not is_busy):
                return status, tries, answer
            assert status >= 500 or is_busy or status == 429, (status, path, answer)
            await asyncio.sleep(0.2)
        raise AssertionError  # it goes on until it is answered


def _loosely(part: Part, ids: Mapping[str, str]) -> dict[str, Any]:
    body = part.body("")
    del body["name"]
    if part.node.parents:
        body["depends_on"] = [ids[name] for name in part.node.parents]
    body["payload"]["mended"] = None
    return body


@asynccontextmanager
async def _killing(scene: Scene, tally: Tally) -> AsyncIterator[None]:
    async def kill() -> None:
        for number in itertools.count():
            await asyncio.sleep(KILL_EVERY_S)
            victim = scene.fleet.replicas[number % 2]
            victim.kill()
            tally.kills += 1
            victim.start()
            await victim.ready()

    killing = asyncio.create_task(kill())
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.wait([killing])


async def play(scene: Scene, directory: Path, scripts: Sequence[Script], title: str) -> Tally:
    """Runs all scripts on a scene without replicas, and holds all rules; what was seen. Raises
    Violations."""
    callers = Callers(scene, directory)
    await scene.fleet.start(2, **QUICK)
    began = time.monotonic()
    async with _killing(scene, callers.tally):
        await callers.run_all(scripts)
    took_s = time.monotonic() - began
    for replica in scene.fleet.replicas:
        await replica.ready()
    scene.load.log.accepted.update(callers.accepted)
    tally = callers.tally
    figures(
        title,
        graphs=tally.graphs,
        jobs=tally.jobs,
        with_several_ends=tally.open_jobs,
        ends=dict(tally.ends),
        calls=dict(tally.calls),
        kills=tally.kills,
        took_s=took_s,
        jobs_per_s=tally.jobs / took_s,
        wrong=len(tally.wrong),
    )
    if not tally.wrong:
        await scene.end(title, within_s=30)
    return tally


@click.command()
@click.option("--graphs", default=200, show_default=True, help="Of a round.")
@click.option("--seed", type=int, help="Draws the same graphs.  [random]")
@click.option("--minutes", default=0.0, help="Rounds follow one another for so long.  [one round]")
def main(graphs: int, seed: int | None, minutes: float) -> None:
    """Runs random graphs on two replicas that are killed; tells what didn't end as it must."""
    first = int(time.time()) if seed is None else seed
    wrong: list[str] = []
    until = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory(prefix="penstock-graphs-") as name:
        Path(name).chmod(0o711)  # PostgreSQL may have to run as `nobody`
        servers = Servers(Path(name))
        servers.start()
        try:
            for number in itertools.count(first):
                click.echo(f"seed {number}")
                directory = Path(name) / str(number)
                directory.mkdir()
                wrong += asyncio.run(_round(servers, directory, graphs, number))
                if wrong or time.monotonic() > until:
                    break
        finally:
            servers.stop()
    click.echo("\n".join(wrong) or "all ended as they may")
    sys.exit(1 if wrong else 0)


async def _round(servers: Servers, directory: Path, graphs: int, number: int) -> list[str]:
    dsn = await servers.fresh_database()
    servers.fresh_redis()
    async with staged(servers, dsn, directory) as scene:
        found = await play(scene, directory, drawn(graphs, number), f"graphs of seed {number}")
        return found.wrong


if __name__ == "__main__":
    main(prog_name="python -m tests.properties.workflows")
