"""Refused calls in the audit log: so many a minute, and a share of them for each caller."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from penstock.commands.refusals import Refusals
from penstock.domain.audit_log import Action, Entry
from penstock.domain.errors import StoreUnavailable
from penstock.store.audit_log import AuditLog
from penstock.telemetry.metrics import Metrics


class Kept:
    """What is added to it; `away`: it can't be reached."""

    def __init__(self) -> None:
        self.actors: list[str] = []
        self.away = False

    async def add(self, entries: Sequence[Entry]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.actors += [one.actor for one in entries]


class Clock:
    at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def kept() -> Kept:
    return Kept()


def refused(actor: str) -> Entry:
    return Entry(bytes(16), Action.QUEUE_PAUSE, actor).refused()


async def flushed(refusals: Refusals) -> None:
    running = asyncio.create_task(refusals.run())
    await asyncio.sleep(0)
    await refusals.drained()
    running.cancel()


async def test_one_caller_has_a_share_and_all_have_a_limit_and_a_minute_later_again(
    kept: Kept,
) -> None:
    clock, metrics = Clock(), Metrics()
    refusals = Refusals(cast(AuditLog, kept), 12, metrics, clock)
    for actor in "aaaabcdefghi":
        for _ in range(2):
            refusals.put(refused(actor))
    await flushed(refusals)
    assert kept.actors == list("aabbccddeeff")
    assert metrics.refusals_logged("left-out")._value.get() == 12
    clock.at += 60
    refusals.put(refused("a"))
    await flushed(refusals)
    assert kept.actors[12:] == ["a"]


async def test_with_none_wanted_none_is_kept(kept: Kept) -> None:
    refusals = Refusals(cast(AuditLog, kept), 0, Metrics())
    refusals.put(refused("a"))
    await flushed(refusals)
    assert kept.actors == []


async def test_what_can_not_be_stored_is_counted_and_the_next_ones_are(kept: Kept) -> None:
    metrics = Metrics()
    refusals = Refusals(cast(AuditLog, kept), 60, metrics)
    kept.away = True
    refusals.put(refused("a"))
    await flushed(refusals)
    kept.away = False
    refusals.put(refused("b"))
    await flushed(refusals)
    assert kept.actors == ["b"]
    assert metrics.refusals_logged("lost")._value.get() == 1
