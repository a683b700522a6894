"""Which servers are refused, and how that is told."""

from dataclasses import replace
from typing import Any

import pytest

from penstock.domain.safety import (
    PostgresState,
    RedisState,
    postgres_faults,
    redis_faults,
    refusals,
    refused,
)

SAFE = PostgresState(
    version=150_014, fsync=True, full_page_writes=True, synchronous_commit="on", read_only=False
)
INDEX = RedisState("redis", (7, 0), "standalone", "master", "noeviction", 0, 0)


@pytest.mark.parametrize(
    ("change", "risks"),
    [
        ({}, []),
        ({"version": 140_020}, ["version"]),
        ({"version": 180_001}, []),
        ({"fsync": False}, ["fsync"]),
        ({"full_page_writes": False}, ["full_page_writes"]),
        ({"synchronous_commit": "off"}, ["synchronous_commit"]),
        ({"synchronous_commit": "local"}, []),
        ({"synchronous_commit": "remote_apply"}, []),
        ({"read_only": True}, []),
        ({"fsync": False, "full_page_writes": False}, ["fsync", "full_page_writes"]),
    ],
)
def test_postgres(change: dict[str, Any], risks: list[str]) -> None:
    assert [fault.risk for fault in postgres_faults(replace(SAFE, **change))] == risks


@pytest.mark.parametrize(
    ("change", "risks"),
    [
        ({}, []),
        ({"version": (6, 2)}, ["version"]),
        ({"engine": "valkey", "version": (8, 0)}, []),
        ({"engine": "valkey", "version": (7, 2)}, ["version"]),
        ({"mode": "cluster"}, ["cluster"]),
        ({"mode": "sentinel"}, ["cluster"]),
        ({"role": "slave"}, []),
        ({"policy": "allkeys-lru"}, []),
        ({"policy": "allkeys-lru", "maxmemory": 1}, ["eviction"]),
        ({"policy": "allkeys-random", "maxmemory": 1}, ["eviction"]),
        ({"policy": "volatile-lru", "maxmemory": 1}, []),
        ({"policy": "", "maxmemory": 1}, []),
    ],
)
def test_redis(change: dict[str, Any], risks: list[str]) -> None:
    assert [fault.risk for fault in redis_faults(replace(INDEX, **change))] == risks


def test_what_is_accepted_is_not_refused() -> None:
    faults = postgres_faults(replace(SAFE, fsync=False, full_page_writes=False))
    assert [fault.risk for fault in refused(faults, ["fsync"])] == ["full_page_writes"]


def test_a_refusal_names_the_fault_the_command_and_the_setting() -> None:
    faults = postgres_faults(replace(SAFE, fsync=False))
    (line,) = refusals("PostgreSQL at db:5432", "postgres", faults)
    assert line == (
        "PostgreSQL at db:5432 has fsync = off: a crash of its machine loses or corrupts accepted "
        "jobs; mend it (ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()), or accept it: "
        """PENSTOCK_POSTGRES__ACCEPTED_RISKS='["fsync"]'"""
    )
