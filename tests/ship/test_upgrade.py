"""A rolling upgrade, for real: replicas of an earlier commit and of this one on one schema.

The earlier one knows 12 migrations: nothing of dead letters and of what leaves the house.
"""

import asyncio
import io
import subprocess
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from penstock.store import migrate
from tests.support.api import token
from tests.support.replica import ReplicaProcess
from tests.support.servers import Servers
from tests.support.waiting import eventually
from tests.test_tidy import ROOT

EARLIER = "1b05fe1f815266274886b401684f7db333b8e210"  # the last before migration 0013
KNEW = 12
SAMPLES = {
    "PENSTOCK_HANDLERS__MODULES": '["penstock.handlers.samples"]',
    "PENSTOCK_WORKER__TTL_S": "3",
    "PENSTOCK_WORKER__BEAT_S": "0.5",
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of that commit."""
    command = ["git", "archive", "--format=zip", EARLIER, "app", "config", "migrations"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no earlier code to run: this clone lacks {EARLIER[:12]}")
    place = tmp_path_factory.mktemp("earlier")
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as packed:
        packed.extractall(place)
    return place


@pytest.fixture
async def old_schema(servers: Servers, earlier: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database as the earlier code's migrations left it."""
    dsn = await servers.empty_database()
    with monkeypatch.context() as then:
        then.setattr("penstock.places.migrations_dir", lambda: earlier / "migrations")
        assert len(await migrate.migrate(dsn)) == KNEW
    return dsn


@pytest.fixture
def redis(servers: Servers) -> str:
    return servers.fresh_redis()


@pytest.fixture
async def old(
    old_schema: str, redis: str, earlier: Path, workplace: Path
) -> AsyncIterator[ReplicaProcess]:
    """A replica of the earlier code, ready on its own schema."""
    environ = {**SAMPLES, "PYTHONPATH": str(earlier / "app")}
    one = ReplicaProcess(old_schema, redis, workplace, environ)
    one.start()
    await one.ready()
    yield one
    one.stop()


class Caller:
    """As `Api`, which would hold the answers of earlier code against today's contract."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def submit(self, kind: str, payload: Any = None, **fields: Any) -> str:
        """Every single one must be taken."""
        body = {"kind": kind, "payload": payload, **fields}
        async with self._session.post(f"{self.url}/v1/jobs", json=body) as answer:
            job = await answer.json()
            assert answer.status == 201, job
            return str(job["id"])

    async def job(self, id_: str, *states: str, within_s: float = 30) -> Any:
        """The job once it is in one of these states."""

        async def look() -> Any:
            async with self._session.get(f"{self.url}/v1/jobs/{id_}") as answer:
                job = await answer.json()
            return job if job["state"] in states else None

        return await eventually(look, f"job {id_} is one of {states}", within_s)

    async def ended(self, id_: str, within_s: float = 30) -> Any:
        return await self.job(id_, "succeeded", "dead", "cancelled", within_s=within_s)

    async def works(self) -> None:
        """Jobs succeed, die, are retried."""
        good = await self.submit("echo", 1)
        bad = await self.submit("fail", {"retryable": False})
        retry = {"kind": "fixed", "base_s": 0.05, "jitter": "none"}
        again = await self.submit("fail", max_attempts=2, backoff=retry)
        ended = [await self.ended(id_) for id_ in (good, bad, again)]
        found = [(job["state"], job["attempt"]) for job in ended]
        assert found == [("succeeded", 1), ("dead", 1), ("dead", 2)]

    async def knows_dead_letters(self) -> bool:
        """The earlier code doesn't: so we see that it is what answers."""
        async with self._session.get(f"{self.url}/v1/dead-letters") as answer:
            return answer.status != 404

    async def submits(self, accepted: list[str]) -> None:
        """Goes on and on."""
        while True:
            accepted.append(await self.submit("echo"))
            await asyncio.sleep(0.05)


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    headers = {"Authorization": f"Bearer {token()}"}
    async with ClientSession(headers=headers) as one:
        yield one


async def test_an_upgrade_and_the_way_back_lose_nothing(
    old: ReplicaProcess, old_schema: str, redis: str, workplace: Path, session: ClientSession
) -> None:
    """Old, then old on the new schema, then both, then old again, which ends what both began."""
    before = Caller(session, old.url)
    accepted: list[str] = []
    submitting = asyncio.create_task(before.submits(accepted))
    await before.works()
    assert not await before.knows_dead_letters()
    assert len(await migrate.migrate(old_schema)) >= 2
    await before.works()

    new = ReplicaProcess(old_schema, redis, workplace, SAMPLES)
    try:
        new.start()
        await new.ready()
        after = Caller(session, new.url)
        assert await after.knows_dead_letters()
        await after.works()
        late = [await after.submit("echo", n, delay_s=2) for n in range(20)]
        assert (await before.ended(await after.submit("echo")))["state"] == "succeeded"
        new.terminate()
        assert await asyncio.to_thread(new.wait) == 0
    finally:
        new.stop()

    await before.works()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert len(accepted) > 20
    for id_ in [*late, *accepted]:
        job = await before.ended(id_)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job


async def test_the_next_version_runs_again_what_an_old_replica_lost(
    old: ReplicaProcess, old_schema: str, redis: str, workplace: Path, session: ClientSession
) -> None:
    await migrate.migrate(old_schema)
    caller = Caller(session, old.url)
    ids = [await caller.submit("sleep", {"seconds": 3}) for _ in range(10)]
    for id_ in ids:
        await caller.job(id_, "running")
    old.kill()
    new = ReplicaProcess(old_schema, redis, workplace, SAMPLES)
    try:
        new.start()
        await new.ready()
        caller.url = new.url
        jobs = [await caller.ended(id_, within_s=60) for id_ in ids]
    finally:
        new.stop()
    assert {(job["state"], job["attempt"]) for job in jobs} == {("succeeded", 2)}
