"""Retries over their kind's budget come later; none is lost, none comes before its back-off."""

from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.domain.attempt import LOST, RELEASED, Ending
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.settings import Settings
from tests.support.making import FAILURE, FINAL_FAILURE, SUCCESS
from tests.support.still import changed, standing

IN_30_S = Backoff(Curve.FIXED, base_s=30.0, jitter=Jitter.NONE)
TIGHT = {"retry_burst": 10, "retry_min_per_s": 5.0, "retry_share": 0.0, "retry_spread_max_s": 20.0}


async def delays_s(settings: Settings, count: int, *endings: Ending) -> tuple[list[float], float]:
    """Seconds from the settlement until each retry is due, and how many were moved."""
    dsn, url = settings.postgres.dsn.get_secret_value(), settings.redis.url.get_secret_value()
    async with standing(settings, dsn, url) as still:
        jobs = await still.start(count, backoff=IN_30_S)
        await still.settle(*((job, endings[i % len(endings)]) for i, job in enumerate(jobs)))
        rows = await still.db.session.fetch(
            "SELECT ready_at, finished_at, next_run_at FROM job_due JOIN attempts USING (job_id)"
        )
        assert all(row["next_run_at"] == row["ready_at"] for row in rows)
        found = [(row["ready_at"] - row["finished_at"]) / timedelta(seconds=1) for row in rows]
        return sorted(found), still.metric("retries_delayed_total", kind="echo")


async def test_a_hundred_retry_exactly_as_their_back_off_says_and_hundreds_within_a_second(
    still_settings: Settings,
) -> None:
    found, moved = await delays_s(still_settings, 100, FAILURE)
    assert (found, moved) == ([30.0] * 100, 0)
    found, _ = await delays_s(still_settings, 500, FAILURE)
    assert found[0] == 30.0
    assert found[-1] < 31.0


async def test_those_beyond_the_budget_follow_one_after_the_other(still_settings: Settings) -> None:
    found, moved = await delays_s(changed(still_settings, worker=TIGHT), 60, FAILURE)
    assert len(found) == 60
    assert found[:10] == [30.0] * 10
    assert moved == 50
    assert found[10:] == pytest.approx([30 + (i + 1) / 5 for i in range(50)], abs=0.5)


async def test_none_moves_beyond_the_spread(still_settings: Settings) -> None:
    found, moved = await delays_s(changed(still_settings, worker=TIGHT), 400, FAILURE)
    assert (len(found), moved) == (400, 390)
    assert 45 < found[-1] <= 50.001


async def test_only_what_is_to_be_tried_again_spends_the_budget(still_settings: Settings) -> None:
    endings = (SUCCESS, FINAL_FAILURE, RELEASED, LOST, FAILURE)
    found, moved = await delays_s(changed(still_settings, worker=TIGHT), 50, *endings)
    assert moved == 0
    assert found[-10:] == [30.0] * 10


async def test_a_longer_wish_of_the_handler_is_kept(still_settings: Settings) -> None:
    wish = replace(FAILURE, retry_after_s=45.0)
    found, _ = await delays_s(changed(still_settings, worker=TIGHT), 20, wish)
    assert found[0] == 45.0
    assert found[-1] == pytest.approx(47, abs=0.5)
