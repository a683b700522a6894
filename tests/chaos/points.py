"""Every chaos point struck by `exit` under load: `python -m tests.chaos.points --times 20`.

Two replicas are armed with one point after the other and started again whenever they died of it; a
third one lives on. Callers submit to all three meanwhile. What has to happen for a point to be
passed at all is made to happen. Then all is healed and drained, and every rule is checked.
"""

import asyncio
import json
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import click

from penstock import chaos
from penstock.store.jobs import ROWS_MAX
from tests.chaos import points_graphs, points_letters, points_table
from tests.chaos.points_table import Slot, Strike, Table
from tests.egress.receiver import receiver, saying
from tests.support import checker
from tests.support.api import Api
from tests.support.fleet import Fleet
from tests.support.load import Answers, Job, Load, Request, repeated
from tests.support.scene import Scene
from tests.support.servers import Servers

_GROUPED = "grouped"  # the tag of jobs that are told of together
QUICK = {  # so that much happens in little time
    "worker__ttl_s": 3,
    "worker__beat_s": 0.5,
    "worker__drain_grace_s": 1,
    "worker__losses_max": 1000,
    "queue__lease_s": 4,
    "queue__renew_s": 1,
    "retention__succeeded_s": 3600,
    "retention__workflows_s": 3600,
}
# Passed many times a second: any of these passes may be the one. The others are passed now and
# then, so the first it is.
_OFTEN = {
    *("before_commit", "after_commit", "before_commit_keyed", "after_commit_keyed"),
    *("before_enqueue", "between_enqueues", "after_promote", "after_pop", "after_start"),
    *("before_handler", "before_settle", "after_settle", "before_ack"),
    *("before_commit_graph", "after_commit_graph", "before_settle_graph", "after_settle_graph"),
}
_PASSES_MAX = 20
_BEATS_MAX = 6
_STRUCK_S = 180.0  # some points are raced for with the other two replicas
_TRIES = 3  # deaths that were not of the point: somebody else's provocation
_LOOK_S = 0.02
_PER_S = 40.0  # submissions to each replica
_GRAPHS_PER_S = 3.0  # workflows


