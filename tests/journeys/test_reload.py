"""Settings that change while servers run, seen from outside."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from penstock import places
from penstock.server import running
from penstock.settings.watched import source_of
from tests.support.api import Api, token
from tests.support.parameter_store import ParameterStore
from tests.support.replica import SECRET, ReplicaProcess
from tests.support.waiting import eventually

BACKOFF = (
    "kinds: {{fail: {{max_attempts: 90, backoff: {{kind: fixed, base_s: {}, jitter: none}}}}}}"
)
SOON = 0.2


class Config:
    """A directory of settings, and what the environment says besides."""

    def __init__(self, directory: Path, dsn: str, redis_url: str) -> None:
        self.base, self.own = directory / "base.yaml", directory / "test.yaml"
        self.base.write_text("")
        self.own.write_text((places.config_dir() / "test.yaml").read_text())
        self.environ = {
            "PENSTOCK_ENV": "test",
            "PENSTOCK_CONFIG_DIR": str(directory),
            "PENSTOCK_HTTP__PORT": "0",
            "PENSTOCK_POSTGRES__DSN": dsn,
            "PENSTOCK_REDIS__URL": redis_url,
            "PENSTOCK_AUTH__JWT_SECRET": SECRET,
            "PENSTOCK_HANDLERS__MODULES": '["penstock.handlers.samples"]',
        }

    @asynccontextmanager
    async def served(self, **environ: str) -> AsyncIterator[Api]:
        source = source_of({**self.environ, **environ})
        async with running(source.load(), source) as replica, Api(replica.url) as api:
            yield api


@pytest.fixture
def config(tmp_path: Path, dsn: str, redis_url: str) -> Config:
    return Config(tmp_path, dsn, redis_url)


async def waits_s(api: Api, id_: str) -> list[float]:
    """What each failure of a job had it wait."""
    attempts = (await api.get(f"/v1/jobs/{id_}/attempts?limit=200"))["items"]
    ended = [one for one in attempts if one["next_run_at"] is not None]
    return [(at(one["next_run_at"]) - at(one["finished_at"])).total_seconds() for one in ended]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def waits(api: Api, id_: str, wanted_s: float, within_s: float = 10.0) -> None:
    """Returns when the last failure had the job wait so long."""

    async def look() -> bool:
        found = await waits_s(api, id_)
        return bool(found) and abs(found[-1] - wanted_s) < 0.01

    await eventually(look, f"a failure has it wait {wanted_s:g} s", within_s)


@pytest.fixture
async def pair(
    config: Config, parameter_store: ParameterStore, workplace: Path
) -> AsyncIterator[tuple[ReplicaProcess, ReplicaProcess, str]]:
    """Two replicas that run the jobs of a queue each, and the path of their parameters."""
    path = parameter_store.path()
    parameter_store.put(path, {"jobs/priority": "5"})
    config.base.write_text(BACKOFF.format(SOON))
    found = []
    for queue in ("left", "right"):
        environ: Mapping[str, str] = {
            **config.environ,
            **parameter_store.environ,
            "PENSTOCK_SSM_PATH": path,
            "PENSTOCK_CONFIG__POLL_S": "1",
            "PENSTOCK_WORKER__QUEUES": f'["{queue}"]',
        }
        dsn, redis_url = environ["PENSTOCK_POSTGRES__DSN"], environ["PENSTOCK_REDIS__URL"]
        one = ReplicaProcess(dsn, redis_url, workplace, {})
        one.environ |= {k: v for k, v in environ.items() if k != "PENSTOCK_HTTP__PORT"}
        one.start()
        found.append(one)
    for one in found:
        await one.ready()
    yield found[0], found[1], path
    for one in found:
        one.stop()


async def test_a_changed_file_and_a_changed_parameter_count_on_every_replica(
    pair: tuple[ReplicaProcess, ReplicaProcess, str],
    config: Config,
    parameter_store: ParameterStore,
) -> None:
    """For jobs that were there before, too: what they left out is as the settings say now."""
    left, right, path = pair
    async with Api(left.url) as api:
        before = [await api.submit("fail", queue=queue) for queue in ("left", "right")]
        own = {"kind": "fixed", "base_s": 0.3, "jitter": "none"}
        stated = await api.submit("fail", queue="left", backoff=own, max_attempts=90)
        for id_ in before:
            await waits(api, id_, SOON)

        config.base.write_text(BACKOFF.format(500))
        for id_ in before:
            await waits(api, id_, 500)
            job = await api.get(f"/v1/jobs/{id_}")
            assert (job["backoff"]["base_s"], job["max_attempts"]) == (500, 90)

        parameter_store.put(path, {"kinds/fail/backoff/base_s": "700"})
        for url in (left.url, right.url):
            await version_moves(api, url, "kinds.fail.backoff.base_s", 700)
        for queue in ("left", "right"):
            await waits(api, await api.submit("fail", queue=queue), 700)
        assert set(await waits_s(api, stated)) == {0.3}


async def version_moves(api: Api, url: str, key: str, wanted: Any) -> None:
    """Returns when a replica says that a setting has this value."""

    async def look() -> bool:
        _, found = await api.call_at(url, "GET", "/v1/config")
        return any(one["key"] == key and one["value"] == wanted for one in found["settings"])

    await eventually(look, f"{key} is {wanted} at {url}", 10)


async def test_a_call_at_one_replica_reaches_all_and_a_signal_only_one(
    config: Config, parameter_store: ParameterStore, workplace: Path
) -> None:
    """Nobody polls here; a file would be seen, a parameter is not."""
    path = parameter_store.path()
    parameter_store.put(path, {"jobs/priority": "5"})
    environ = {
        **config.environ,
        **parameter_store.environ,
        "PENSTOCK_SSM_PATH": path,
        "PENSTOCK_CONFIG__POLL_S": "3600",
    }
    del environ["PENSTOCK_HTTP__PORT"]
    dsn, redis_url = environ["PENSTOCK_POSTGRES__DSN"], environ["PENSTOCK_REDIS__URL"]
    both = [ReplicaProcess(dsn, redis_url, workplace, environ) for _ in range(2)]
    try:
        for one in both:
            one.start()
        for one in both:
            await one.ready()
        async with Api(both[0].url) as api:
            parameter_store.put(path, {"jobs/priority": "3"})
            status, done = await api.call("POST", "/v1/config/reload")
            assert (status, done["changed"]) == (200, ["jobs.priority"])
            await version_moves(api, both[1].url, "jobs.priority", 3)

            parameter_store.put(path, {"jobs/priority": "2"})
            os.kill(both[1].pid, signal.SIGHUP)
            await version_moves(api, both[1].url, "jobs.priority", 2)
            assert (await api.get(f"/v1/jobs/{await api.submit('echo')}"))["priority"] == 3
        assert '"by":"signal"' in both[1].last_words()
    finally:
        for one in both:
            one.stop()


async def test_a_signal_that_comes_before_we_can_heed_it_waits(
    dsn: str, redis_url: str, workplace: Path
) -> None:
    """A supervisor may ask for a reload right after a start: SIGHUP would end us."""
    replica = ReplicaProcess(dsn, redis_url, workplace)
    replica.start()
    try:
        maps = Path(f"/proc/{replica.pid}/maps")

        async def imports() -> bool:
            return "pydantic_core" in await asyncio.to_thread(maps.read_text)

        await eventually(imports, "it has begun with its imports", every_s=0.001)
        os.kill(replica.pid, signal.SIGHUP)
        await replica.ready()

        async def heeded() -> bool:
            return '"by":"signal"' in replica.last_words()

        await eventually(heeded, "it reads its settings again", 5)
    finally:
        replica.stop()


async def test_wrong_settings_are_refused_with_every_mistake_and_the_old_ones_count(
    config: Config,
) -> None:
    async with config.served() as api:
        config.base.write_text("jobs:\n  priority: 10\n  max_attempts: 101\n")
        status, problem = await api.call("POST", "/v1/config/reload")
        assert (status, problem["type"]) == (422, "/problems/settings-refused")
        told = sorted(error["detail"] for error in problem["errors"])
        assert [f"base.yaml:{line}: " in one for line, one in zip((3, 2), told, strict=True)]
        shown = await api.get("/v1/config")
        assert shown["refused"]["by"] == "tests"
        assert (await api.get(f"/v1/jobs/{await api.submit('echo')}"))["priority"] == 5

        config.base.write_text("jobs: {priority: 8}\nhttp: {port: 9}")
        status, done = await api.call("POST", "/v1/config/reload")
        assert (done["changed"], done["restart_needed"]) == (["jobs.priority"], [])  # port: 0 given
        assert (await api.get("/v1/config"))["refused"] is None
        told = (await api.get("/v1/audit?action=config.reload"))["items"]
        assert [(one["actor"], one["outcome"]) for one in told] == [
            ("tests", "done"),
            ("tests", "refused"),
        ]
        assert told[0]["details"] == {"changed": ["jobs.priority"], "restart_needed": []}
        assert "jobs.max_attempts = 101" in told[1]["details"]["why"]
        assert (await api.get(f"/v1/jobs/{await api.submit('echo')}"))["priority"] == 8


async def test_names_that_nobody_can_write_down_end_no_replica(config: Config) -> None:
    async with config.served() as api:
        config.base.write_text('jobs: {"\\ud800": 1, "\\0": 2}')

        async def look() -> Any:
            return (await api.get("/v1/audit?action=config.reload&actor=file"))["items"]

        (entry,) = await eventually(look, "the file was read and refused")
        assert r"jobs.\ud800 is not a setting" in entry["details"]["why"]
        assert (await api.get("/v1/config"))["refused"]["by"] == "file"


async def test_what_is_shown_hides_secrets(config: Config) -> None:
    async with config.served() as api:
        shown = await api.get("/v1/config")
    settings = {one["key"]: one for one in shown["settings"]}
    assert settings["auth.jwt_secret"]["value"] == "********"
    assert settings["auth.jwt_secret"]["source"] == "environment variable PENSTOCK_AUTH__JWT_SECRET"
    assert SECRET not in str(shown)
    assert (settings["jobs.priority"]["live"], settings["http.port"]["live"]) == (True, False)


async def test_an_admin_of_some_queues_learns_of_no_other(config: Config) -> None:
    config.base.write_text("queues: {mail: {priority: 3}, bills: {priority: 4}}\n")
    async with (
        config.served() as api,
        Api(api.url, token(queues=["mail*"])) as limited,
    ):
        _, shown = await limited.call("GET", "/v1/config")
        keys = {one["key"] for one in shown["settings"]}
        assert keys >= {"queues.mail.priority", "jobs.priority"}
        assert "bills" not in str(shown)
        config.base.write_text("queues: {mail: {priority: 5}, bills: {priority: 6}}\n")
        _, done = await limited.call("POST", "/v1/config/reload")
        assert done["changed"] == ["queues.mail.priority"]
        assert "queues.bills.priority" in str(await api.get("/v1/config"))


async def test_a_key_is_rotated_without_a_restart(config: Config, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    del config.environ["PENSTOCK_AUTH__JWT_SECRET"]
    new = "another-secret-of-the-tests-with-32-bytes"
    async with config.served(PENSTOCK_AUTH__JWT_SECRET_FILE=str(secret)) as api:
        await api.get("/v1/queues")  # the old token is known by now
        secret.write_text(new)
        async with Api(api.url, token(secret=new)) as other:

            async def look() -> bool:
                return bool((await other.call("GET", "/v1/queues"))[0] == 200)

            await eventually(look, "tokens of the new key are taken")
            assert (await api.call("GET", "/v1/queues"))[0] == 401


async def test_tokens_of_the_secret_before_are_taken_while_it_is_named(
    config: Config, tmp_path: Path
) -> None:
    secret, former = tmp_path / "secret", tmp_path / "former"
    secret.write_text(SECRET)
    former.write_text("[]")
    del config.environ["PENSTOCK_AUTH__JWT_SECRET"]
    new = "another-secret-of-the-tests-with-32-bytes"
    files = {
        "PENSTOCK_AUTH__JWT_SECRET_FILE": str(secret),
        "PENSTOCK_AUTH__PREVIOUS_SECRETS_FILE": str(former),
    }
    async with (
        config.served(**files) as old,
        Api(old.url, token(secret=new)) as young,
        Api(old.url, token(secret="x" * 40)) as strange,
    ):

        async def statuses() -> list[int]:
            return [(await one.call("GET", "/v1/queues"))[0] for one in (old, young, strange)]

        assert await statuses() == [200, 401, 401]
        former.write_text(f'["{SECRET}"]')
        secret.write_text(new)
        assert (await old.call("POST", "/v1/config/reload"))[0] == 200
        assert await statuses() == [200, 200, 401]
        shown = await old.get("/v1/config")
        assert SECRET not in str(shown)
        former.write_text("[]")
        assert (await young.call("POST", "/v1/config/reload"))[0] == 200
        assert await statuses() == [401, 200, 401]


async def test_unknown_kinds_are_refused_where_that_is_asked_for(config: Config) -> None:
    async with config.served() as api:
        await api.submit("nobody", queue="strict")
        config.base.write_text("queues: {strict: {strict: true}}\nkinds: {remote: {priority: 7}}")
        assert (await api.call("POST", "/v1/config/reload"))[0] == 200
        job = {"kind": "nobody", "queue": "strict"}
        flow = {"kind": "workflow", "payload": {"jobs": [{"name": "a", **job}]}}
        for path, body, place in (
            ("/v1/jobs", job, "/kind"),
            ("/v1/jobs/batch", {"jobs": [{"kind": "echo"}, job]}, "/jobs/1/kind"),
            ("/v1/workflows", {"name": "w", "jobs": [{"name": "a", **job}]}, "/jobs/0/kind"),
            ("/v1/jobs", flow, "/payload/jobs/0/kind"),
        ):
            status, problem = await api.call("POST", path, body)
            assert status == 422
            (error,) = problem["errors"]
            assert error["pointer"] == place
            assert "'nobody' is no kind that is known here" in error["detail"]
        for kind in ("echo", "remote", "workflow"):
            known = {"kind": kind, "queue": "strict"}
            if kind == "workflow":
                known["payload"] = {"jobs": [{"name": "a", "kind": "echo"}]}  # type: ignore[assignment]
            assert (await api.call("POST", "/v1/jobs", known))[0] == 201
        assert (await api.call("POST", "/v1/jobs", {"kind": "nobody"}))[0] == 201


async def test_what_a_kind_and_a_queue_give_is_seen_in_the_job(config: Config) -> None:
    config.base.write_text(
        "kinds: {echo: {queue: letters, timeout_s: 7, ttl_s: 60, on_lost: dead,"
        " notify: [{on: [dead], webhook: 'https://example.com/secret'}]}}\n"
        "queues: {let*: {timeout_s: 8, max_attempts: 2, priority: 9}}"
    )
    async with config.served() as api:
        status, job = await api.call("POST", "/v1/jobs", {"kind": "echo", "delay_s": 3600})
        assert status == 201
        assert await api.get(f"/v1/jobs/{job['id']}") == job
        wanted = {"queue": "letters", "timeout_s": 7, "max_attempts": 2, "priority": 9}
        assert job.items() >= wanted.items()
        assert job["on_lost"] == "dead"
        assert job["notify"] == [{"on": ["dead"], "webhook": "https://example.com/…"}]
        assert (at(job["expires_at"]) - at(job["run_at"])).total_seconds() == pytest.approx(60)

        own = {"kind": "echo", "queue": "other", "timeout_s": 3, "notify": []}
        _, job = await api.call("POST", "/v1/jobs", own)
        wanted = {"queue": "other", "timeout_s": 3, "max_attempts": 5, "priority": 5}
        assert job.items() >= wanted.items()
        assert job["notify"] == []
