"""What `penstock doctor` says of what it found: the words, the thresholds, the exit status.

In: figures of this machine and of the settings. Out: findings. Those about PostgreSQL, Redis and
the work are in `checkup_servers`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

SKEW_MAX_S = 5.0  # between two clocks; what decides goes by PostgreSQL's, so it only confuses
_SKEW_TOLD_S = 1.0
_DISTINCT_MIN = 10  # characters of a secret; 32 random ones in hexadecimal have 13 or more
_WORDS = ("changeme", "change-me", "secret", "password", "example", "12345678")
_FILES_BESIDE = 200  # what a process holds open besides connections: libraries, logs, children
_SHOWN_MAX = 5  # keys that are named
_FREE_LOW, _FREE_LEAST = 0.15, 0.05  # of a disk


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check`: what was looked at; `advice`: what to do, where there is anything."""

    check: str
    level: Level
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Level.WARNING, found, advice)


def wrong(check: str, found: str, advice: str = "") -> Finding:
    return Finding(check, Level.ERROR, found, advice)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, Level.SKIPPED, why)


def worst(findings: Iterable[Finding]) -> Level:
    """Of all of them; what was skipped is no fault."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.ERROR, Level.WARNING) if level in levels), Level.OK)


def exit_status(findings: Iterable[Finding], *, strict: bool) -> int:
    """0: all is well. 1: an error, or, if strict, a warning."""
    level = worst(findings)
    return int(level is Level.ERROR or (strict and level is Level.WARNING))


def of_secret(secret: str) -> Finding:
    """Whether the key of the HS256 tokens looks as if nobody could guess it. It is never told."""
    check = "auth.jwt_secret"
    advice = "make one by: openssl rand -base64 48"
    low = secret.lower()
    if len(set(secret)) < _DISTINCT_MIN:
        return warning(check, "has few different characters: it may be guessed", advice)
    if any(word in low for word in _WORDS):
        return warning(check, "holds a word that everybody tries first", advice)
    return ok(check, f"{len(secret.encode())} bytes")


def of_key_set(kids: Sequence[str | None], passed_over: Sequence[str]) -> Finding:
    """The keys that others publish for their tokens, and why the rest of them are passed over."""
    check = "auth.jwks_url"
    if not kids:
        why = f": {passed_over[0]}" if passed_over else ""
        advice = "see whether it is the address of the right key set"
        return warning(check, f"it holds no key that we can use{why}", advice)
    named = ", ".join(kid or "without a name" for kid in kids[:_SHOWN_MAX])
    more = ", …" if len(kids) > _SHOWN_MAX else ""
    return ok(check, f"{len(kids)} keys ({named}{more})")


def of_skew(check: str, ahead_s: float) -> Finding:
    """`ahead_s`: how far a server's clock is ahead of this machine's."""
    way = "ahead of" if ahead_s > 0 else "behind"
    found = f"{abs(ahead_s):.1f} s {way} this machine's"
    if abs(ahead_s) > SKEW_MAX_S:
        return wrong(check, found, "set the clocks by NTP on both machines")
    if abs(ahead_s) > _SKEW_TOLD_S:
        return warning(check, found, "set the clocks by NTP on both machines")
    return ok(check, f"within {_SKEW_TOLD_S:g} s of this machine's")


def of_files(limit: int, connections_max: int, pools: int) -> Finding:
    """`limit`: most files that a process may hold open here."""
    check, needed = "machine.files", connections_max + pools + _FILES_BESIDE
    if limit < needed:
        return wrong(
            check,
            f"ulimit -n is {limit}, less than the {needed} that http.connections_max needs",
            f"raise it (ulimit -n {needed}, LimitNOFILE= of systemd), or lower "
            "http.connections_max",
        )
    return ok(check, f"ulimit -n {limit}, {needed} needed")


def of_disk(check: str, free: int, total: int) -> Finding:
    share = free / max(total, 1)
    found = f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f}"
    advice = "make room, or keep less (retention.*_s)"
    if share < _FREE_LEAST:
        return wrong(check, found, advice)
    return warning(check, found, advice) if share < _FREE_LOW else ok(check, found)


def of_tls(check: str, setting: str, *, is_tls: bool, is_local: bool) -> Finding:
    if is_tls:
        return ok(check, "the connection is encrypted")
    if is_local:
        return ok(check, "none, on this machine")
    return warning(check, "passwords and jobs cross the network unencrypted", f"set {setting}")


def of_readyz(status: int, told: dict[str, object]) -> list[Finding]:
    """What a server answered when it was asked whether it is ready."""
    degraded, reasons = _texts(told.get("degraded")), _texts(told.get("reasons"))
    if status != 200:
        why = ", ".join(reasons) or str(told.get("detail", f"status {status}"))
        return [wrong("server.ready", why, "see its log")]
    if degraded:
        found = f"ready, but degraded: {', '.join(degraded)}"
        return [warning("server.ready", found, "see what is told of these here, and its log")]
    return [ok("server.ready", "ready")]


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
