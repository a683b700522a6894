"""Random graphs end as the reference says they may, on two replicas that are killed meanwhile.

The same graphs each time; to look for more: `python -m tests.properties.workflows`.
"""

import random
from pathlib import Path

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.retry_plan import Node as PlanNode
from penstock.domain.retry_plan import plan_retry
from penstock.domain.workflow import RunIf
from tests.properties import workflows
from tests.properties.scripts import Script, drawn
from tests.support.scene import staged
from tests.support.servers import Servers

_GRAPHS = 160
_PLANS = 400


@pytest.mark.timeout(400)
async def test_random_graphs_end_as_they_may_whoever_is_killed(
    servers: Servers, dsn: str, redis_url: str, workplace: Path
) -> None:
    async with staged(servers, dsn, workplace) as scene:
        tally = await workflows.play(scene, workplace, drawn(_GRAPHS), "random graphs")
    assert not tally.wrong, "\n".join(tally.wrong)
    assert tally.kills > 0
    assert tally.ends.keys() == {"succeeded", "dead", "cancelled", "skipped"}
    assert tally.calls["retry"] > 10
    assert tally.calls["retry meanwhile"] > 5
    assert tally.calls["add"] > 5


def test_a_retry_is_planned_as_the_reference_says() -> None:
    chance = random.Random(5)
    for one in drawn(_PLANS, 5):
        ends = _some_ends(one, chance)
        names = chance.sample(sorted(ends), min(len(ends), 2)) if chance.random() < 0.5 else None
        planned = {again.id for again in plan_retry(_nodes(one, ends), names)}
        expected = one.first.again(ends, names)
        assert planned == {_id(name) for name in expected}, (one.name, ends, names)


def _some_ends(script: Script, chance: random.Random) -> dict[str, str]:
    """One of the ways in which it may end, as far as its jobs go one by one."""
    sets = script.first.possible()
    return {name: chance.choice(sorted(states)) for name, states in sets.items()}


def _nodes(script: Script, ends: dict[str, str]) -> list[PlanNode]:
    return [
        PlanNode(
            _id(one.name),
            one.name,
            RunIf(one.run_if) if one.parents else None,
            tuple(map(_id, one.parents)),
            State(ends[one.name]),
        )
        for one in script.nodes
    ]


def _id(name: str) -> JobId:
    return JobId(name.encode().ljust(16, b"-"))
