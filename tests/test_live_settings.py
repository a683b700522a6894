"""Which settings count without a restart, and what becomes of changed ones."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from penstock.settings import Settings, load
from penstock.settings.live import AT_START, LIVE, change, differences, is_live, leaves, version
from penstock.settings.section import Section
from tests.test_settings import SECRETS


def read(directory: Path, text: str = "", **environ: str) -> Settings:
    directory.mkdir(exist_ok=True)
    (directory / "base.yaml").write_text(text)
    return load({**SECRETS, **environ}, directory)


def test_each_setting_is_live_or_is_not() -> None:
    """What is new in the settings must be entered in one of the two tables."""
    for name, info in Settings.model_fields.items():
        section = info.annotation
        keys = {name}
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys |= {f"{name}.{field}" for field in section.model_fields}
            if not {name} & (LIVE | AT_START):
                assert keys - {name} <= LIVE | AT_START, f"{keys - LIVE - AT_START}"
        else:
            assert name in LIVE | AT_START, name
    assert not LIVE & AT_START
    known = {*Settings.model_fields, *leaves(Settings.model_construct(**_sections()))}
    assert known >= LIVE | AT_START


def _sections() -> dict[str, Any]:
    found = {}
    for name, info in Settings.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Section):
            found[name] = section.model_construct()
            for field in section.model_fields:
                if not hasattr(found[name], field):
                    object.__setattr__(found[name], field, None)
    return found


def test_what_is_live_changes_and_the_rest_waits(tmp_path: Path) -> None:
    now = read(tmp_path, "http: {port: 1}\njobs: {max_attempts: 2}")
    new = read(tmp_path, "http: {port: 2, body_timeout_s: 3}\njobs: {max_attempts: 4}")
    made = change(now, new)
    assert made.changed == ("http.body_timeout_s", "jobs.max_attempts")
    assert made.restart_needed == ("http.port",)
    assert (made.settings.http.port, made.settings.http.body_timeout_s) == (1, 3)
    assert made.settings.jobs.max_attempts == 4

    again = change(made.settings, new)
    assert (again.changed, again.restart_needed) == ((), ("http.port",))
    back = change(made.settings, now)
    assert back.restart_needed == ()


def test_kinds_and_queues_differ_leaf_by_leaf(tmp_path: Path) -> None:
    now = read(tmp_path, "kinds: {a: {max_attempts: 2, backoff: {base_s: 1}}, b.c: {priority: 1}}")
    new = read(tmp_path, "kinds: {a: {max_attempts: 2, backoff: {base_s: 9}}}")
    made = change(now, new)
    assert "kinds.a.backoff.base_s" in made.changed
    assert "kinds.b.c.priority" in made.changed
    assert "kinds.a.max_attempts" not in made.changed
    assert made.restart_needed == ()
    assert made.settings.book().resolve("a").backoff.base_s == 9


def test_what_counts_tells_where_it_comes_from(tmp_path: Path) -> None:
    now = read(tmp_path / "old", "http: {port: 1}\njobs: {max_attempts: 2, priority: 3}")
    new = read(tmp_path / "new", "http: {port: 2}\njobs: {max_attempts: 4}")
    origins = change(now, new).settings._origins
    assert "old" in origins["http.port"]
    assert "new" in origins["jobs.max_attempts"]
    assert "jobs.priority" not in origins  # it has its default again


def test_a_value_that_stays_while_its_source_moves_is_no_change(tmp_path: Path) -> None:
    now = read(tmp_path, "jobs: {max_attempts: 5}")
    assert change(now, read(tmp_path)).changed == ()


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("", 'webhook: {secrets: ["whsec_dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3Rz"], timeout_s: 3}'),
        ("smtp: {host: a, from_address: a@b.example}", ""),
    ],
)
def test_a_way_out_is_opened_and_closed_by_a_restart(
    tmp_path: Path, was: str, becomes: str
) -> None:
    now, new = read(tmp_path, was), read(tmp_path, becomes)
    made = change(now, new)
    assert made.changed == ()
    assert made.restart_needed == differences(now, new) != ()


def test_a_section_that_a_rule_would_be_broken_in_waits_as_a_whole(tmp_path: Path) -> None:
    """bodies_max_bytes is for the start, and must be twice batch_body_max_bytes, which is live."""
    now = read(tmp_path)
    new = read(
        tmp_path,
        "http: {batch_body_max_bytes: 100000000, bodies_max_bytes: 200000000, body_timeout_s: 3}",
    )
    made = change(now, new)
    assert made.changed == ()
    assert "http.batch_body_max_bytes" in made.restart_needed
    assert made.settings.http == now.http


def test_a_rotated_secret_is_a_change_that_shows_nothing(tmp_path: Path) -> None:
    now = read(tmp_path)
    new = read(tmp_path, PENSTOCK_AUTH__JWT_SECRET="loud" * 8)
    made = change(now, new)
    assert made.changed == ("auth.jwt_secret",)
    assert version(now) != version(made.settings)
    assert "loud" not in repr(made)


def test_a_version_is_that_of_the_values(tmp_path: Path) -> None:
    one = read(tmp_path / "one", "jobs: {max_attempts: 5}")
    assert version(one) == version(read(tmp_path / "other", ""))
    assert version(one) != version(read(tmp_path / "other", "jobs: {max_attempts: 6}"))


@pytest.mark.parametrize(
    ("key", "live"),
    [
        ("kinds.mail.backoff.base_s", True),
        ("jobs.priority", True),
        ("log.level", True),
        ("log.format", False),
        ("postgres.dsn", False),
        ("worker.retry_share", True),
        ("worker.threads", False),
    ],
)
def test_whether_a_key_is_live(key: str, live: bool) -> None:
    assert is_live(key) is live
