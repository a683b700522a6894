"""The reloader with real files: what counts when, and what is refused."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from penstock.domain.errors import WrongSetting
from penstock.loops import reloader as module
from penstock.loops.reloader import Reload, Reloader, ReloadRefused
from penstock.settings import Settings, SourceUnavailable
from penstock.settings.watched import Source, source_of
from penstock.telemetry.metrics import Metrics
from tests.test_settings import SECRETS


class Place:
    """A directory of settings, and a reloader that watches it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "base.yaml"
        self.file.write_text("jobs: {max_attempts: 1}")
        self.metrics = Metrics()
        self.told: list[Reload] = []
        self.seen: list[Settings] = []
        self.reads = 0
        self.environ = {**SECRETS, "PENSTOCK_CONFIG_DIR": str(directory)}
        source = source_of(self.environ)
        self.reloader = self.made(replace(source, load=lambda: self._counted(source.load)))

    def made(self, source: Source) -> Reloader:
        made = Reloader(source.load(), source, self.metrics)
        made.swaps.append(lambda settings: lambda: self.seen.append(settings))
        made.on_reload = self._hear
        return made

    async def _hear(self, reload: Reload) -> None:
        self.told.append(reload)

    def _counted(self, load: Callable[[], Settings]) -> Settings:
        self.reads += 1
        return load()

    @property
    def counts(self) -> int:
        """The value of the setting that these tests are about."""
        return self.reloader.now.settings.jobs.max_attempts

    async def look(self, times: int = 2) -> None:
        """A change is seen by one look, and counts by the next."""
        for _ in range(times):
            await self.reloader.step()

    def metric(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(f"penstock_config_{name}", labels)
        return found or 0.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_a_changed_file_counts_once_it_has_come_to_rest(place: Place) -> None:
    place.file.write_text("jobs: {max_attempts: 2}")
    await place.look(1)
    assert place.counts == 1
    await place.look(1)
    assert place.counts == 2
    assert [settings.jobs.max_attempts for settings in place.seen] == [2]
    assert [(one.by, one.changed) for one in place.told] == [("file", ("jobs.max_attempts",))]
    reads = place.reads
    await place.look(5)
    assert place.reads == reads, "nothing has changed since"


async def test_what_kubernetes_mounts_is_exchanged_behind_a_link(tmp_path: Path) -> None:
    """As kubelet does it: ..data points to a directory, base.yaml to ..data/base.yaml."""
    for n in (1, 2):
        (tmp_path / f"..2026_{n}").mkdir()
        (tmp_path / f"..2026_{n}" / "base.yaml").write_text(f"jobs: {{max_attempts: {n}}}")
    config = tmp_path / "config"
    config.mkdir()
    place = Place(config)
    place.file.unlink()
    data = config / "..data"
    data.symlink_to(tmp_path / "..2026_1")
    place.file.symlink_to(Path("..data") / "base.yaml")
    await place.look()
    assert place.counts == 1

    (config / "..data_tmp").symlink_to(tmp_path / "..2026_2")
    (config / "..data_tmp").replace(data)
    await place.look()
    assert place.counts == 2


async def test_half_a_file_is_refused_and_the_whole_one_counts(place: Place) -> None:
    place.file.write_text("jobs: {max_attempts: 2, prio")
    await place.look()
    assert place.counts == 1
    assert str(place.file) in str(place.told[-1].refusal)
    place.file.write_text("jobs: {max_attempts: 2, priority: 3}")
    await place.look()
    assert place.counts == 2
    assert place.reloader.now.refused is None


async def test_a_file_that_is_being_written_is_left_alone(place: Place) -> None:
    for n in range(2, 102):
        place.file.write_text(f"jobs: {{max_attempts: {n if n < 101 else 77}}}" + " " * n)
        await place.look(1)
        assert place.counts == 1
    assert place.reads == 1
    await place.look(1)
    assert place.counts == 77


async def test_a_file_that_is_being_written_is_left_alone_by_who_asks_from_afar(
    place: Place,
) -> None:
    """It was cut to nothing, which is right by itself, and is about to be filled."""
    for by in ("signal", "replica"):
        place.file.write_text("")
        place.reloader.ask(by)
        await place.look(1)
        assert place.counts == 1
        place.file.write_text("jobs: {max_attempts: 1, priority: 2}")
        await place.look()
    assert (place.told[-1].by, place.told[-1].changed) == ("signal", ("jobs.priority",))
    assert place.reloader.now.settings.jobs.priority == 2


@pytest.mark.parametrize("half", ["", "jobs: {max_attempts: 2, prio"])
async def test_what_changes_while_it_is_read_for_a_caller_is_read_again(
    place: Place, half: str
) -> None:
    source = place.reloader._source

    def load() -> Settings:
        """Reads half of what somebody writes, who ends meanwhile."""
        try:
            return source.load()
        finally:
            if place.file.read_text() == half:
                place.file.write_text("jobs: {max_attempts: 2, priority: 3}")

    place.reloader._source = replace(source, load=load)
    place.file.write_text(half)
    done = await place.reloader.reload("ada")
    assert done.changed == ("jobs.max_attempts", "jobs.priority")
    assert place.reloader.now.settings.jobs.priority == 3


async def test_a_file_that_never_rests_is_read_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WRITING_MAX_S", 0.0)
    for n in range(2, 5):
        place.file.write_text(f"jobs: {{max_attempts: {n}}}" + " " * n)
        await place.look(1)
        assert place.counts == n


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"jobs: {max_attempts: 101}", "jobs.max_attempts"),
        (b"jobs:\n  max_attemps: 2", "base.yaml:2: "),
        (b"jobs: [1]", "is a section"),
        (b'jobs: {"\\ud800": 1}', r"jobs.\ud800 is not a setting"),
        (b"\xff\xfe\x00", "can't be read"),
        (b"notifications: {rules: [{name: a, on: [dead], email: a@b.example}]}", "smtp.host"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_reason(
    tmp_path: Path, text: bytes, told: str
) -> None:
    place = Place(tmp_path)
    place.reloader.swaps.append(_refusing_rules)
    place.file.write_bytes(text)
    await place.look()
    assert (place.counts, place.seen) == (1, [])
    refused = place.reloader.now.refused
    assert refused is not None
    assert refused.refusal is not None
    assert told in refused.refusal
    assert place.metric("refused") == 1
    assert place.metric("reloads_total", outcome="refused") == 1


def _refusing_rules(settings: Settings) -> Callable[[], None]:
    """As the engine's swap does it."""
    if settings.notifications.rules:
        raise WrongSetting("notifications.rules: a: its email can't be served: smtp.host")
    return lambda: None


async def test_all_mistakes_are_told_one_by_one(place: Place) -> None:
    place.file.write_text("jobs:\n  max_attempts: 101\n  priority: 10\n")
    with pytest.raises(ReloadRefused) as caught:
        await place.reloader.reload("ada")
    first, second = sorted(caught.value.mistakes)
    assert "jobs.max_attempts" in first
    assert "base.yaml:2: " in first
    assert "jobs.priority" in second
    assert "base.yaml:3: " in second


async def test_a_poll_that_finds_nothing_new_touches_nothing(place: Place) -> None:
    place.reloader.ask("poll")
    await place.look(1)
    assert (place.reads, place.seen) == (2, [])  # at the start, and now
    await place.reloader.reload("ada")
    assert len(place.seen) == 1, "who asks has everything made anew: a certificate may be another"


async def test_who_asks_gets_an_answer_in_the_log(place: Place) -> None:
    with capture_logs() as lines:
        await _asked_again_and_again(place)
    told = [(line["event"], line["by"]) for line in lines]
    assert told == [("settings_reloaded", "signal")] * 2 + [("settings_refused", "signal")] * 2
    assert "jobs.max_attempts = 0" in lines[-1]["mistakes"][0]


async def _asked_again_and_again(place: Place) -> None:
    for text in ("jobs: {max_attempts: 1}", "jobs: {max_attempts: 0}"):
        place.file.write_text(text)
        for by in ("signal", "signal", "poll"):
            place.reloader.ask(by)
            await place.look()


async def test_a_rule_whose_way_out_waits_for_a_restart_waits_too_and_the_rest_counts(
    place: Place,
) -> None:
    place.reloader.swaps.append(_refusing_rules)
    place.file.write_text(
        "smtp: {host: mail.example, from_address: a@b.example}\n"
        "notifications: {rules: [{name: a, on: [dead], email: a@b.example}]}\n"
        "jobs: {max_attempts: 9}"
    )
    done = await place.reloader.reload("ada")
    assert done.changed == ("jobs.max_attempts",)
    assert set(done.restart_needed) == {"smtp.host", "smtp.from_address", "notifications.rules"}


async def test_the_same_refusal_is_told_once(place: Place) -> None:
    place.file.write_text("jobs: {max_attempts: 0}")
    for _ in range(3):
        place.reloader.ask("poll")
        await place.look(1)
    assert len(place.told) == 1
    place.file.write_text("jobs: {max_attempts: 1}")
    await place.look()
    assert place.told[-1].refusal is None, "that it is right again is news"


async def test_a_file_that_is_gone_takes_no_values_away(place: Place) -> None:
    place.file.write_text("jobs: {max_attempts: 2}")
    await place.look()
    place.file.unlink()
    await place.look()
    assert place.counts == 2
    assert "is gone" in str(place.told[-1].refusal)
    place.file.write_text("jobs: {max_attempts: 3}")
    await place.look()
    assert place.counts == 3


async def test_a_part_that_refuses_leaves_all_as_they_were(place: Place) -> None:
    def refuses(_settings: Settings) -> Callable[[], None]:
        raise WrongSetting("not here")

    place.reloader.swaps.append(refuses)
    place.file.write_text("jobs: {max_attempts: 2}")
    with pytest.raises(ReloadRefused, match="not here"):
        await place.reloader.reload("ada")
    assert (place.counts, place.seen) == (1, [])


async def test_a_bug_in_reading_does_not_end_the_loop(place: Place) -> None:
    def bursts() -> Settings:
        raise RecursionError("deep")

    place.reloader = place.made(Source(place.reloader._source.load, lambda _: {}))
    place.reloader._source = Source(bursts, lambda _: {})
    place.reloader.ask("poll")
    await place.look(1)
    assert "RecursionError" in str(place.told[-1].refusal)


async def test_a_file_whose_name_is_no_text_is_refused_in_text(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    place = Place(tmp_path)
    source = source_of({**place.environ, "PENSTOCK_SECRETS_DIR": str(secrets)})
    place.reloader = place.made(source)
    (secrets / os.fsdecode(b"\xff")).write_text("x")
    with pytest.raises(ReloadRefused, match=r"/\\udcff: .* is not a setting") as told:
        await place.reloader.reload("ada")
    assert str(told.value).encode()


async def test_what_has_no_stamp_is_polled(place: Place) -> None:
    """As SSM: nobody tells of its changes."""
    environ = {**place.environ, "PENSTOCK_CONFIG__POLL_S": "0.2"}
    source = source_of(environ)
    place.reloader = place.made(Source(source.load, lambda _settings: {}))
    place.file.write_text("jobs: {max_attempts: 2}")
    await place.look(1)
    assert place.counts == 1
    async with asyncio.timeout(5):
        while place.counts == 1:
            await asyncio.sleep(0.02)
            await place.look(1)
    assert place.told[-1].by == "poll"


async def test_a_reading_that_hangs_is_given_up_and_not_begun_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_MAX_S", 0.05)
    goes_on, began = threading.Event(), 0
    load = place.reloader._source.load

    def hangs() -> Settings:
        nonlocal began
        began += 1
        goes_on.wait(10)
        return load()

    place.reloader._source = replace(place.reloader._source, load=hangs)
    try:
        for _ in range(3):
            with pytest.raises(ReloadRefused, match="could not be read within"):
                await place.reloader.reload("ada")
        assert began == 1
    finally:
        goes_on.set()
    monkeypatch.setattr(module, "_READ_MAX_S", 10)
    await place.reloader.reload("ada")
    assert place.reloader.now.refused is None


async def test_whoever_asks_while_a_reading_hangs_waits_no_longer_than_one_may_take(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_MAX_S", 0.3)
    goes_on, source = threading.Event(), place.reloader._source

    def hangs() -> Settings:
        goes_on.wait(10)
        return source.load()

    place.reloader._source = replace(source, load=hangs)
    try:
        began = asyncio.get_running_loop().time()
        calls = (place.reloader.reload(f"caller {n}") for n in range(10))
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 1.5, "not one after the other"
        assert {str(one).partition(":")[0] for one in told} == {
            "the settings could not be read within 0.3 s"
        }
    finally:
        goes_on.set()
    monkeypatch.setattr(module, "_READ_MAX_S", 10)
    assert (await place.reloader.reload("ada")).refusal is None


async def test_a_reading_that_fails_when_nobody_waits_any_more_is_no_fault_of_ours(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on, source = threading.Event(), place.reloader._source

    def hangs() -> Settings:
        goes_on.wait(10)
        raise SourceUnavailable("it is away")

    place.reloader._source = replace(source, load=hangs)
    monkeypatch.setattr(module, "_READ_MAX_S", 0.05)
    with pytest.raises(ReloadRefused, match="could not be read within"):
        await place.reloader.reload("ada")
    monkeypatch.setattr(module, "_READ_MAX_S", 10)
    place.reloader._source = source
    goes_on.set()
    await place.reloader.reload("ada")
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_what_waits_for_a_restart_is_said_until_then(place: Place) -> None:
    place.file.write_text("jobs: {max_attempts: 2}\nhttp: {port: 9}")
    await place.look()
    assert place.reloader.now.restart_needed == ("http.port",)
    assert place.metric("restart_needed") == 1
    place.file.write_text("jobs: {max_attempts: 2}")
    await place.look()
    assert not place.told[-1].restart_needed


async def test_a_rotated_secret_file_counts(tmp_path: Path) -> None:
    secret = tmp_path / "jwt"
    secret.write_text("a" * 32)
    (tmp_path / "config").mkdir()
    place = Place(tmp_path / "config")
    environ = {name: it for name, it in place.environ.items() if "JWT" not in name}
    environ["PENSTOCK_AUTH__JWT_SECRET_FILE"] = str(secret)
    place.reloader = place.made(source_of(environ))
    secret.write_text("b" * 33)
    await place.look()
    assert place.told[-1].changed == ("auth.jwt_secret",)
    assert place.metric("reloads_total", outcome="changed") == 1
