"""Two replicas under a real Prometheus: what each panel says must be what the workload gives, and
alerts fire. The rules are those that ship, with a second where they say a minute."""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.observed.shipped import alerts, boards, filled, panels
from tests.observed.story import SLOTS, Story, Teller
from tests.support.fleet import Fleet
from tests.support.prometheus import Prometheus, needs_prometheus
from tests.support.replica import ReplicaProcess
from tests.support.servers import Servers

# The story takes a minute, on a busy machine two.
pytestmark = [needs_prometheus, pytest.mark.timeout(300)]

# No key set is fetched here.
SILENT = {"penstock-api: Age of the key set"}
FIRED = {
    *("PenstockAway", "PenstockTargetDown", "PenstockEventLoopStands"),
    *("PenstockOldestReadyAgeHigh", "PenstockBacklogGrows", "PenstockJobsDieFast"),
    *(
        "PenstockDeadLetters",
        "PenstockAttemptsLost",
    ),
    *("PenstockNoFreeSlots", "PenstockDeadLettersLate", "PenstockBrokerAway"),
    *("PenstockOutboxStuck", "PenstockDeliveriesFail", "PenstockDeliveriesGivenUp"),
    *("PenstockEndpointDisabled", "PenstockPostgresAway", "PenstockRedisAway"),
    *("PenstockApiErrors", "PenstockConfigRefused", "PenstockNotReady"),
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
                legend = target["legendFormat"]
                for name, said in labels.items():
                    legend = legend.replace("{{%s}}" % name, said)  # noqa: UP031 - braces in braces
                shown[legend] = value * window if is_rate else value
        return shown


@pytest.fixture(scope="module")
def told(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    directory = tmp_path_factory.mktemp("observed")

    async def replicas() -> tuple[Fleet, Teller, list[ReplicaProcess]]:
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
    """But that there is no broker, which is so from the start."""
    found = told.prometheus.ask("ALERTS", told.story.began_at)
    assert {labels["alertname"] for labels, _ in found} <= {"PenstockBrokerAway"}


@pytest.mark.parametrize("name", sorted(FIRED))
def test_an_alert_fired(told: Told, name: str) -> None:
    fired = f'max_over_time(ALERTS{{alertname="{name}", alertstate="firing"}}[10m])'
    assert told.prometheus.ask(fired, told.story.ended_at)


def test_rules_are_evaluated_and_alerts_say_what_they_are_about(told: Told) -> None:
    unwell = [rule for rule in told.prometheus.rules() if rule["health"] != "ok"]
    assert not unwell
    assert len({alert["labels"]["alertname"] for alert in told.story.alerts}) >= 12
    for alert in told.story.alerts:
        assert alert["labels"]["alertname"] in alerts()
        said = " ".join(alert["annotations"].values())
        assert "<" not in said, "a template that failed says <error …> or <no value>"


Numbers = dict[tuple[str, str], dict[str, float]]
LOST = SLOTS + 1


def of_the_flow(story: Story) -> Numbers:
    """What the workload must give, by panel and legend. Counts began after the warm-up."""
    lost, backlog = LOST, story.backlog
    orders = 12 + 1 + 1 + 3 + 4 + backlog  # succeeded
    return {
        ("flow", "Ready"): {"Ready": 8},
        ("flow", "Running"): {"Running": 0},
        ("flow", "Scheduled"): {"Scheduled": 4},
        ("flow", "Blocked"): {"Blocked": 2},
        ("flow", "Dead"): {"Dead": 5},
        ("flow", "Oldest ready job"): {"Oldest ready job": story.counted_at - story.held_at},
        ("flow", "Submitted by queue"): {"orders": orders + 2 * lost, "mail": 20 + 5 + 2},
        ("flow", "Submitted by source"): {
            "api": 12 + 3 + 5 + 1 + 1,
            "batch": 20 + 2 * lost + backlog,
            "workflow": 4,
            "replay": 2,
            "retry": 0,
        },
        ("flow", "Ended by state"): {
            "succeeded": orders + 20,
            "dead": 7,
            "cancelled": 2 * lost,
            "skipped": 0,
        },
        ("flow", "Attempts by outcome"): {
            "succeeded": orders + 20,
            "failed": 6 + 7,
            "lost": lost,
            "cancelled": lost,
            "timed_out": 0,
            "crashed": 0,
        },
        ("flow", "Retries by kind"): {"logged": 6},
        ("flow", "Workflows ended by state"): {"succeeded": 1, "failed": 0, "cancelled": 0},
        ("flow", "Unlocked, moved out, expired"): {"unlocked": 3, "moved out": 0, "expired": 0},
        ("flow", "Ready by queue"): {"held": 8},
        ("flow", "Depth by state"): {"ready": 8, "scheduled": 4, "blocked": 2, "dead": 5},
    }


def of_the_rest() -> Numbers:
    return {
        ("api", "Requests by route"): {"POST /v1/jobs": 12 + 3 + 5 + 1 + 1},
        ("api", "Share of errors of ours"): {"5xx": 0},
        ("workers", "Replicas that answer"): {"Replicas that answer": 1},
        ("workers", "Replicas that run jobs"): {"Replicas that run jobs": 1},
        ("workers", "Slots"): {"Slots": LOST},
        ("workers", "Slots in use"): {"Slots in use": 0},
        ("workers", "Slots that leak"): {"Slots that leak": 0},
        ("workers", "Endings to be written"): {"Endings to be written": 0},
        ("workers", "Workers and attempts lost"): {"workers": 1, "attempts": LOST},
        ("workers", "Stale and stray"): {"unsettleable": 0},
        ("leaving", "Jobs that died by queue"): {"mail": 7, "orders": 0},
        ("leaving", "Dead by queue"): {"mail": 5},
        ("leaving", "Retried and replayed by hand"): {"replay": 2, "retry": 0},
        ("leaving", "Waiting by channel"): {"dead-letter": 7, "webhook": 7, "email": 0},
        ("leaving", "Tries by channel and fate"): {
            "webhook: delivered": 6,
            "webhook: gone": 1,
            "email: delivered": 0,
        },
        ("leaving", "Endpoints given up"): {"webhook": 1},
        ("leaving", "Broker or mail server away"): {"dead-letter": 1},
        ("dependencies", "PostgreSQL answers"): {"PostgreSQL answers": 1},
        ("dependencies", "Replicas without Redis"): {"Replicas without Redis": 0},
        ("dependencies", "Faults of Redis"): {"Faults of Redis": 0},
        ("dependencies", "Settings refused"): {"Settings refused": 1},
    }


def test_panels_show_the_numbers_of_the_workload(told: Told) -> None:
    """To within what Prometheus makes of a rate: it guesses up to a second at both ends."""
    wrong = []
    for (uid, title), wanted in {**of_the_flow(told.story), **of_the_rest()}.items():
        shown = told.panel(f"penstock-{uid}", title, told.story.window)
        for legend, number in wanted.items():
            if shown.get(legend) != pytest.approx(number, rel=0.06, abs=0.3):
                wrong.append((uid, title, legend, number, shown.get(legend)))
    assert not wrong, f"window {told.story.window} s: {wrong}"
