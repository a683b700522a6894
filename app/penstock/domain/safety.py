"""Which servers Penstock refuses to stand on, and why.

In: what a server says of itself. Out: its faults, each with the way out and the name by which an
operator accepts it (`postgres.accepted_risks`, `redis.accepted_risks`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

POSTGRES_MIN_MAJOR = 15
REDIS_MIN = {"redis": (7, 0), "valkey": (8, 0)}

PostgresRisk = Literal["fsync", "full_page_writes", "synchronous_commit", "version"]
RedisRisk = Literal["eviction", "version", "cluster"]


@dataclass(frozen=True, slots=True)
class PostgresState:
    """As our own session sees it: what is set for the server, the role and the database."""

    version: int  # as server_version_num: 150014
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    read_only: bool  # a standby, or default_transaction_read_only


@dataclass(frozen=True, slots=True)
class RedisState:
    engine: Literal["redis", "valkey"]
    version: tuple[int, int]
    mode: str  # standalone, cluster, sentinel
    role: str  # master, slave
    policy: str  # what is done when memory is full; empty: not told
    maxmemory: int  # bytes; 0: no limit
    used: int  # bytes
    saves: bool = True  # its last write to disk went well


@dataclass(frozen=True, slots=True)
class Fault:
    risk: str  # the name that accepts it
    found: str
    why: str
    remedy: str


def postgres_faults(state: PostgresState) -> list[Fault]:
    """What makes it no place for the truth. That it is read-only is another matter: it may be
    amid a failover, so a start waits for it."""
    return list(_postgres_faults(state))


def _postgres_faults(state: PostgresState) -> Iterable[Fault]:
    major = state.version // 10_000
    if major < POSTGRES_MIN_MAJOR:
        yield Fault(
            "version",
            f"version {major}",
            f"Penstock is made for {POSTGRES_MIN_MAJOR} and later",
            "upgrade it",
        )
    if not state.fsync:
        yield Fault(
            "fsync",
            "fsync = off",
            "a crash of its machine loses or corrupts accepted jobs",
            "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()",
        )
    if not state.full_page_writes:
        yield Fault(
            "full_page_writes",
            "full_page_writes = off",
            "a crash of its machine can corrupt tables",
            "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()",
        )
    if state.synchronous_commit == "off":
        yield Fault(
            "synchronous_commit",
            "synchronous_commit = off",
            "a crash loses jobs whose callers were told that they are stored",
            "ALTER DATABASE … SET synchronous_commit = on, or where else it was set",
        )


def redis_faults(state: RedisState) -> list[Fault]:
    """What makes it no place for queues. A replica is no fault: it may be amid a failover, and
    counts as away."""
    return list(_redis_faults(state))


def _redis_faults(state: RedisState) -> Iterable[Fault]:
    least = REDIS_MIN[state.engine]
    if state.version < least:
        yield Fault(
            "version",
            f"version {dotted(state.version)}",
            f"Penstock is made for {state.engine.capitalize()} {dotted(least)} and later",
            "upgrade it",
        )
    if state.mode != "standalone":
        yield Fault(
            "cluster",
            f"mode {state.mode}",
            "Penstock talks to one server and can't follow keys to others",
            "use one that has cluster-enabled no",
        )
    # What is volatile are our locks, which may go at any moment.
    if state.maxmemory and state.policy.startswith("allkeys"):
        yield Fault(
            "eviction",
            f"maxmemory-policy {state.policy}",
            "it drops queues when its memory is full, and again when they have been made anew",
            "CONFIG SET maxmemory-policy noeviction",
        )


def refused(faults: Iterable[Fault], accepted: Collection[str]) -> list[Fault]:
    """Those that nobody has accepted."""
    return [fault for fault in faults if fault.risk not in accepted]


def refusals(server: str, section: str, faults: Iterable[Fault]) -> list[str]:
    """A line for each, for who started us: what, why, and both ways out."""
    return [
        f"{server} has {fault.found}: {fault.why}; mend it ({fault.remedy}), or accept it: "
        f"""PENSTOCK_{section.upper()}__ACCEPTED_RISKS='["{fault.risk}"]'"""
        for fault in faults
    ]


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
