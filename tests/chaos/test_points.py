"""Every chaos point is struck once by `exit`, amid load: whatever dies there, no rule breaks."""

from pathlib import Path

import pytest

from penstock import chaos
from tests.chaos import points
from tests.support.servers import Servers

_SEED = 20261122


@pytest.mark.timeout(240)
async def test_a_death_at_any_point_breaks_no_rule(servers: Servers, workplace: Path) -> None:
    missed = await points.strike(servers, workplace, _SEED, times=1, only=list(chaos.POINTS))
    assert not missed, "these were never reached"
