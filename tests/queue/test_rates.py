"""The budgets that all replicas share: the script against Redis, held to the pure arithmetic."""

import asyncio
import random

import pytest

from penstock.domain import rate
from penstock.domain.rate import Counts, RateRule
from penstock.queue import keys
from penstock.queue.rates import Rates, Taken
from tests.queue.conftest import Stand

SLOW = RateRule(Counts.JOBS, limit=10, period_s=100_000, burst=5)  # one in 10,000 s
KEY = keys.rate(Counts.JOBS, "ada")


def near(taken: Taken) -> tuple[int, int, int]:
    """With times in whole units, about."""
    return taken.units, round(taken.wait_s / 10_000), round(taken.whole_in_s / 10_000)


async def test_what_is_needed_is_taken_or_nothing(stand: Stand) -> None:
    rates = Rates(stand.redis.door)
    assert near(await rates.take(SLOW, "ada", 3)) == (3, 0, 3)
    assert near(await rates.take(SLOW, "ada", 3)) == (0, 1, 3)
    assert near(await rates.take(SLOW, "ada", 2)) == (2, 0, 5)
    assert near(await rates.take(SLOW, "ada", 1)) == (0, 1, 5)
    assert near(await rates.take(SLOW, "eve", 1)) == (1, 0, 1)


async def test_what_is_wanted_beyond_is_taken_as_far_as_it_goes(stand: Stand) -> None:
    rates = Rates(stand.redis.door)
    assert near(await rates.take(SLOW, "ada", 1, 2)) == (3, 0, 3)
    assert near(await rates.take(SLOW, "ada", 1, 100)) == (2, 0, 5)


async def test_what_is_given_back_is_there_again_and_no_more_than_all(stand: Stand) -> None:
    rates = Rates(stand.redis.door)
    await rates.take(SLOW, "ada", 5)
    assert near(await rates.take(SLOW, "ada", 1, 0, 3)) == (1, 0, 3)
    assert near(await rates.take(SLOW, "ada", 1, 0, 100)) == (1, 0, 1)
    assert near(await rates.take(SLOW, "eve", 1, 0, 100)) == (1, 0, 1)


async def test_a_debt_is_made_when_all_is_there_and_paid_off_first(stand: Stand) -> None:
    rates = Rates(stand.redis.door)
    assert near(await rates.take(SLOW, "ada", 500, 7)) == (500, 0, 500)
    assert near(await rates.take(SLOW, "ada", 1)) == (0, 496, 500)
    await rates.take(SLOW, "eve", 1)
    assert near(await rates.take(SLOW, "eve", 500)) == (0, 1, 1)


async def test_a_budget_is_kept_until_it_is_whole_and_no_longer(stand: Stand) -> None:
    rates, door = Rates(stand.redis.door), stand.redis.door
    await rates.take(SLOW, "ada", 2)
    assert 19_000_000 < await door.command("PTTL", KEY) <= 20_000_000
    await rates.take(SLOW, "ada", 6, 0, 2)
    assert await door.command("EXISTS", KEY) == 1
    await door.command("DEL", KEY)
    assert near(await rates.take(SLOW, "ada", 5)) == (5, 0, 5)
    fast = RateRule(Counts.JOBS, limit=100_000, period_s=1, burst=5)
    await rates.take(fast, "eve", 1)
    await asyncio.sleep(0)
    assert await door.command("PTTL", keys.rate(Counts.JOBS, "eve")) <= 1


async def test_nothing_of_a_sub_is_in_a_key() -> None:
    sub = "a{b}:*\n" * 30
    assert len(keys.rate(Counts.READS, sub)) == len(keys.rate(Counts.READS, "a"))
    assert keys.rate(Counts.READS, sub) != keys.rate(Counts.READS, "a")
    assert keys.rate(Counts.READS, "a") != KEY.replace("jobs", "reads")


@pytest.mark.parametrize("command", [("SET", KEY, "soon"), ("SET", KEY, ""), ("SET", KEY, "-1")])
async def test_garbage_is_a_whole_budget(stand: Stand, command: tuple[str, ...]) -> None:
    await stand.redis.door.command(*command)
    assert near(await Rates(stand.redis.door).take(SLOW, "ada", 5)) == (5, 0, 5)


async def test_many_at_once_take_no_more_than_there_is(stand: Stand) -> None:
    rates = Rates(stand.redis.door)
    found = await asyncio.gather(*(rates.take(SLOW, "ada", 1) for _ in range(200)))
    assert sum(taken.units for taken in found) == 5


async def test_the_script_agrees_with_the_arithmetic(stand: Stand) -> None:
    rates, draw = Rates(stand.redis.door), random.Random(7)
    for n in range(30):
        burst = draw.randint(1, 20)
        rule = RateRule(Counts.READS, draw.randint(1, 50), 1_000_000, burst)
        whole_at = 0.0  # the time stands still, as nearly as makes no difference to these
        for _ in range(10):
            units = draw.randint(1, 25)
            wait_s = rate.wait_s(rule, whole_at, units, 0.0)
            taken = await rates.take(rule, f"sub-{n}", units)
            assert bool(taken.units) == (wait_s == 0), (rule, whole_at, units, taken)
            assert abs(taken.wait_s - wait_s) < 2
            if not wait_s:
                whole_at = rate.spent(rule, whole_at, units, 0.0)
            assert abs(taken.whole_in_s - whole_at) < 2
