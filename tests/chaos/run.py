"""One long run: load, faults, then heal, drain, check."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.nemesis import FAULTS, Nemesis, NemesisLog, Span, Turn
from tests.chaos.sampler import Sampler
from tests.chaos.verdict import Promise, Verdict, judge, late_drains
from tests.support import checker
from tests.support.load import repeated
from tests.support.mix import Mix, Shape
from tests.support.scene import Scene, staged
from tests.support.servers import Servers
from tests.support.waiting import eventually

QUICK = {  # so that much happens in little time
    "worker__ttl_s": 3,
    "worker__beat_s": 0.5,
    "worker__drain_grace_s": 1,
    "queue__lease_s": 4,
    "queue__renew_s": 1,
}
# Many kills would otherwise end long jobs as `lost`: that is a limit of its own (default 20).
ALWAYS = {"worker__losses_max": 1000}
DEFAULT_TTL_S = 10.0
_PROGRESS_S = 10.0
_DRAIN_S = 240.0
_WARM_S = 2.0  # load before the first strike
_SETTLE_S = 60.0
_ACCEPTED_S = 3600.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Either `faults`, all lanes at once for `seconds`, or `turns`, one after the other, with a
    pause drawn from `every` from strike to strike. `jobs`: so many at least are accepted before the
    faults are healed. `per_s`: jobs a second."""

    seed: int
    faults: Sequence[str] = ()
    seconds: float = 0.0
    turns: Sequence[Turn] = ()
    every: Span = (2.0, 5.0)
    replicas: int = 3
    per_s: float = 150.0
    jobs: int = 0
    shape: Shape = field(default_factory=Shape)
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The faults that it has."""
        return {*self.faults, *(turn.fault for turn in self.turns)}

    @property
    def promise(self) -> Promise:
        return Promise.of(self.names)

    @property
    def ttl_s(self) -> float:
        return float(str(self.settings.get("worker__ttl_s", DEFAULT_TTL_S)))

    @property
    def proxied(self) -> bool:
        return any(FAULTS[name].lane.endswith("link") for name in self.names)


async def run(plan: Plan, servers: Servers, directory: Path, tell: Tell) -> Verdict:
    """The verdict. Its logs are in the directory: nemesis, submissions, executions, samples, and
    those of the replicas."""
    dsn = await servers.fresh_database()
    servers.fresh_redis()
    async with staged(servers, dsn, directory, proxied=plan.proxied) as scene:
        return await play(plan, scene, directory, tell)


async def play(plan: Plan, scene: Scene, directory: Path, tell: Tell) -> Verdict:
    """The same on a scene that has no replicas yet."""
    log = NemesisLog(plan.seed, directory / "nemesis.log")
    nemesis = Nemesis(scene, log, plan.ttl_s)
    sampler = Sampler(scene.fleet, directory / "samples.log")
    await scene.fleet.start(plan.replicas, **{**ALWAYS, **plan.settings})
    began = time.time()
    async with (
        scene.fleet.supervised(),
        sampler.sampling(),
        _told(scene, log, tell),
        _loaded(plan, scene),
    ):
        await asyncio.sleep(_WARM_S)
        await _strike(plan, nemesis)
        await _accepted(scene, plan.jobs)
    loaded = began, time.time()
    tell("healing, and waiting until all is over")
    await nemesis.heal()
    await _answer_open(scene)
    healed_at = time.monotonic()
    lagging = await _drained(scene)
    drained_in_s = time.monotonic() - healed_at
    tell("checking")
    verdict = await judge(scene, log, loaded)
    verdict.complaints += lagging
    if plan.turns:  # else other faults at the same time may make a drain late
        verdict.complaints += late_drains(scene.drains)
    verdict.drained_in_s, verdict.trends = drained_in_s, sampler.trends()
    return verdict


async def _strike(plan: Plan, nemesis: Nemesis) -> None:
    if plan.faults:
        await nemesis.strike_for(plan.seconds, plan.faults)
    for turn in plan.turns:
        await nemesis.strike_each(turn, plan.every)


@asynccontextmanager
async def _loaded(plan: Plan, scene: Scene) -> AsyncIterator[None]:
    mix = Mix(scene.load, scene.fleet, plan.shape, plan.seed)
    async with repeated(plan.per_s / plan.shape.jobs_per_call, mix.call):
        yield


@asynccontextmanager
async def _told(scene: Scene, log: NemesisLog, tell: Tell) -> AsyncIterator[None]:
    telling = asyncio.create_task(_tell(scene, log, tell))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])


async def _tell(scene: Scene, log: NemesisLog, tell: Tell) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_PROGRESS_S)
        starts = len(scene.log.starts())
        last = log.lines[-1]["fault"] if log.lines else "none"
        tell(
            f"{time.monotonic() - began:6.0f} s: {log.struck.total()} strikes (last: {last}), "
            f"{len(scene.load.accepted)} jobs accepted, {starts} attempts begun, "
            f"{scene.load.unknown} jobs unknown, {len(scene.fleet.deaths)} deaths"
        )


async def _accepted(scene: Scene, count: int) -> None:
    async def look() -> bool:
        return len(scene.load.accepted) >= count

    await eventually(look, f"{count} jobs are accepted", _ACCEPTED_S, every_s=1.0)


async def _answer_open(scene: Scene) -> None:
    """Sends again, with its key, each request of which nobody knows what became."""

    async def is_answered() -> bool:
        for request in list(scene.load.open.values()):
            await scene.load.submit(scene.fleet.urls, request)
        return not scene.load.open

    await eventually(is_answered, "every key has its answer", _SETTLE_S, every_s=0.5)


async def _drained(scene: Scene) -> list[str]:
    """What is wrong, if not everything comes to its end."""
    async with scene.connected() as con:
        try:
            await checker.drained(con, _DRAIN_S)
        except AssertionError as error:
            return [f"{error}: {await checker.live(con)} jobs are due or running"]
    return []
