"""Named chaos points: what PENSTOCK_CHAOS may say, what it does, and that no point is missed."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import chaos
from penstock.domain.errors import QueueUnavailable, StoreUnavailable, WrongSetting

PACKAGE = Path(chaos.__file__).parent
# A point is passed by chaos.point("…"), or named to the store, which passes it for its caller.
USES = re.compile(r'(?:chaos\.point\(|\bpoint=|\bbefore=|\bafter(?:=|: str = ))"(\w+)"')


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    chaos.arm(None, "test")


def armed(text: str) -> None:
    chaos.arm(text, "test")


async def passes(name: str, count: int) -> list[int]:
    """Which of so many passes fail, counted from 1."""
    struck = []
    for number in range(1, count + 1):
        try:
            await chaos.point(name)
        except (StoreUnavailable, QueueUnavailable):
            struck.append(number)
    return struck


def test_each_point_is_passed_at_exactly_one_place_and_is_known() -> None:
    used = [
        name
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in USES.findall(path.read_text())
        if path.name != "chaos.py"
    ]
    assert sorted(used) == sorted(chaos.POINTS)


def test_each_point_says_where_it_stands() -> None:
    for name, one in chaos.POINTS.items():
        assert re.fullmatch(r"[A-Z].{20,100}\.", one.says), name


async def test_nothing_happens_unless_it_was_asked_for() -> None:
    for unset in (None, ""):
        chaos.arm(unset, "production")
        assert chaos.armed() == []
        for name in chaos.POINTS:
            await chaos.point(name)


async def test_a_point_that_was_not_asked_for_does_nothing_beside_one_that_was() -> None:
    armed("after_pop:1:raise")
    assert await passes("after_promote", 50) == []
    assert await passes("after_pop", 3) == [1, 2, 3]


async def test_an_nth_pass_strikes_once() -> None:
    armed("before_settle:#3:raise")
    assert await passes("before_settle", 20) == [3]


async def test_a_seed_makes_the_draws_of_each_point_repeatable_whatever_others_draw() -> None:
    def text(seed: int) -> str:
        return f"before_settle:0.3:raise,after_pop:0.5:raise;seed={seed}"

    armed(text(7))
    alone = await passes("before_settle", 200)
    armed(text(7))
    await passes("after_pop", 17)
    assert await passes("before_settle", 200) == alone
    assert 30 < len(alone) < 90
    armed(text(8))
    assert await passes("before_settle", 200) != alone


async def test_what_is_raised_is_what_an_unreachable_service_raises_there() -> None:
    for name, one in chaos.POINTS.items():
        if one.raises is None:
            continue
        armed(f"{name}:1:raise")
        with pytest.raises(one.raises, match=name) as caught:
            await chaos.point(name)
        assert caught.value.unknown == one.unknown


async def test_a_sleep_lasts_as_long_as_was_asked_for() -> None:
    armed("before_ack:1:sleep=0.05")
    began = time.monotonic()
    await chaos.point("before_ack")
    assert 0.05 <= time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nowhere:1:exit", "'nowhere' is no point"),
        ("after_pop:1", "write name:probability:action"),
        ("after_pop:0:exit", "not above 0 and at most 1"),
        ("after_pop:1.5:exit", "not above 0 and at most 1"),
        ("after_pop:nan:exit", "not above 0 and at most 1"),
        ("after_pop:often:exit", "not above 0 and at most 1"),
        ("after_pop:#0:exit", "not above 0 and at most 1"),
        ("after_pop:1:explode", "'explode' can't be done at after_pop"),
        ("after_pop:1:exit=3", "'exit=3' can't be done"),
        ("after_pop:1:sleep", "not above 0 and at most 600"),
        ("after_pop:1:sleep=1e9", "not above 0 and at most 600"),
        ("after_pop:1:cut", "there are exit, sleep=seconds, raise"),
        ("before_ack:1:raise", "there are exit, sleep=seconds"),
        ("after_pop:1:exit,after_pop:1:raise", "after_pop is there twice"),
        ("after_pop:1:exit;sede=7", "only seed=number"),
        ("after_pop:1:exit,", "write name:probability:action"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_points_there_are(text: str, why: str) -> None:
    with pytest.raises(WrongSetting, match=re.escape(why)) as caught:
        armed(text)
    told = str(caught.value)
    assert told.startswith("PENSTOCK_CHAOS: ")
    assert "\n" not in told
    assert all(name in told for name in chaos.POINTS)
    assert chaos.armed() == []


def test_production_is_spared() -> None:
    with pytest.raises(WrongSetting, match="PENSTOCK_ENV is production"):
        chaos.arm("after_pop:1:exit", "production")
    assert chaos.armed() == []


async def test_while_nothing_is_asked_for_a_pass_costs_a_batch_nothing_to_speak_of() -> None:
    async def answer() -> None:
        await chaos.point("after_pop")

    await asyncio.sleep(0)
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20_000):
            await answer()
        rounds.append((time.perf_counter() - began) / 20_000)
    assert min(rounds) < 3e-6  # 0.1 µs on an idle machine; a batch takes a thousand