@dataclass(slots=True)
class Campaign:
    """`run` strikes each of the points so many times; `missed` names those that it could not."""

    scene: Scene
    chance: random.Random
    strikes: list[Strike] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)  # jobs sent, by the point of their replica
    _steady: Slot = field(init=False)
    _hook: str = field(init=False)  # the URL of one who takes what he is told
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one provocation of the third a time

    async def run(self, points: Sequence[str], times: int) -> None:
        todo = [point for _ in range(times) for point in self.chance.sample(points, len(points))]
        todo.reverse()  # taken from its end
        async with AsyncExitStack() as stack:
            self._hook = (await stack.enter_async_context(receiver(saying()))).url
            # All have it: who knows no such rule has its group rest for five minutes.
            started = await self.scene.fleet.start(3, **QUICK, notifications__rules=self._rules())
            self._steady, *armed = [Slot(one) for one in started]
            for slot in (self._steady, *armed):
                jobs = points_table.jobs_of(lambda slot=slot: slot.point, self.made)  # type: ignore[misc]
                stream = self.scene.load.stream([slot.replica.url], _PER_S, jobs)
                await stack.enter_async_context(stream)
                graphs = points_graphs.stream_of(slot, self.scene.load, self.made)
                await stack.enter_async_context(repeated(_GRAPHS_PER_S, graphs))
            await asyncio.gather(*(self._strike_all(slot, todo) for slot in armed))
            async with self.scene.connected() as con:  # while who is told is still there
                await points_letters.check(con)
        await self._steady.replica.ready()

    async def _strike_all(self, slot: Slot, todo: list[str]) -> None:
        while todo:
            slot.point = todo.pop()
            if not await self._strike(slot):
                self.missed.append(slot.point)
        slot.point = points_table.NOBODYS
        slot.replica.stop()
        slot.replica.environ["PENSTOCK_CHAOS"] = ""
        slot.replica.start()
        await slot.replica.ready()

    async def _strike(self, slot: Slot) -> bool:
        """Whether it died of its point."""
        for _ in range(_TRIES):
            slot.replica.stop()
            if slot.point in ("after_prune", "after_prune_workflows"):
                await self._add_old_jobs()
            before = self._deaths_of(slot)
            slot.replica.environ["PENSTOCK_CHAOS"] = self._order(slot.point)
            slot.replica.start()
            try:
                async with asyncio.timeout(_STRUCK_S):
                    await self._die(slot)
            except TimeoutError:
                return False
            if self._deaths_of(slot) > before:
                await self._note(slot)
                return True
        return False

    def _rules(self) -> str:
        """One that tells of many in one message."""
        group = {"wait_s": 0.2, "every_s": 0}
        of = {"name": "many", "on": ["succeeded"], "tags": [_GROUPED], "group": group}
        return json.dumps([{**of, "webhook": self._hook}])

    def _order(self, point: str) -> str:
        """What PENSTOCK_CHAOS says."""
        last = _PASSES_MAX if point in _OFTEN else _BEATS_MAX if point == "between_beats" else 1
        order = f"{point}:#{self.chance.randint(1, last)}:exit"
        # What is to be adopted are starts whose answer was lost.
        return f"after_start:#3:raise,{order}" if point == "before_adopt" else order

    def _deaths_of(self, slot: Slot) -> int:
        """How often this replica has died of this point."""
        log = slot.replica.log_file.read_text(errors="replace")
        return log.count(f"chaos point {slot.point}: exit\n")

    async def _die(self, slot: Slot) -> None:
        """Returns when the replica has ended; makes happen what its point waits for."""
        provoking = asyncio.create_task(self._provoke(slot))
        try:
            while not slot.replica.ended:  # a process tells no event
                await asyncio.sleep(_LOOK_S)
                if provoking.done():
                    provoking.result()
        finally:
            provoking.cancel()
            await asyncio.wait([provoking])

    async def _note(self, slot: Slot) -> None:
        async with self.scene.connected() as con:
            found = await con.fetch(
                "SELECT worker_id::text FROM workers WHERE pid = $1", slot.replica.pid
            )
        names = frozenset(str(row[0]) for row in found)
        self.strikes.append(Strike(slot.point, time.time(), names))

    async def _provoke(self, slot: Slot) -> None:
        """Most points are passed by themselves."""
        provoke = self._provocations().get(slot.point)
        while not await asyncio.to_thread(slot.replica.is_ready):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        while provoke is not None:
            await provoke(slot)
            await asyncio.sleep(0.2)

    def _provocations(self) -> dict[str, Callable[[Slot], Awaitable[object]]]:
        return {
            "before_commit_large": self._offer_many,
            "after_commit_large": self._offer_many,
            "after_cancel": self._cancel_waiting,
            "after_cancel_request": self._cancel_running,
            "after_retry": self._retry,
            "before_change": self._pause,
            "after_change": self._pause,
            "after_condemn": self._kill_the_third,
            "before_return": self._kill_the_third,
            "between_pages": self._flush,
            "between_heads": self._flush,
            "before_hand_back": self._terminate,
            "before_leave": self._terminate,
            "after_claim_effects": self._tell,
            "after_deliver": self._tell,
            "after_join_groups": self._tell_of_many,
            "before_fix_message": self._tell_of_many,
            "after_fix_message": self._tell_of_many,
            "after_finish_effects": self._tell,
            **points_graphs.provocations(self._offer_graph, self._change),
            **points_letters.provocations(
                self._offer, self._call, self.scene.connected, self._hook
            ),
        }

    async def _offer_many(self, slot: Slot) -> None:
        await self._offer(slot, [_job(slot)] * (ROWS_MAX + 1))

    async def _tell(self, slot: Slot) -> None:
        notify = [{"on": ["succeeded"], "webhook": self._hook}]
        await self._offer(slot, [_job(slot, notify=notify)] * 3)

    async def _tell_of_many(self, slot: Slot) -> None:
        await self._offer(slot, [_job(slot, tags=[_GROUPED])] * 3)

    async def _cancel_waiting(self, slot: Slot) -> None:
        for id_ in await self._offer(slot, [_job(slot, delay_s=3)]):
            await self._post(slot, f"/v1/jobs/{id_}/cancel")

    async def _cancel_running(self, slot: Slot) -> None:
        long = _job(slot, priority=9, payload={"seconds": 3, "point": slot.point})
        for id_ in await self._offer(slot, [long]):
            await self.scene.begun({(id_, 1)}, within_s=20)
            await self._post(slot, f"/v1/jobs/{id_}/cancel")

    async def _pause(self, slot: Slot) -> None:
        await self._post(slot, "/v1/queues/nobodys/pause")

    async def _retry(self, slot: Slot) -> None:
        for id_ in await self._offer(slot, [_job(slot, delay_s=3)]):
            await self._post(slot, f"/v1/jobs/{id_}/cancel")
            await self._post(slot, f"/v1/jobs/{id_}/retry")

    async def _kill_the_third(self, _slot: Slot) -> None:
        """Leaves attempts under a dead name, and leases that end. The others may mend it first."""
        async with self._turn:
            replica = self._steady.replica
            replica.kill()
            replica.start()
            await replica.ready()
            await asyncio.sleep(float(QUICK["queue__lease_s"]))

    async def _flush(self, _slot: Slot) -> None:
        await self.scene.flush_redis()
        await asyncio.sleep(1)

    async def _terminate(self, slot: Slot) -> None:
        slot.replica.terminate()
        await asyncio.sleep(_STRUCK_S)  # a second signal would end it without a drain

    async def _offer(self, slot: Slot, jobs: Sequence[Job]) -> list[str]:
        self.made[slot.point] += len(jobs)
        return await self.scene.load.submit(slot.replica.url, Request(jobs, is_batch=True))

    async def _offer_graph(self, slot: Slot, request: Request) -> list[str]:
        self.made[slot.point] += points_graphs.counted(request)
        return await self.scene.load.submit(slot.replica.url, request)

    async def _change(self, slot: Slot, verb: str, id_: str | None = None) -> None:
        """Of a job, or of the latest workflow."""
        if id_ is not None or self.scene.load.workflows:
            path = f"jobs/{id_}" if id_ else f"workflows/{self.scene.load.workflows[-1]}"
            await self.scene.load.call(
                Answers(), slot.replica.url, "POST", f"/v1/{path}/{verb}", {}
            )

    async def _post(self, slot: Slot, path: str) -> None:
        await self._call(slot, path)

    async def _call(
        self, slot: Slot, path: str, body: Job | None = None, method: str = "POST"
    ) -> None:
        """Answered or not, and whatever was answered."""
        await self.scene.load.call(Answers(), slot.replica.url, method, path, body)

    async def _add_old_jobs(self) -> None:
        async with self.scene.connected() as con:
            await points_table.add_old_jobs(con)

    async def end(self, within_s: float = 60.0) -> Table:
        """Waits for the last job, checks all rules and answers the table."""
        async with self.scene.connected() as con:
            await checker.drained(con, within_s)
            await points_table.forget_old_jobs(con)
            accepted = self.scene.load.accepted
            table = await points_table.table(con, self.strikes, self.made, accepted)
        click.echo(f"\n{table}")
        await self.scene.end("chaos points", within_s)
        return table


