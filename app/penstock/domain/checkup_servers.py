"""What `penstock doctor` says of PostgreSQL, of Redis and of the work that waits in them.

In: what they tell of themselves. Out: findings.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from penstock.domain.checkup import Finding, ok, warning, wrong
from penstock.domain.safety import (
    Fault,
    PostgresState,
    RedisState,
    dotted,
    postgres_faults,
    redis_faults,
)

_LONG_S, _ENDLESS_S = 60.0, 3600.0  # a transaction that keeps dead rows from being cleared away
_DEAD_MIN, _DEAD_SHARE = 100_000, 2.0  # dead rows, and how many for one that lives
_XID_OLD, _XID_END = 1_000_000_000, 1_800_000_000  # transactions; at 2^31 PostgreSQL stops
_KEPT_MAX = 10 * 2**30  # bytes of WAL that a slot holds back
_FULL = 0.9
_LATE_S, _VERY_LATE_S = 60.0, 3600.0  # the oldest that should have begun, or been delivered
_LETTERS_MANY = 1000


@dataclass(frozen=True, slots=True)
class Connections:
    """How many there may be, `reserved` for superusers, and how many there are, ours included."""

    max: int
    reserved: int
    now: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """The oldest that is open. `sees_all`: whether we may see those of other roles."""

    age_s: float
    who: str  # pid, role, application
    sees_all: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """Transactions that were prepared and neither committed nor rolled back."""

    count: int
    oldest_s: float
    oldest: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot: `held` transactions back, `kept` bytes of WAL."""

    name: str
    active: bool
    held: int
    kept: int


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    live: int
    dead: int


@dataclass(frozen=True, slots=True)
class Crew:
    """Replicas: alive, silent but not condemned yet, condemned; the versions of those alive."""

    alive: int
    silent: int
    condemned: int
    versions: Sequence[str]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits. Jobs of paused queues don't count; `letters` is counted up to a limit."""

    ready: int
    ready_oldest_s: float
    effects: int
    effects_oldest_s: float
    letters: int


def of_postgres(state: PostgresState, accepted: Collection[str]) -> list[Finding]:
    found = [
        _safe("postgres", fault, accepted, _POSTGRES_CHECKS) for fault in postgres_faults(state)
    ]
    told = {finding.check for finding in found}
    major, minor = divmod(state.version, 10_000)
    fine = {
        "postgres.version": f"{major}.{minor}",
        "postgres.durability": f"fsync and full_page_writes on, synchronous_commit "
        f"{state.synchronous_commit}",
    }
    found += [ok(check, text) for check, text in fine.items() if check not in told]
    if state.read_only:
        found.append(
            wrong(
                "postgres.writable",
                "it is read-only: a standby, or default_transaction_read_only is on",
                "let postgres.dsn lead to the primary (target_session_attrs=read-write)",
            )
        )
    else:
        found.append(ok("postgres.writable", "yes"))
    return found


_POSTGRES_CHECKS = {"version": "version"}  # the other faults are of its durability
_REDIS_CHECKS = {"version": "version", "cluster": "mode", "eviction": "eviction"}


def _safe(section: str, fault: Fault, accepted: Collection[str], names: dict[str, str]) -> Finding:
    check = f"{section}.{names.get(fault.risk, 'durability')}"
    found = f"{fault.found}: {fault.why}"
    if fault.risk in accepted:
        return warning(check, f"{found} (accepted by {section}.accepted_risks)", fault.remedy)
    return wrong(check, found, fault.remedy)


def of_connections(there: Connections, pools: int, replicas: int) -> Finding:
    """`pools`: connections of one replica. One replica more must fit in: a new version starts
    before the old one ends."""
    check, free = "postgres.connections", there.max - there.reserved
    needed = pools * (max(replicas, 1) + 1)
    told = f"{there.now} of {free} in use; {needed} are needed while one more replica starts"
    if needed > free:
        return wrong(
            check,
            told,
            "raise max_connections, or lower postgres.engine_connections and read_connections",
        )
    if there.now > free * _FULL:
        return warning(check, told, "find out who holds them, or raise max_connections")
    return ok(check, told)


def of_autovacuum(*, is_on: bool) -> Finding:
    check = "postgres.autovacuum"
    if is_on:
        return ok(check, "on")
    remedy = "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()"
    return wrong(check, "off: tables grow without end", remedy)


def of_transaction(oldest: Transaction) -> Finding:
    check = "postgres.transactions"
    blind = "" if oldest.sees_all else " (of our own role; GRANT pg_read_all_stats shows all)"
    if oldest.age_s <= _LONG_S:
        return ok(check, f"none older than {_LONG_S:g} s{blind}")
    found = f"one is open for {_span(oldest.age_s)} ({oldest.who}){blind}: dead rows pile up"
    advice = "end it, or SELECT pg_terminate_backend(pid)"
    tell = wrong if oldest.age_s > _ENDLESS_S else warning
    return tell(check, found, advice)


def of_prepared(there: Prepared) -> Finding:
    check = "postgres.prepared"
    if there.count == 0:
        return ok(check, "no prepared transaction")
    found = f"{there.count}, the oldest, {there.oldest!r}, for {_span(there.oldest_s)}"
    if there.oldest_s <= _LONG_S:
        return ok(check, found)
    tell = wrong if there.oldest_s > _ENDLESS_S else warning
    return tell(check, f"{found}: dead rows pile up", "COMMIT PREPARED or ROLLBACK PREPARED it")


