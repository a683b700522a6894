"""Every chaos point is struck once by `exit`, amid load: whatever dies there, no rule breaks."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from penstock import chaos
from tests.chaos import points
from tests.chaos.points_graphs import some_workflow
from tests.chaos.points_table import jobs_of
from tests.support.load import repeated
from tests.support.scene import Scene
from tests.support.servers import Servers

_SEED = 20261122
_STORM_S = 8.0


# A group whose leader died with its replica waits for the end of a lease, 60 s: too long to wait
# for here, amid load. `test_group_killed.py` kills at each of these.
_OF_GROUPS = {"after_join_groups", "before_fix_message", "after_fix_message"}


@pytest.mark.timeout(600)
async def test_a_death_at_any_point_breaks_no_rule(servers: Servers, workplace: Path) -> None:
    missed = await points.strike(
        servers, workplace, _SEED, times=1, only=sorted(chaos.POINTS.keys() - _OF_GROUPS)
    )
    assert not missed, "these were never reached"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("preferred", ["raise", "cut"])
async def test_failures_at_all_points_at_once_break_no_rule(scene: Scene, preferred: str) -> None:
    actions = {name: _action(one, preferred) for name, one in chaos.POINTS.items()}
    order = ",".join(f"{name}:0.05:{action}" for name, action in actions.items())
    await scene.fleet.start(2, chaos=f"{order};seed={_SEED}", **points.QUICK)
    jobs = jobs_of(lambda: preferred, Counter())

    async def weave(number: int) -> None:
        graph = some_workflow(random.Random(number), preferred)
        await scene.load.submit(scene.fleet.urls, graph)

    async with scene.load.stream(scene.fleet.urls, 100, jobs), repeated(5, weave):
        await asyncio.sleep(_STORM_S)
    report = await scene.end(f"all points, {preferred}", within_s=120)
    said = "".join(one.log_file.read_text() for one in scene.fleet.replicas)
    for name in ("after_commit", "after_start", "after_settle", "after_settle_graph"):
        assert f"chaos point {name}: {actions[name]}\n" in said
    assert report.outcomes.keys() == {"succeeded", "failed"}, "nothing is lost with a worker"


def _action(point: chaos.Point, preferred: str) -> str:
    return preferred if preferred in point.actions() else "sleep=0.3"
