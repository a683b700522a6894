"""Budgets of callers: several replicas on one Redis, what is lent ahead, and without Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock import clock
from penstock.commands import rate_limiter
from penstock.commands.rate_limiter import RateLimiter
from penstock.domain.caller import Caller
from penstock.domain.errors import QueueUnavailable
from penstock.domain.rate import Counts, RateRule, Standing
from penstock.queue.rates import Rates, Taken
from penstock.queue.redis import RedisDoor
from penstock.telemetry.metrics import Metrics


def rule(limit: int = 10, period_s: float = 100_000, burst: int = 5) -> RateRule:
    return RateRule(Counts.JOBS, limit, period_s, burst)


@dataclass
class Counting(Rates):
    """Counts calls; may be away."""

    door: RedisDoor
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    is_away: bool = False

    def __post_init__(self) -> None:
        super().__init__(self.door)

    async def take(self, *args: Any) -> Taken:
        self.calls.append((args[2], args[3], args[4]))
        if self.is_away:
            raise QueueUnavailable("away")
        return await super().take(*args)


Replicas = Callable[[int], list[tuple[RateLimiter, Counting]]]


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[Replicas]:
    door = RedisDoor(redis_url, 1.0)

    def made(count: int) -> list[tuple[RateLimiter, Counting]]:
        rates = [Counting(door) for _ in range(count)]
        return [(RateLimiter(one, [], Metrics()), one) for one in rates]

    yield made
    await door.close()


def passed(found: list[Standing]) -> int:
    return sum(not standing.wait_s for standing in found)


@pytest.mark.parametrize("burst", [1, 5, 200])
async def test_all_replicas_together_let_in_what_the_rule_says(
    replicas: Replicas, burst: int
) -> None:
    limiters = [limiter for limiter, _ in replicas(3)]
    by, let_in = rule(burst=burst), 0
    for n in range(100):
        found = await asyncio.gather(*(limiters[(n + m) % 3].take(by, "ada", 1) for m in range(7)))
        let_in += passed(found)
        assert let_in <= burst
    assert let_in == burst  # what had been lent and was not used came back


async def test_who_asks_much_does_not_wait_for_redis_each_time(replicas: Replicas) -> None:
    ((limiter, rates),) = replicas(1)
    by = rule(burst=10_000)
    for _ in range(2000):
        assert not (await limiter.take(by, "ada", 1)).wait_s
    assert len(rates.calls) < 60
    assert max(wanted for _, wanted, _ in rates.calls) <= 1000


async def test_who_asks_at_once_shares_what_is_lent(replicas: Replicas) -> None:
    ((limiter, rates),) = replicas(1)
    found = await asyncio.gather(*(limiter.take(rule(burst=1000), "ada", 1) for _ in range(500)))
    assert passed(found) == 500
    assert len(rates.calls) < 40


async def test_who_asks_much_goes_on_to_borrow_much_when_a_lease_is_over(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((limiter, rates),) = replicas(1)
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    for _ in range(2000):  # 1,000 a second, for two seconds
        now += 0.001
        assert not (await limiter.take(rule(burst=100_000), "ada", 1)).wait_s
    assert len(rates.calls) < 20


async def test_who_asks_little_borrows_nothing(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "_LEASE_S", 0.0)
    ((limiter, rates),) = replicas(1)
    for _ in range(5):
        await limiter.take(rule(burst=1000), "ada", 1)
    assert [wanted for _, wanted, _ in rates.calls] == [0] * 5


async def test_what_was_lent_and_not_used_is_given_back(replicas: Replicas) -> None:
    (one, rates), (other, _) = replicas(2)
    by = rule(burst=100)
    for _ in range(8):
        await one.take(by, "ada", 1)
    left = (await other.take(by, "ada", 1)).left
    await one.take(by, "ada", 20)
    assert rates.calls[-1][2] > 0
    assert (await one.look(by, "ada")).left == 100 - 8 - 1 - 20
    assert left < 91


async def test_a_refusal_is_remembered_and_costs_no_second_call(replicas: Replicas) -> None:
    ((limiter, rates),) = replicas(1)
    by = rule()
    assert not (await limiter.take(by, "ada", 4)).wait_s
    refused = [await limiter.take(by, "ada", 3) for _ in range(10)]
    assert all(15_000 < one.wait_s <= 20_000 for one in refused)
    assert len(rates.calls) == 2
    assert not (await limiter.take(by, "ada", 1)).wait_s  # so much is there
    assert (await limiter.take(by, "eve", 1)).left == 4


async def test_a_look_spends_nothing(replicas: Replicas) -> None:
    ((limiter, _),) = replicas(1)
    by = rule()
    for _ in range(20):
        standing = await limiter.look(by, "ada")
        assert (standing.left, standing.wait_s) == (5, 0)
    await limiter.take(by, "ada", 5)
    assert (await limiter.look(by, "ada")).wait_s > 0


async def test_a_batch_larger_than_the_burst_is_let_in_when_all_is_there(
    replicas: Replicas,
) -> None:
    ((limiter, _),) = replicas(1)
    by = rule(limit=100, period_s=1, burst=5)
    await limiter.look(by, "ada")
    standing = await limiter.take(by, "ada", 500)
    assert not standing.wait_s
    assert standing.left == 0
    assert 4 < (await limiter.take(by, "ada", 1)).wait_s < 5


async def test_without_redis_each_replica_goes_by_the_same_rule(replicas: Replicas) -> None:
    for limiter, rates in replicas(2):
        rates.is_away = True
        found = [await limiter.take(rule(), "ada", 1) for _ in range(20)]
        assert passed(found) == 5
        assert [one.left for one in found[:6]] == [4, 3, 2, 1, 0, 0]
        assert all(one.wait_s > 9_000 for one in found[5:])


async def test_what_was_let_in_before_redis_went_away_is_not_forgotten(
    replicas: Replicas,
) -> None:
    ((limiter, rates),) = replicas(1)
    by = rule()
    assert passed([await limiter.take(by, "ada", 1) for _ in range(3)]) == 3
    rates.is_away = True
    assert passed([await limiter.take(by, "ada", 1) for _ in range(10)]) == 2
    rates.is_away = False
    assert passed([await limiter.take(by, "ada", 1) for _ in range(10)]) == 2  # Redis knows of 3


async def test_a_redis_that_was_found_to_be_away_is_not_asked(replicas: Replicas) -> None:
    ((limiter, rates),) = replicas(1)
    rates.door._failures = 3
    rates.door._probe_at = 0.0  # a call would be let through, to see whether it is back
    assert passed([await limiter.take(rule(), "ada", 1) for _ in range(20)]) == 5
    assert rates.calls == []


async def test_what_is_remembered_is_bounded(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "_BUDGETS_MAX", 3)
    ((limiter, _),) = replicas(1)
    for n in range(10):
        await limiter.take(rule(), f"s{n}", 5)
    assert [sub for _, sub in limiter._budgets] == ["s7", "s8", "s9"]
    assert (await limiter.take(rule(), "s0", 1)).wait_s > 0  # Redis remembers


async def test_the_same_rules_again_leave_what_is_remembered(replicas: Replicas) -> None:
    ((limiter, _),) = replicas(1)
    limiter.change([rule(burst=5)])
    await limiter.take(rule(burst=5), "ada", 5)
    limiter.change([rule(burst=5)])
    assert [sub for _, sub in limiter._budgets] == ["ada"]


async def test_other_rules_count_at_once_and_what_was_spent_stays_spent(
    replicas: Replicas,
) -> None:
    ((limiter, _),) = replicas(1)
    ada = Caller("ada", frozenset())
    assert limiter.rule(Counts.JOBS, ada) is None
    narrow = rule(burst=5)
    limiter.change([narrow])
    assert limiter.rule(Counts.JOBS, ada) is narrow
    await limiter.take(narrow, "ada", 5)
    wide = rule(burst=8)
    limiter.change([wide])
    assert (await limiter.take(wide, "ada", 1)).left == 2


async def test_settings_that_are_read_again_make_no_budget_whole_while_redis_is_away(
    replicas: Replicas,
) -> None:
    """They are, each `config.poll_s`: and whoever had spent his burst would have it anew."""
    ((limiter, rates),) = replicas(1)
    rates.is_away = True
    let_in = []
    for by in (rule(), rule(), rule(burst=6)):
        limiter.change([by])
        let_in.append(passed([await limiter.take(by, "ada", 1) for _ in range(10)]))
    assert let_in == [5, 0, 1]
