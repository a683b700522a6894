"""Two replicas under a real Prometheus: what each panel says must be what the workload gives, and
alerts fire. The rules are those that ship, with a second where they say a minute."""

import asyncio
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.observed.shipped import alerts, boards, filled, panels
from tests.observed.story import Story, Teller
from tests.support.fleet import Fleet
from tests.support.prometheus import Prometheus, needs_prometheus
from tests.support.servers import Servers

pytestmark = needs_prometheus

# No key set is fetched here.
SILENT = {"penstock-api: Age of the key set"}
FIRED = {
    *("PenstockAway", "PenstockTargetDown", "PenstockEventLoopStands"),
    *("PenstockOldestReadyAgeHigh", "PenstockBacklogGrows", "PenstockJobsDieFast"),
    *("PenstockDeadLetters", "PenstockAttemptsLost", "PenstockAuditViolation"),
    *("PenstockNoFreeSlots", "PenstockDeadLettersLate", "PenstockBrokerAway"),
    *("PenstockOutboxStuck", "PenstockDeliveriesFail", "PenstockDeliveriesGivenUp"),
    *("PenstockEndpointDisabled", "PenstockPostgresAway", "PenstockRedisAway"),
    *("PenstockApiErrors", "PenstockConfigRefused"),
}


@dataclass
class Told:
    prometheus: Prometheus
    story: Story

    def panel(self, uid: str, title: str, window: int) -> dict[str, float]:
        """What it shows when all is counted, by legend. Rates are counts in the whole window."""
        (panel,) = [one for one in panels(boards()[uid]) if one["title"] == title]
        is_rate = panel["fieldConfig"]["defaults"]["unit"] in ("ops", "reqps")
        shown = {}
        for target in panel["targets"]:
            found = self.prometheus.ask(filled(target["expr"], f"{window}s"), self.story.counted_at)
            for labels, value in found:
                legend = re.sub(
                    r"\{\{(\w+)\}\}", lambda name: labels[name[1]], target["legendFormat"]
                )  # noqa: B023
                shown[legend] = value * window if is_rate else value
        return shown


@pytest.fixture(scope="module")
def told(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    directory = tmp_path_factory.mktemp("observed")

    async def replicas() -> tuple[Fleet, Teller, list]:  # type: ignore[type-arg]
        fleet = Fleet(
            await servers.fresh_database(), servers.fresh_redis(), directory, proxied=True
        )
        teller = Teller(fleet, directory)
        return fleet, teller, await teller.start()

    fleet, teller, found = asyncio.run(replicas())
    try:
        with Prometheus(directory) as prometheus:
            story = asyncio.run(teller.tell(prometheus, found))
            yield Told(prometheus, story)
    finally:
        fleet.stop()


@pytest.mark.parametrize("uid", sorted(boards()))
def test_every_query_of_every_panel_is_answered(told: Told, uid: str) -> None:
    silent = set()
    for panel in panels(boards()[uid]):
        for target in panel["targets"]:
            expr = filled(target["expr"], "10s")
            values = told.prometheus.values(expr, told.story.began_at, told.story.ended_at)
            if all(map(math.isnan, values)):
                silent.add(f"{uid}: {panel['title']}")
    assert silent == {place for place in SILENT if place.startswith(uid)}


def test_nothing_fires_before_anything_happens(told: Told) -> None:
    assert told.prometheus.ask("ALERTS", told.story.began_at) == []


@pytest.mark.parametrize("name", sorted(FIRED))
def test_an_alert_fired(told: Told, name: str) -> None:
    fired = f'max_over_time(ALERTS{{alertname="{name}", alertstate="firing"}}[10m])'
    assert told.prometheus.ask(fired, told.story.ended_at)


def test_rules_are_evaluated_and_alerts_say_what_they_are_about(told: Told) -> None:
    unwell = [rule for rule in told.prometheus.rules() if rule["health"] != "ok"]
    assert not unwell
    assert len(told.story.alerts) >= 8
    for alert in told.story.alerts:
        assert alert["labels"]["alertname"] in alerts()
        said = " ".join(alert["annotations"].values())
        assert "error" not in said.split("errors of ours")[0] or "<error" not in said
        assert "<no value>" not in said
