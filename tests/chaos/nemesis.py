"""The nemesis: one table of faults, strikes drawn from it by a seed, and a log of all of them.

The same seed draws the same strikes, each lane for itself: what is struck, whom, for how long and
the pause after it. Their interleaving with what the replicas do is never the same. It always ends
by healing everything.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.chaos import strikes
from tests.chaos.strikes import Act, Strike
from tests.support.proxy import BLACK_HOLE, KILLED, REFUSE, STALL
from tests.support.scene import Scene

Span = tuple[float, float]  # the shortest and the longest
_PAUSE_S: Span = (0.5, 5.0)  # between two strikes of a lane


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One row of the table. Lanes strike at the same time, the faults of one lane one by one.

    `lasts`: shortest and longest, in seconds, or in times to live with `in_ttls`. `loses`: workers
    may be lost by it, so that attempts are made again. `overlaps`: the old attempt of a job may go
    on beside the new one, for its replica is alive, but cannot say so.
    """

    lane: str
    act: Act
    lasts: Span = (0.0, 0.0)
    in_ttls: bool = False
    loses: bool = False
    overlaps: bool = False
    weight: int = 2


def _links(name: str, dependency: str) -> dict[str, FaultKind]:
    """Faults between one replica and one dependency. Only who can't reach Postgres is lost."""
    lane, link, is_pg = f"{name}-link", strikes.on_link, dependency == "postgres"
    asked = strikes.changes if is_pg else strikes.anything

    def cuts_off(act: Act) -> FaultKind:
        return FaultKind(lane, act, (0.1, 1.8), in_ttls=True, loses=is_pg, overlaps=is_pg, weight=1)

    def brief(act: Act) -> FaultKind:
        return FaultKind(lane, act, (0.03, 0.3), in_ttls=True)

    def bearable(act: Act) -> FaultKind:
        return FaultKind(lane, act, (0.3, 4.0))

    return {
        f"{name}-black-hole": cuts_off(link(dependency, strikes.always(BLACK_HOLE))),
        f"{name}-one-way-up": cuts_off(link(dependency, strikes.loses("up"))),
        f"{name}-one-way-down": cuts_off(link(dependency, strikes.loses("down"))),
        f"{name}-stall": cuts_off(link(dependency, strikes.always(STALL))),
        f"{name}-gone": cuts_off(link(dependency, strikes.always(KILLED))),
        f"{name}-refuse": brief(link(dependency, strikes.always(REFUSE))),
        f"{name}-reset": brief(strikes.resets(dependency)),
        f"{name}-cut": brief(link(dependency, strikes.cut)),
        f"{name}-cut-answer": bearable(link(dependency, strikes.cut_answer(asked))),
        f"{name}-latency": bearable(link(dependency, strikes.slow)),
        f"{name}-rate": bearable(link(dependency, strikes.narrow)),
    }