def _job(slot: Slot, **fields: Any) -> Job:
    return {"kind": "logged", "queue": "a", "payload": {"point": slot.point}, **fields}


@asynccontextmanager
async def staged(servers: Servers, directory: Path) -> AsyncIterator[Scene]:
    """A scene of its own."""
    dsn, redis_url = await servers.fresh_database(), servers.fresh_redis()
    con = await asyncpg.connect(dsn)
    await checker.keep_trail(con)
    await con.close()
    fleet = Fleet(dsn, redis_url, directory)
    async with Api("") as api:
        yield Scene(servers, dsn, fleet, Load(api))
    fleet.stop()


async def strike(
    servers: Servers, directory: Path, seed: int, times: int, only: Sequence[str]
) -> list[str]:
    """Strikes each of these points so many times; the names of those that were never reached."""
    async with staged(servers, directory) as scene:
        campaign = Campaign(scene, random.Random(seed))
        await campaign.run(only, times)
        await campaign.end(within_s=120)
        return campaign.missed


def _names(_context: click.Context, _option: click.Parameter, text: str | None) -> list[str]:
    names = text.split(",") if text else list(chaos.POINTS)
    for name in names:
        if name not in chaos.POINTS:
            raise click.BadParameter(f"{name} is none of {', '.join(chaos.POINTS)}")
    return names


@click.command()
@click.option("--times", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", type=int, help="Repeats the order and the passes of a run.  [random]")
@click.option("--only", callback=_names, metavar="a,b", help="Points to strike.  [all]")
def main(times: int, seed: int | None, only: list[str]) -> None:
    """Strikes every chaos point; the exit status is 1 when a rule broke or one was not reached."""
    chosen = secrets.randbits(32) if seed is None else seed
    click.echo(f"seed {chosen}", err=True)
    with tempfile.TemporaryDirectory(prefix="penstock-points-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL may have to run as `nobody`
        servers = Servers(directory)
        servers.start()
        try:
            missed = asyncio.run(strike(servers, directory, chosen, times, only))
        finally:
            servers.stop()
    if missed:
        click.echo(f"not struck: {', '.join(missed)}", err=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
