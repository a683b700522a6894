"""One trial: a copy with a bug, a scene, the checker's verdict."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.chaos.mutants.patches import Patch, copied
from tests.chaos.mutants.scenes import Scene
from tests.chaos.mutants.stage import Copies, Stage
from tests.support import checker
from tests.support.api import Api
from tests.support.servers import Servers


@dataclass(frozen=True, slots=True)
class Mutant:
    """A seeded bug.

    `caught_by`: how the name of a rule begins that must break; others may break too. `provoked`:
    patches that are no bugs but faults (an answer that is lost, a slow call), by which the bug is
    reached. `guard`: what masks the bug, if something does; then `unguarded` takes that away too,
    and both together must be caught.
    """

    name: str
    scene: Scene
    caught_by: str
    bug: Sequence[Patch]
    provoked: Sequence[Patch] = ()
    guard: str = ""
    unguarded: Sequence[Patch] = ()

    @property
    def patches(self) -> list[Patch]:
        """All of its patches, in the order in which they are applied."""
        return [*self.provoked, *self.bug, *self.unguarded]


def controls(mutants: Iterable[Mutant]) -> list[Mutant]:
    """The scenes of these with their provocations and without any bug."""
    found: dict[str, Mutant] = {}
    for mutant in mutants:
        files = ", ".join(sorted({patch.file for patch in mutant.provoked}))
        name = f"no bug: {mutant.scene.__name__}{files and f', provoked in {files}'}"
        found.setdefault(name, Mutant(name, mutant.scene, "", (), mutant.provoked))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """`broken`: the rules that broke, of the trial that counts."""

    mutant: str
    is_right: bool
    text: str
    took_s: float
    broken: tuple[str, ...] = ()


class Trials:
    """Runs trials on one PostgreSQL and one Redis, each in a database of its own."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._source = directory / "source"  # what is changed in the checkout meanwhile is not ours
        copied(self._source, ())
        self._count = 0

    async def judge(self, mutant: Mutant) -> Verdict:
        began = time.monotonic()
        bug = [*mutant.provoked, *mutant.bug]
        if not mutant.bug:
            broken = await self.run(mutant.scene, bug)
            return _verdict(mutant, not broken, _names(broken) or "every rule holds", began)
        if mutant.guard and (broken := await self.run(mutant.scene, bug)):
            return _verdict(mutant, False, f"not masked: {_names(broken)}", began)
        broken = await self.run(mutant.scene, mutant.patches)
        by = [name for name in broken if name.startswith(mutant.caught_by)]
        if not by:
            found = _names(broken) or "it survived"
            return _verdict(mutant, False, f"not by {mutant.caught_by}: {found}", began)
        text = f"masked by {mutant.guard}; without it: {by[0]}" if mutant.guard else by[0]
        return _verdict(mutant, True, text, began, tuple(broken))

    async def run(self, scene: Scene, patches: Sequence[Patch]) -> dict[str, list[str]]:
        """The rules that broke, and by whom."""
        self._count += 1
        directory = self._directory / f"trial-{self._count}"
        directory.mkdir(parents=True)
        source = await asyncio.to_thread(copied, directory, patches, self._source)
        dsn, redis_url = await self._servers.fresh_database(), self._servers.fresh_redis()
        con = await asyncpg.connect(dsn)
        await checker.keep_trail(con)
        await con.close()
        fleet = Copies(dsn, redis_url, directory, source)
        try:
            async with Api("") as api:
                stage = Stage(self._servers, dsn, redis_url, fleet, api)
                await scene(stage)
                return await stage.broken()
        finally:
            fleet.stop()
            self._servers.postgres.resume()


def _verdict(
    mutant: Mutant, is_right: bool, text: str, began: float, broken: tuple[str, ...] = ()
) -> Verdict:
    return Verdict(mutant.name, is_right, text, time.monotonic() - began, broken)


def _names(broken: dict[str, list[str]]) -> str:
    return "; ".join(f"{name} ({found[0][:80]})" for name, found in broken.items())
