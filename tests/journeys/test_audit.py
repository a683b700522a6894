"""A busy replica that audits itself all the time finds nothing, and says so."""

import asyncio
import itertools
import urllib.request

import pytest

from penstock.loops import auditor
from penstock.server import running
from penstock.settings import Settings
from tests.support.api import Api
from tests.support.still import changed
from tests.support.waiting import eventually


def gauges(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("penstock_audit_"))
    return {name: float(value) for name, value in pairs}


async def test_a_busy_healthy_replica_has_no_violations(
    replica_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor, "_SHARE", 2)  # else it would rest for most of the test
    settings = changed(replica_settings, audit={"every_s": 0.1})
    async with running(settings) as replica, Api(replica.url) as api:
        ages = [0.0]

        async def look() -> bool:
            found = await asyncio.to_thread(gauges, replica.url)
            assert {name: n for name, n in found.items() if "violations" in name and n} == {}
            ages.append(found["penstock_audit_age_seconds"])
            return sum(later < sooner for sooner, later in itertools.pairwise(ages)) >= 20

        async def busy() -> None:
            while True:
                await asyncio.sleep(0.05)
                jobs = [
                    {"kind": "logged", "unique_key": f"{n}", "on_conflict": "return"}
                    for n in range(5)
                ]
                await api.submit_many(
                    [*jobs, *({"kind": "logged", "delay_s": n / 20} for n in range(20))]
                )

        working = asyncio.create_task(busy())
        try:
            await eventually(look, "twenty audits are over", within_s=30)
        finally:
            working.cancel()
            await asyncio.wait([working])
