"""Published keys: when they are fetched, how long they count, and what a miss may cost."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock.domain.errors import KeysUnavailable
from penstock.loops import published
from penstock.loops.published import Published, Source
from penstock.telemetry.metrics import Metrics
from tests.support.tokens import signer
from tests.support.waiting import eventually

OLD, NEW = (signer("ES256", n).jwk(kid=kid) for n, kid in enumerate(("old", "new")))


@dataclass
class Provider:
    """What is published, at a time that stands still."""

    keys: list[Any] = field(default_factory=lambda: [OLD])
    is_away: bool = False
    raw: bytes | None = None
    fetches: int = 0
    now_s: float = 1000.0
    held: asyncio.Event | None = None

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.held is not None:
            await self.held.wait()
        if self.is_away:
            raise KeysUnavailable("it is away")
        return self.raw if self.raw is not None else json.dumps({"keys": self.keys}).encode()


@dataclass
class Stand:
    provider: Provider
    published: Published
    metrics: Metrics
    changes: list[list[str | None]] = field(default_factory=list)

    def kids(self) -> list[str | None]:
        return [key.kid for key in self.published.keys]

    def is_uncertain(self) -> bool:
        return self.published.is_uncertain

    def count(self, outcome: str) -> float:
        labels = {"outcome": outcome}
        found = self.metrics.registry.get_sample_value("penstock_jwks_fetches_total", labels)
        return found or 0.0

    async def turn_until(self, look: Callable[[], Awaitable[Any]]) -> Any:
        """Steps as the loop would, until `look` is over."""
        looking = asyncio.ensure_future(look())
        while not looking.done():
            await self.published.step()
            await asyncio.sleep(0)
        return await looking


@pytest.fixture
def stand() -> Stand:
    provider, metrics = Provider(), Metrics()
    source = Source(provider.fetch, ttl_s=600, stale_s=86_400, cooldown_s=30, keys_max=3)
    found = Stand(provider, Published(source, metrics, lambda: provider.now_s), metrics)
    found.published.on_change = lambda: found.changes.append(found.kids())
    return found


async def test_the_set_is_fetched_at_once_and_again_when_it_is_old(stand: Stand) -> None:
    assert stand.is_uncertain()
    pause_s = await stand.published.step()
    assert stand.kids() == ["old"]
    assert not stand.is_uncertain()
    assert 0 < pause_s <= 60
    stand.provider.now_s += 500
    await stand.published.step()
    assert stand.provider.fetches == 1
    stand.provider.now_s += 100
    stand.provider.keys = [OLD, NEW]
    await stand.published.step()
    assert stand.kids() == ["old", "new"]
    assert stand.changes == [["old"], ["old", "new"]]
    assert stand.count("fetched") == 2


async def test_a_set_that_stays_the_same_changes_nothing(stand: Stand) -> None:
    for _ in range(3):
        await stand.published.step()
        stand.provider.now_s += 600
    assert stand.provider.fetches == 3
    assert stand.changes == [["old"]]


async def test_a_key_that_is_taken_out_is_forgotten_and_an_empty_set_counts(stand: Stand) -> None:
    stand.provider.keys = [OLD, NEW]
    await stand.published.step()
    for keys in ([NEW], []):
        stand.provider.keys = keys
        stand.provider.now_s += 600
        await stand.published.step()
    assert stand.changes == [["old", "new"], ["new"], []]


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no JWK set"),
        (b"{}", "no JWK set"),
        (b'{"keys": {}}', "no JWK set"),
        (json.dumps({"keys": [OLD] * 4}).encode(), "has 4 keys: 3 are taken"),
    ],
)
async def test_what_is_no_set_leaves_the_keys_as_they_were(
    stand: Stand, raw: bytes, word: str
) -> None:
    await stand.published.step()
    stand.provider.raw = raw
    stand.provider.now_s += 600
    await stand.published.step()
    assert stand.kids() == ["old"]
    assert word in stand.published.why
    assert stand.is_uncertain()
    assert stand.count("unusable") == 1


async def test_keys_count_for_a_day_while_the_set_cannot_be_fetched(stand: Stand) -> None:
    await stand.published.step()
    stand.provider.is_away = True
    stand.provider.now_s += 86_000
    await stand.published.step()
    assert stand.kids() == ["old"]
    assert stand.is_uncertain()
    stand.provider.now_s += 600
    await stand.published.step()
    assert stand.kids() == []
    stand.provider.is_away = False
    stand.provider.now_s += 60
    await stand.published.step()
    assert stand.kids() == ["old"]
    assert not stand.is_uncertain()


async def test_what_fails_is_tried_again_soon_and_then_more_rarely(stand: Stand) -> None:
    stand.provider.is_away = True
    pauses = []
    for _ in range(8):
        pauses.append(await stand.published.step())
        stand.provider.now_s += pauses[-1]
    assert stand.provider.fetches == 8
    assert pauses[0] <= 1
    assert 20 < pauses[-1] <= 30
    assert stand.count("failed") == 8


async def test_who_misses_a_key_causes_one_fetch_and_then_none_for_a_while(
    stand: Stand,
) -> None:
    await stand.published.step()
    stand.provider.now_s += 31
    stand.provider.keys = [OLD, NEW]
    await stand.turn_until(
        lambda: asyncio.gather(*(stand.published.look_again() for _ in range(1000)))
    )
    assert stand.kids() == ["old", "new"]
    assert stand.provider.fetches == 2
    for _ in range(29):
        stand.provider.now_s += 1
        await stand.published.look_again()  # comes back at once
        await stand.published.step()
    assert stand.provider.fetches == 2
    stand.provider.now_s += 1
    await stand.turn_until(stand.published.look_again)
    assert stand.provider.fetches == 3


async def test_who_comes_while_a_fetch_is_under_way_waits_for_that_one(stand: Stand) -> None:
    stand.provider.held = asyncio.Event()
    step = asyncio.create_task(stand.published.step())
    await eventually(lambda: asyncio.sleep(0, stand.provider.fetches), "it is being fetched")
    looking = [asyncio.create_task(stand.published.look_again()) for _ in range(5)]
    await asyncio.sleep(0)
    stand.provider.held.set()
    await asyncio.gather(step, *looking)
    await stand.published.step()
    assert stand.provider.fetches == 1


async def test_nobody_waits_longer_for_a_fetch_than_is_decent(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "PATIENCE_S", 0.01)
    await stand.published.look_again()  # nobody turns the loop
    assert stand.provider.fetches == 0


async def test_keys_of_another_place_are_void_at_once(stand: Stand) -> None:
    await stand.published.step()
    stand.provider.now_s += 1
    other = Provider(keys=[NEW])
    stand.published.change(Source(other.fetch))
    assert stand.kids() == []
    assert stand.is_uncertain()
    assert stand.published.wake.is_set()
    await stand.published.step()
    assert stand.kids() == ["new"]
    stand.published.change(None)
    assert stand.kids() == []
    assert not stand.is_uncertain()
    await stand.published.step()
    assert (stand.provider.fetches, other.fetches) == (1, 1)


async def test_what_the_old_place_answers_after_a_change_is_passed_over(stand: Stand) -> None:
    stand.provider.held = asyncio.Event()
    step = asyncio.create_task(stand.published.step())
    await eventually(lambda: asyncio.sleep(0, stand.provider.fetches), "it is being fetched")
    stand.published.change(Source(Provider(keys=[NEW]).fetch))
    stand.provider.held.set()
    await step
    assert stand.kids() == []
    await stand.published.step()
    assert stand.kids() == ["new"]


async def test_the_age_of_the_keys_is_told(stand: Stand) -> None:
    def age_s() -> float:
        return stand.metrics.registry.get_sample_value("penstock_jwks_age_seconds") or 0.0

    assert age_s() != age_s()  # NaN: never fetched
    await stand.published.step()
    stand.provider.now_s += 42
    assert age_s() == 42
    assert stand.metrics.registry.get_sample_value("penstock_jwks_keys") == 1