FAULTS: Mapping[str, FaultKind] = {
    "kill": FaultKind("replica", strikes.kill, (0.0, 3.0), loses=True, weight=4),
    "sigterm": FaultKind("replica", strikes.terminate),
    "stop": FaultKind("replica", strikes.stop, (0.3, 2.5), in_ttls=True, loses=True, overlaps=True),
    "block": FaultKind("replica", strikes.block, weight=1),
    "pg-restart": FaultKind("postgres", strikes.restart_postgres, (0.0, 1.0)),
    "pg-immediate": FaultKind("postgres", strikes.abort_postgres, (0.0, 1.0)),
    "pg-backend": FaultKind("postgres", strikes.kill_backend),
    "pg-terminate": FaultKind("postgres", strikes.terminate_sessions),
    "pg-pause": FaultKind("postgres", strikes.pause_postgres, (0.5, 6.0)),
    "flush": FaultKind("redis", strikes.flush_redis),
    "script-flush": FaultKind("redis", strikes.flush_scripts),
    "redis-away": FaultKind("redis", strikes.lose_redis, (0.0, 4.0)),
    "redis-kill": FaultKind("redis", strikes.kill_redis, (0.0, 4.0)),
    "redis-pause": FaultKind("redis", strikes.pause_redis, (0.0, 4.0)),
    "redis-full": FaultKind("redis", strikes.fill_redis, (0.5, 4.0)),
    "redis-readonly": FaultKind("redis", strikes.demote_redis, (0.5, 4.0)),
    "redis-clients": FaultKind("redis", strikes.kill_clients),
    **_links("pg", "postgres"),
    **_links("redis", "redis"),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One entry of a plan: a fault, how often, and how long each time where that is fixed."""

    fault: str
    count: int
    seconds: float | None = None

    @property
    def name(self) -> str:
        return self.fault if self.seconds is None else f"{self.fault}{self.seconds:g}"


@dataclass(slots=True)
class NemesisLog:
    """What was struck and when, also in a file, a JSON line each."""

    seed: int
    path: Path | None = None
    struck: Counter[str] = field(default_factory=Counter)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, target: str, event: str, pid: int | None = None) -> None:
        line = {
            "t": time.time(),
            "fault": name,
            "target": target,
            "event": event,
            "seed": self.seed,
            "pid": pid,
        }
        self.lines.append(line)
        if event == "start":
            self.struck[name] += 1
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def killed_at(self, workers: Iterable[tuple[str, int, float]]) -> dict[str, float]:
        """When each of these workers was killed. `workers`: name, process, time of its birth: the
        number of a process may come again."""
        kills = [
            (line["t"], line["pid"])
            for line in self.lines
            if line["fault"].rstrip(".0123456789") == "kill" and line["event"] == "start"
        ]
        found = {
            name: [at for at, killed in kills if killed == pid and at > born]
            for name, pid, born in workers
        }
        return {name: min(times) for name, times in found.items() if times}


def draw(seed: int, lane: str, number: int, names: Sequence[str], ttl_s: float) -> Strike:
    """The strike of that number of a lane, from these faults."""
    chance = random.Random(f"{seed}/{lane}/{number}")
    (name,) = chance.choices(names, [FAULTS[one].weight for one in names])
    kind = FAULTS[name]
    seconds = chance.uniform(*kind.lasts) * (ttl_s if kind.in_ttls else 1.0)
    victim, pause_s = chance.randrange(1_000_000), chance.uniform(*_PAUSE_S)
    return Strike(name, victim, seconds, pause_s, chance)


def lanes(names: Collection[str]) -> dict[str, list[str]]:
    """Lanes and their faults."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(FAULTS[name].lane, []).append(name)
    return found


class Nemesis:
    """`ttl_s`: of the replicas' workers; some faults last some of those."""

    def __init__(self, scene: Scene, log: NemesisLog, ttl_s: float) -> None:
        self.log = log
        self._scene = scene
        self._ttl_s = ttl_s

    async def strike_for(self, seconds: float, names: Collection[str]) -> None:
        """Strikes in all lanes at once until the time is over."""
        until = time.monotonic() + seconds
        await asyncio.gather(
            *(self._strike_in(lane, until, ours) for lane, ours in lanes(names).items())
        )

    async def strike_each(self, turn: Turn, every: Span) -> None:
        """One fault so many times, one after the other, with pauses between the strikes."""
        for number in range(turn.count):
            one = draw(self.log.seed, f"plan/{turn.name}", number, [turn.fault], self._ttl_s)
            seconds = one.seconds if turn.seconds is None else turn.seconds
            pause_s = one.chance.uniform(*every)
            began = time.monotonic()
            await self._strike(
                Strike(one.fault, one.victim, seconds, pause_s, one.chance), turn.name
            )
            await asyncio.sleep(max(began + pause_s - time.monotonic(), 0.0))

    async def heal(self) -> None:
        """Everything serves again."""
        self._scene.fleet.heal()
        await strikes.heal_servers(self._scene)
        for replica in self._scene.fleet.replicas:
            if not replica.wanted or replica.ended:
                replica.start()
            replica.resume()
        await asyncio.gather(*(one.ready() for one in self._scene.fleet.replicas))

    async def _strike_in(self, lane: str, until: float, names: Sequence[str]) -> None:
        number = 0
        while time.monotonic() < until:
            one = draw(self.log.seed, lane, number, names, self._ttl_s)
            await self._strike(one, one.fault)
            await asyncio.sleep(one.pause_s)
            number += 1

    async def _strike(self, strike: Strike, name: str) -> None:
        kind = FAULTS[strike.fault]
        victim = strikes.victim(self._scene, strike)
        is_ours = kind.lane == "replica" or kind.lane.endswith("link")
        target = f"replica-{victim.port}" if is_ours else kind.lane
        pid = victim.pid if is_ours else None
        self.log.add(name, target, "start", pid)
        await kind.act(self._scene, strike)
        self.log.add(name, target, "stop", pid)
