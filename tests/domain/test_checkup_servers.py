"""What the doctor says of PostgreSQL, of Redis and of the work in them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from penstock.domain import checkup_servers as judge
from penstock.domain.checkup import Finding, Level
from penstock.domain.checkup_servers import (
    Backlog,
    Connections,
    Crew,
    Prepared,
    Slot,
    Table,
    Transaction,
)
from tests.domain.test_safety import INDEX, SAFE

OK, WARNING, ERROR = Level.OK, Level.WARNING, Level.ERROR


def troubles(findings: Sequence[Finding]) -> dict[str, Level]:
    return {one.check: one.level for one in findings if one.level is not OK}


@pytest.mark.parametrize(
    ("change", "accepted", "expected"),
    [
        ({}, [], {}),
        ({"version": 140_001}, [], {"postgres.version": ERROR}),
        ({"fsync": False}, [], {"postgres.durability": ERROR}),
        ({"fsync": False}, ["fsync"], {"postgres.durability": WARNING}),
        ({"synchronous_commit": "off"}, ["fsync"], {"postgres.durability": ERROR}),
        ({"read_only": True}, ["fsync"], {"postgres.writable": ERROR}),
    ],
)
def test_postgres(change: dict[str, Any], accepted: list[str], expected: dict[str, Level]) -> None:
    findings = judge.of_postgres(replace(SAFE, **change), accepted)
    assert troubles(findings) == expected
    checks = {one.check for one in findings}
    assert checks == {"postgres.version", "postgres.durability", "postgres.writable"}


@pytest.mark.parametrize(
    ("change", "accepted", "expected"),
    [
        ({}, [], {}),
        ({"version": (6, 2)}, [], {"redis.version": ERROR}),
        ({"mode": "cluster"}, [], {"redis.mode": ERROR}),
        ({"role": "slave"}, [], {"redis.writable": ERROR}),
        ({"policy": "allkeys-lru", "maxmemory": 9}, [], {"redis.eviction": ERROR}),
        ({"policy": "allkeys-lru", "maxmemory": 9}, ["eviction"], {"redis.eviction": WARNING}),
        ({"maxmemory": 100, "used": 91}, [], {"redis.memory": WARNING}),
        ({"maxmemory": 100, "used": 89}, [], {}),
        ({"saves": False}, [], {"redis.persistence": WARNING}),
    ],
)
def test_redis(change: dict[str, Any], accepted: list[str], expected: dict[str, Level]) -> None:
    assert troubles(judge.of_redis(replace(INDEX, **change), accepted)) == expected


@pytest.mark.parametrize(
    ("most", "now", "replicas", "level"),
    [
        (100, 20, 0, OK),
        (100, 20, 3, OK),
        (100, 20, 8, ERROR),  # 12 each, and one more while versions change
        (27, 10, 1, OK),
        (26, 10, 1, ERROR),
        (100, 95, 1, WARNING),
    ],
)
def test_connections(most: int, now: int, replicas: int, level: Level) -> None:
    there = Connections(most, 3, now)
    assert judge.of_connections(there, pools=12, replicas=replicas).level is level


@pytest.mark.parametrize(
    ("age_s", "level"), [(0, OK), (60, OK), (61, WARNING), (3600, WARNING), (3601, ERROR)]
)
def test_what_holds_dead_rows_back(age_s: float, level: Level) -> None:
    assert judge.of_transaction(Transaction(age_s, "pid 7, ada", True)).level is level
    assert judge.of_prepared(Prepared(1, age_s, "two-phase")).level is level
    assert judge.of_prepared(Prepared(0, 0, "")).level is OK


def test_a_blind_doctor_says_so() -> None:
    assert "pg_read_all_stats" in judge.of_transaction(Transaction(0, "", False)).found


@pytest.mark.parametrize(
    ("slots", "level"),
    [
        ([], OK),
        ([Slot("a", True, 0, 0)], OK),
        ([Slot("a", True, 5, 11 * 2**30)], WARNING),
        ([Slot("a", False, 0, 0)], WARNING),
    ],
)
def test_slots(slots: list[Slot], level: Level) -> None:
    assert [one.level for one in judge.of_slots(slots)] == [level]


@pytest.mark.parametrize(
    ("live", "dead", "level"),
    [(0, 99_999, OK), (0, 100_000, WARNING), (50_001, 100_000, OK), (49_999, 100_000, WARNING)],
)
def test_bloat(live: int, dead: int, level: Level) -> None:
    (found,) = judge.of_tables([Table("job_due", live, dead)])
    assert found.level is level


@pytest.mark.parametrize(
    ("age", "level"), [(10**6, OK), (10**9 + 1, WARNING), (18 * 10**8 + 1, ERROR)]
)
def test_wraparound(age: int, level: Level) -> None:
    assert judge.of_wraparound(age).level is level


@pytest.mark.parametrize(
    ("finding", "level", "words"),
    [
        (judge.of_autovacuum(is_on=True), OK, "on"),
        (judge.of_autovacuum(is_on=False), ERROR, "off"),
        (judge.of_schema([]), OK, "up to date"),
        (judge.of_schema(["0014_rule_marks"]), ERROR, "0014_rule_marks"),
        (judge.of_rights([], "app"), OK, "app"),
        (judge.of_rights(["a", "b", "c", "d", "e"], "app"), ERROR, "a, b, c and 2 more"),
    ],
)
def test_rights_and_schema(finding: Finding, level: Level, words: str) -> None:
    assert finding.level is level
    assert words in finding.found


@pytest.mark.parametrize(
    ("crew", "levels"),
    [
        (Crew(2, 0, 1, ["1"]), [OK]),
        (Crew(0, 0, 0, []), [WARNING]),
        (Crew(1, 1, 0, ["1"]), [WARNING, OK]),
        (Crew(2, 0, 0, ["1", "2"]), [WARNING]),
    ],
)
def test_replicas(crew: Crew, levels: list[Level]) -> None:
    assert [one.level for one in judge.of_crew(crew)] == levels


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"ready": 5, "ready_oldest_s": 59.0}, {}),
        ({"ready": 5, "ready_oldest_s": 61.0}, {"work.backlog": WARNING}),
        ({"ready": 5, "ready_oldest_s": 3601.0}, {"work.backlog": ERROR}),
        ({"effects": 5, "effects_oldest_s": 61.0}, {"work.effects": WARNING}),
        ({"effects": 5, "effects_oldest_s": 3601.0}, {"work.effects": WARNING}),
        ({"letters": 999}, {}),
        ({"letters": 1000}, {"work.dead_letters": WARNING}),
    ],
)
def test_backlog(change: dict[str, Any], expected: dict[str, Level]) -> None:
    idle = Backlog(0, 0.0, 0, 0.0, 0)
    assert troubles(judge.of_backlog(replace(idle, **change))) == expected


@pytest.mark.parametrize(
    ("seconds", "words"), [(61.0, "for 61 s"), (600.0, "for 10 min"), (9000.0, "for 2.5 h")]
)
def test_spans_are_told_in_fitting_units(seconds: float, words: str) -> None:
    assert words in judge.of_transaction(Transaction(seconds, "pid 7", True)).found
