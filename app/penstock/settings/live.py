"""Which settings count without a restart, and what becomes of those that do when others are read.

In: the settings that count, and those that were read anew. Out: what counts from now on, which
keys changed, and which wait for a restart. Always holds: every key is in `LIVE` or in `AT_START`,
and what counts keeps to the rules of the models: a section that would break one by being half new
waits as a whole.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, SecretStr, ValidationError

from penstock.settings.notifications import Addressed
from penstock.settings.section import Section
from penstock.settings.sections import Settings

# Sections that are live as a whole, and live keys of the others.
LIVE = frozenset(
    {
        *("jobs", "kinds", "queues", "notifications", "retention", "audit", "config"),
        *("auth", "rate_limits", "smtp", "webhook", "autoscale"),
        *("egress.allow", "log.level", "log.burst", "log.per_s", "log.handlers"),
        *("http.body_max_bytes", "http.batch_body_max_bytes", "http.batch_jobs_max"),
        *("http.containers_max", "http.head_timeout_s", "http.body_timeout_s"),
        *("http.trusted_proxies", "audit_log.submissions"),
        *("worker.retry_share", "worker.retry_min_per_s", "worker.retry_burst"),
        *("worker.retry_spread_max_s", "worker.losses_max", "worker.crashes_max"),
    }
)
# What is made once: places to connect to, pools, ports, loops' clocks.
AT_START = frozenset(
    {
        *("env", "roles", "broker"),
        *("alerts", "dev", "handlers", "kafka", "postgres", "queue", "rabbitmq", "redis"),
        *("audit_log.refusals_per_min", "log.format"),
        *("log.waiting_max", "tracing"),
        *("egress.connect_timeout_s", "egress.response_max_bytes"),
        *("http.host", "http.port", "http.bodies_max_bytes", "http.answers_max_bytes"),
        *("http.connections_max", "http.keepalive_s", "http.submissions_in_flight_max"),
        *("http.changes_in_flight_max", "http.reads_in_flight_max", "http.waits_max"),
        *("http.jobs_waiting_max", "http.submission_wait_max_s"),
        *("worker.concurrency", "worker.threads", "worker.queues", "worker.claim_max"),
        *("worker.drain_grace_s", "worker.cancel_grace_s", "worker.unsettled_max"),
        *("worker.unsettled_max_bytes", "worker.result_max_bytes", "worker.parents_max_bytes"),
        *("worker.payload_max_bytes", "worker.submit_max", "worker.submit_max_bytes"),
        *("worker.ttl_s", "worker.beat_s", "worker.stall_max_s", "worker.log_lines_max"),
        *("worker.log_bytes_max", "worker.children", "worker.child_start_max_s"),
        *("worker.child_memory_max_bytes", "worker.leaks_max_percent"),
    }
)
# A way out is there from the start on or not at all; where it is, all of its section is live.
_WAYS_OUT = ("webhook.secrets", "smtp.host")
_ADDRESSED = ("notifications", "kinds", "queues")  # wait too, for a way out that they use


@dataclass(frozen=True, slots=True)
class Change:
    """`settings` count from now on; of what was read, `restart_needed` doesn't yet."""

    settings: Settings
    changed: tuple[str, ...]
    restart_needed: tuple[str, ...]


def is_live(key: str) -> bool:
    """Whether a setting counts without a restart, wherever it isn't what opens a way out."""
    parts = key.split(".")
    return parts[0] in LIVE or ".".join(parts[:2]) in LIVE


def change(now: Settings, read: Settings) -> Change:
    """What becomes of the settings that count `now` when others are `read`."""
    waiting = {key.partition(".")[0] for key in _WAYS_OUT if _is_opened(key, now, read)}
    waiting |= {name for name in _ADDRESSED if waiting & _ways_of(getattr(read, name))}
    settings = _merged(now, read, waiting)
    return Change(settings, differences(now, settings), differences(settings, read))


def _ways_of(section: object) -> set[str]:
    """The sections of the ways out that are used there."""
    if isinstance(section, Addressed):
        return {"smtp" if section.webhook is None else "webhook"}
    if isinstance(section, tuple):
        return set().union(*map(_ways_of, section))
    return set().union(*(_ways_of(one) for _, one in _members(section)))


def differences(one: Settings, other: Settings) -> tuple[str, ...]:
    """The dotted keys of what differs, down to the leaf."""
    ones, others = leaves(one), leaves(other)
    keys = dict.fromkeys([*ones, *others])
    return tuple(key for key in keys if ones.get(key) != others.get(key))


def version(settings: Settings) -> str:
    """The same for settings that are alike, on each replica. Nobody can tell from it what they are:
    its key is a secret that is strong enough to sign tokens with, or to open the database."""
    secret = (settings.auth.jwt_secret or settings.postgres.dsn).get_secret_value()
    text = repr([(key, _plain(value)) for key, value in sorted(leaves(settings).items())])
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()[:12]


def leaves(value: object, at: str = "") -> dict[str, object]:
    """Every value by its dotted key."""
    found: dict[str, object] = {}
    for name, one in _members(value):
        key = f"{at}.{name}" if at else name
        if isinstance(one, Section | Mapping):
            found |= leaves(one, key)
        else:
            found[key] = one
    return found


def _members(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, BaseModel):
        yield from ((name, getattr(value, name)) for name in type(value).model_fields)


def _is_opened(key: str, now: Settings, read: Settings) -> bool:
    """Whether a way out would be opened, or closed."""
    return bool(leaves(now)[key]) != bool(leaves(read)[key])


def _merged(now: Settings, read: Settings, waiting: set[str]) -> Settings:
    """`now`, but what is live as `read` has it. `waiting`: sections that wait for a restart."""
    update: dict[str, object] = {}
    for name in Settings.model_fields.keys() - waiting:
        mine, new = getattr(now, name), getattr(read, name)
        if name in LIVE:
            update[name] = new
        elif isinstance(mine, Section) and (part := _part(name, mine, new)) is not None:
            update[name] = part
    merged = now.model_copy(update=update)
    taken = set(differences(merged, now))
    origins = {key: origin for key, origin in now._origins.items() if key not in taken}
    origins |= {key: origin for key, origin in read._origins.items() if key in taken}
    merged._origins = origins
    return merged


def _part(name: str, mine: Section, new: Section) -> Section | None:
    """A section with its live keys exchanged; None where a rule forbids what that makes."""
    fields = {
        field: getattr(new if f"{name}.{field}" in LIVE else mine, field)
        for field in type(mine).model_fields
    }
    try:
        return type(mine)(**fields)
    except ValidationError:
        return None


def _plain(value: object) -> object:
    """With what secrets hide."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return [(name, _plain(one)) for name, one in _members(value)] or value
