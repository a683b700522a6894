"""Faults of replicas, servers and what connects them at once, drawn by a seed: they break no rule.

`CHAOS_SEED` and `CHAOS_S` in the environment choose another draw and another length. The same
seed gives the same faults, but never the same interleaving. Long runs: `python -m tests.chaos`.
"""

import os
from pathlib import Path

import pytest

from tests.chaos.nemesis import FAULTS
from tests.chaos.run import QUICK, Plan, play
from tests.chaos.verdict import shown
from tests.support.figures import figures
from tests.support.mix import Shape
from tests.support.scene import Scene

_SEED = int(os.environ.get("CHAOS_SEED", "1"))
_LENGTH_S = float(os.environ.get("CHAOS_S", "25"))


@pytest.mark.timeout(_LENGTH_S + 180)
async def test_many_faults_at_once_break_no_rule(proxied_scene: Scene, workplace: Path) -> None:
    plan = Plan(
        seed=_SEED,
        faults=list(FAULTS),
        seconds=_LENGTH_S,
        shape=Shape(longest_s=3.0),
        settings=QUICK,
    )
    verdict = await play(plan, proxied_scene, workplace, figures)
    table = shown(verdict, plan.promise)
    figures("everything", table=f"\n{table}")
    assert all(verdict.gates(plan.promise).values()), table