def of_slots(slots: Sequence[Slot]) -> list[Finding]:
    check = "postgres.slots"
    found = []
    for slot in slots:
        if not slot.active or slot.kept > _KEPT_MAX:
            how = "active" if slot.active else "used by nobody"
            text = f"{slot.name} is {how} and holds back {slot.kept / 2**20:.0f} MiB of WAL"
            text += f" and {slot.held} transactions" if slot.held else ""
            advice = "start its reader, or SELECT pg_drop_replication_slot(name)"
            found.append(warning(check, text, advice))
    return found or [ok(check, f"{len(slots)}, none behind" if slots else "none")]


def of_tables(tables: Sequence[Table]) -> list[Finding]:
    check = "postgres.bloat"
    found = [
        warning(
            check,
            f"{table.name} has {table.dead} dead rows and {table.live} live ones",
            f"find what holds them (postgres.transactions, prepared, slots), then VACUUM "
            f"{table.name}",
        )
        for table in tables
        if table.dead >= _DEAD_MIN and table.dead > _DEAD_SHARE * table.live
    ]
    return found or [ok(check, f"dead rows: {sum(table.dead for table in tables)} in all")]


def of_wraparound(age: int) -> Finding:
    check = "postgres.wraparound"
    found = f"the oldest row is {age / 1e6:.0f} million transactions old"
    advice = "find what holds vacuum back, then VACUUM (FREEZE)"
    if age > _XID_END:
        return wrong(check, found, advice)
    return warning(check, found, advice) if age > _XID_OLD else ok(check, found)


def of_rights(lacking: Sequence[str], role: str) -> Finding:
    """`lacking`: "UPDATE on jobs", …"""
    check = "postgres.rights"
    if not lacking:
        return ok(check, f"{role} has what a replica needs")
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return wrong(
        check,
        f"{role} lacks {', '.join(lacking[:3])}{more}",
        f"run as the owner of the tables: penstock migrate --grant-to {role}",
    )


def of_schema(pending: Sequence[str]) -> Finding:
    check = "postgres.schema"
    if not pending:
        return ok(check, "up to date")
    return wrong(check, f"lacks {', '.join(pending)}", "run: penstock migrate")


def of_redis(state: RedisState, accepted: Collection[str]) -> list[Finding]:
    found = [_safe("redis", fault, accepted, _REDIS_CHECKS) for fault in redis_faults(state)]
    told = {finding.check for finding in found}
    fine = {
        "redis.version": f"{state.engine.capitalize()} {dotted(state.version)}",
        "redis.mode": state.mode,
        "redis.eviction": f"maxmemory-policy {state.policy or 'not told'}",
    }
    found += [ok(check, text) for check, text in fine.items() if check not in told]
    if state.role != "master":
        advice = "let redis.url lead to the primary; until then jobs run without Redis"
        found.append(wrong("redis.writable", "it is a replica, which takes no writes", advice))
    else:
        found.append(ok("redis.writable", "yes"))
    if not state.saves:
        advice = "see its log and its disk; it may refuse writes (stop-writes-on-bgsave-error)"
        found.append(warning("redis.persistence", "its last write to disk failed", advice))
    return [*found, _memory(state)]


def _memory(state: RedisState) -> Finding:
    check, used = "redis.memory", f"{state.used / 2**20:.0f} MiB"
    if state.maxmemory == 0:
        return ok(check, f"{used} used, no limit")
    found = f"{used} used of {state.maxmemory / 2**20:.0f} MiB"
    if state.used > _FULL * state.maxmemory:
        return warning(check, found, "raise maxmemory: when it is full, jobs run without Redis")
    return ok(check, found)


def of_crew(crew: Crew) -> list[Finding]:
    check = "work.replicas"
    found = []
    if crew.silent:
        advice = "see their logs; what they ran is taken over by the others in seconds"
        found.append(warning(check, f"{crew.silent} have gone silent", advice))
    if crew.alive == 0:
        found.append(warning(check, "none is alive", "start one: penstock serve"))
    elif len(crew.versions) > 1:
        text = f"{crew.alive} alive, of versions {', '.join(crew.versions)}"
        found.append(warning(check, text, "bring all to one version"))
    else:
        found.append(ok(check, f"{crew.alive} alive, {crew.condemned} condemned"))
    return found


def of_backlog(there: Backlog) -> list[Finding]:
    letters = f"{there.letters} open dead letters"
    return [
        _late(
            "work.backlog",
            f"{there.ready} jobs are ready",
            there.ready_oldest_s,
            "start more replicas, see which kinds nobody runs: GET /v1/queues, /v1/workers",
        ),
        _late(
            "work.effects",
            f"{there.effects} deliveries wait",
            there.effects_oldest_s,
            "see which endpoints fail: GET /v1/endpoints",
            worst=warning,  # one receiver that is away says nothing of us
        ),
        ok("work.dead_letters", letters)
        if there.letters < _LETTERS_MANY
        else warning("work.dead_letters", letters, "see why: GET /v1/dead-letters/groups"),
    ]


def _late(
    check: str, found: str, oldest_s: float, advice: str, worst: Callable[..., Finding] = wrong
) -> Finding:
    if oldest_s <= 0:
        return ok(check, found)
    text = f"{found}, the oldest for {_span(oldest_s)}"
    if oldest_s <= _LATE_S:
        return ok(check, text)
    return (worst if oldest_s > _VERY_LATE_S else warning)(check, text, advice)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
