"""What the doctor says of this machine and of the settings, and how it ends."""

import pytest

from penstock.domain import checkup
from penstock.domain.checkup import Finding, Level

OK, WARNING, ERROR, SKIPPED = Level.OK, Level.WARNING, Level.ERROR, Level.SKIPPED


@pytest.mark.parametrize(
    ("levels", "strict", "status"),
    [
        ([], False, 0),
        ([OK, SKIPPED], True, 0),
        ([OK, WARNING], False, 0),
        ([OK, WARNING], True, 1),
        ([WARNING, ERROR], False, 1),
    ],
)
def test_exit_status(levels: list[Level], strict: bool, status: int) -> None:
    findings = [Finding("one", level, "") for level in levels]
    assert checkup.exit_status(findings, strict=strict) == status


@pytest.mark.parametrize(
    ("secret", "level"),
    [
        ("hush" * 10, WARNING),
        ("change-me-please-0123456789-abcdefghij", WARNING),
        ("my-SECRET-key-of-more-than-32-bytes-here", WARNING),
        ("0f3a9c4be1d27788a6b5c3d2e1f00918", OK),
        ("V3bq0lXG8yTn5mPzR1cJkWf7aYdHs2uE", OK),
    ],
)
def test_secrets(secret: str, level: Level) -> None:
    found = checkup.of_secret(secret)
    assert found.level is level
    assert secret not in f"{found.found} {found.advice}"


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (0.0, OK, "within 1 s"),
        (-0.9, OK, "within 1 s"),
        (1.5, WARNING, "1.5 s ahead of"),
        (-4.0, WARNING, "4.0 s behind"),
        (90.0, ERROR, "90.0 s ahead of"),
        (-3600.0, ERROR, "3600.0 s behind"),
    ],
)
def test_clocks(ahead_s: float, level: Level, words: str) -> None:
    found = checkup.of_skew("redis.clock", ahead_s)
    assert (found.check, found.level) == ("redis.clock", level)
    assert words in found.found


@pytest.mark.parametrize(("limit", "level"), [(1024, ERROR), (2211, ERROR), (2212, OK)])
def test_files(limit: int, level: Level) -> None:
    assert checkup.of_files(limit, connections_max=2000, pools=12).level is level


@pytest.mark.parametrize(
    ("free", "total", "level"), [(50, 100, OK), (10, 100, WARNING), (1, 100, ERROR), (0, 0, ERROR)]
)
def test_disks(free: int, total: int, level: Level) -> None:
    assert checkup.of_disk("postgres.disk", free * 2**30, total * 2**30).level is level


@pytest.mark.parametrize(
    ("is_tls", "is_local", "level"),
    [(True, False, OK), (False, True, OK), (False, False, WARNING)],
)
def test_encryption(is_tls: bool, is_local: bool, level: Level) -> None:
    found = checkup.of_tls("redis.tls", "it", is_tls=is_tls, is_local=is_local)
    assert found.level is level


@pytest.mark.parametrize(
    ("status", "told", "level", "words"),
    [
        (200, {"ready": True, "reasons": [], "degraded": []}, OK, "ready"),
        (200, {"ready": True, "degraded": ["redis", "clock"]}, WARNING, "redis, clock"),
        (503, {"ready": False, "reasons": ["survey is stuck"]}, ERROR, "survey is stuck"),
        (404, {"detail": "no such path"}, ERROR, "no such path"),
        (500, {}, ERROR, "status 500"),
        (200, {"degraded": "redis"}, OK, "ready"),
    ],
)
def test_a_servers_own_answer(
    status: int, told: dict[str, object], level: Level, words: str
) -> None:
    (found,) = checkup.of_readyz(status, told)
    assert found.level is level
    assert words in found.found
