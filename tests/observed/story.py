"""One run of two replicas under the eyes of a Prometheus, in which about everything happens.

`told()` runs it. What is counted between `began_at` and `counted_at` is known to the last job.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from penstock import places
from tests.egress.receiver import receiver, saying
from tests.observed.shortened import write_rules
from tests.support.api import Api
from tests.support.fleet import Fleet
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.proxy import Fault
from tests.support.replica import ReplicaProcess
from tests.support.waiting import eventually

SLOTS = 8  # of a replica, and a thread
NO_WAIT = {"kind": "fixed", "base_s": 0, "jitter": "none"}
LONG = {"seconds": 300}
AWAY = Fault(refuses=True, resets=True)
SETTINGS: dict[str, object] = {
    "worker__concurrency": SLOTS,
    "worker__threads": 1,
    "worker__ttl_s": 3,
    "worker__beat_s": 0.5,
    "config__poll_s": 0.5,
    "broker": "kafka",
}


@dataclass
class Story:
    """What happened, and when (seconds since 1970)."""

    began_at: float = 0.0
    counted_at: float = 0.0
    ended_at: float = 0.0
    held_at: float = 0.0
    backlog: int = 0
    alerts: list[dict[str, Any]] = field(default_factory=list)  # as they were at two times

    @property
    def window(self) -> int:
        return round(self.counted_at - self.began_at)


class Teller:
    """`prometheus.yml` and a settings directory are made in `directory`."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self._fleet = fleet
        self._directory = directory
        self._config = directory / "settings"
        self.story = Story()

    async def start(self) -> list[ReplicaProcess]:
        self._config.mkdir()
        (self._config / "base.yaml").write_text("")
        (self._config / "test.yaml").write_text((places.config_dir() / "test.yaml").read_text())
        nowhere = f"127.0.0.1:{free_port()}"
        own = {**SETTINGS, "config_dir": self._config, "kafka__bootstrap_servers": nowhere}
        found = await self._fleet.start(2, **own)
        targets = [{"targets": [one.url.removeprefix("http://") for one in found]}]
        settings = {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
            },
            "rule_files": write_rules(self._directory),
            "scrape_configs": [{"job_name": "penstock", "static_configs": targets}],
        }
        (self._directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
        return found

    async def tell(self, prometheus: Prometheus, replicas: Sequence[ReplicaProcess]) -> Story:
        here, there = replicas
        self._prometheus = prometheus
        async with (
            Api(here.url) as api,
            receiver(saying()) as good,
            receiver(saying(status=500)) as bad,
            receiver(saying(status=410)) as gone,
        ):
            self._api = api
            await self._hold()
            await self._warm_up()
            self.story.began_at, _ = await self._soon()
            await self._work(good.url, bad.url, gone.url)
            await self._saturate(there)
            _, self.story.counted_at = await self._soon()
            await self._break(here)
            await self._look_at_alerts()
            here.kill()
            await self._fires("PenstockAway")
        self.story.ended_at = time.time()
        return self.story

    async def _hold(self) -> None:
        """A paused queue: 8 ready, 2 blocked, 4 scheduled."""
        await self._call("/v1/queues/held/pause")
        held = {"kind": "echo", "queue": "held"}
        await self._api.submit_many([held] * 7 + [{**held, "delay_s": 900}] * 4)
        self.story.held_at = time.time()
        kin = [{**held, "name": name, "depends_on": ["root"]} for name in ("left", "right")]
        jobs = [{**held, "name": "root"}, *kin]
        await self._call("/v1/workflows", {"name": "held", "jobs": jobs})

    async def _warm_up(self) -> None:
        """Each series that the workload adds to is there before: `rate` doesn't see its first."""
        one = {"kind": "logged", "payload": {"seconds": 0.3, "failures": 1}, "backoff": NO_WAIT}
        for queue in ("orders", "mail"):
            wanted = f'count(penstock_retries_total{{queue="{queue}"}} > 0) == 2'
            while not await self._ask(wanted):
                ids = await self._api.submit_many([{**one, "queue": queue}] * (2 * SLOTS))
                await asyncio.gather(*(self._api.ended(id_) for id_ in ids))
                await self._api.submit("echo", queue=queue)
                await self._soon()

    async def _work(self, good: str, bad: str, gone: str) -> None:
        api, told = self._api, [{"on": ["succeeded"], "webhook": good}]
        ids = [await api.submit("echo", n, queue="orders", notify=told) for n in range(6)]
        ids += [await api.submit("echo", n, queue="orders") for n in range(6)]
        ids += [
            await api.submit(
                "logged", {"failures": 2}, queue="orders", max_attempts=3, backoff=NO_WAIT
            )
            for _ in range(3)
        ]
        chain = [
            {
                "name": f"n{n}",
                "kind": "echo",
                "queue": "orders",
                "depends_on": [f"n{n - 1}"] * (n > 0),
            }
            for n in range(4)
        ]
        await self._call("/v1/workflows", {"name": "chain", "jobs": chain})
        dead = [
            await api.submit(
                "fail",
                {"retryable": False},
                queue="mail",
                notify=[{"on": ["dead"], "webhook": f"{bad}/{n}"}],
            )
            for n in range(5)
        ]
        ids.append(await api.submit("echo", queue="orders", delay_s=0.2))
        leaves = [{"on": ["succeeded"], "webhook": gone}]
        ids.append(await api.submit("echo", queue="orders", notify=leaves))
        ids += await api.submit_many([{"kind": "echo", "queue": "mail"}] * 20)
        await asyncio.gather(*(api.ended(id_) for id_ in [*ids, *dead]))
        for id_ in dead[:2]:
            await self._call(f"/v1/dead-letters/{id_}/replay")
            await api.ended(id_)

    async def _saturate(self, there: ReplicaProcess) -> None:
        """All slots are taken, more comes in than can be done; then one replica is killed.
        Meanwhile somebody makes a mistake in the settings."""
        (self._config / "base.yaml").write_text("worker: {concurency: 9}")
        long = [{"kind": "sleep", "payload": LONG, "queue": "orders"}] * (2 * SLOTS)
        long += [{"kind": "logged-thread", "payload": LONG, "queue": "orders"}] * 2
        ids = await self._api.submit_many(long)
        await self._comes('sum(penstock_slots{state="busy"}) == 18', "all slots are taken")
        for alert in ("PenstockBacklogGrows", "PenstockNoFreeSlots", "PenstockOldestReadyAgeHigh"):
            while not await self._ask(_firing(alert)):
                await self._api.submit_many([{"kind": "echo", "queue": "orders"}] * 2)
                self.story.backlog += 2
                await asyncio.sleep(0.25)  # so it grows by some jobs a second
        there.kill()
        await self._comes("sum(penstock_reaped_total) == 9", "what it ran is lost")
        await self._fires("PenstockTargetDown")
        await self._look_at_alerts()
        await self._call("/v1/queues/orders/pause")  # else what was lost would start, one by one
        await self._soon()
        for id_ in ids:
            await self._call(f"/v1/jobs/{id_}/cancel")
        ended = f'sum(penstock_jobs_ended_total{{queue="orders", state="cancelled"}}) == {len(ids)}'
        await self._comes(ended, "they are cancelled")
        await self._call("/v1/queues/orders/resume")
        await self._comes('sum(penstock_slots{state="busy"}) == 0', "nothing runs")
        await self._comes(
            'max(penstock_queue_depth{queue="orders", state="ready"}) == 0 or '
            'absent(penstock_queue_depth{queue="orders", state="ready"})',
            "the backlog is worked off",
        )

    async def _break(self, here: ReplicaProcess) -> None:
        """What else may go wrong: a loop that stands, servers that are away."""
        await self._fires("PenstockConfigRefused")
        for _ in range(5):
            await self._api.submit("blocking", {"seconds": 1.3}, queue="orders")
        await self._fires("PenstockEventLoopStands")
        await self._fires("PenstockDeadLettersLate", "PenstockBrokerAway", "PenstockOutboxStuck")
        here.proxies["postgres"].apply(AWAY)
        while not await self._ask(_firing("PenstockApiErrors")):
            await self._api.call("POST", "/v1/jobs", {"kind": "echo"})
        await self._fires("PenstockPostgresAway", "PenstockNotReady")
        self._fleet.heal()
        here.proxies["redis"].apply(AWAY)
        await self._fires("PenstockRedisAway")

    async def _call(self, path: str, body: Any = None) -> Any:
        status, answer = await self._api.call("POST", path, body)
        assert status < 300, (path, status, answer)
        return answer

    async def _soon(self) -> tuple[float, float]:
        """Two times between which all that live were scraped twice, and nothing else happened."""
        now = time.time()
        scraped = f"min(timestamp(up{{job='penstock'}} == 1)) > {now + 2}"
        await self._comes(scraped, "all were scraped")
        return now, time.time()

    async def _fires(self, *alerts: str) -> None:
        for alert in alerts:
            await self._comes(_firing(alert), f"{alert} fires")

    async def _comes(self, expr: str, what: str) -> None:
        await eventually(lambda: self._ask(expr), what, 60, 0.2)

    async def _ask(self, expr: str) -> Any:
        return await asyncio.to_thread(self._prometheus.ask, expr)

    async def _look_at_alerts(self) -> None:
        self.story.alerts += await asyncio.to_thread(self._prometheus.alerts)


def _firing(alert: str) -> str:
    return f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
