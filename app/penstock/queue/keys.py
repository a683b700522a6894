"""The names of all keys and channels. One queue's keys share a hash tag, so a cluster works."""

from collections.abc import Iterable
from hashlib import blake2b

PREFIX = "penstock:"
WAKE = "penstock:wake"  # a commit put something on shelves
CANCEL = "penstock:cancel"  # running jobs should stop
SETTINGS = "penstock:settings"  # a queue was paused, resumed or changed; or, as that
CONFIGURATION = b"*"  # which is no queue's name, the configuration
ENDED = "penstock:ended"  # jobs ended, for those who wait


def leases(queue: str) -> str:
    return f"penstock:{{q:{queue}}}:leases"


def blocked(queue: str) -> str:
    return f"penstock:{{q:{queue}}}:blocked"


def meta(queue: str) -> str:
    return f"penstock:{{q:{queue}}}:meta"


def rebuild(queue: str) -> str:
    return f"penstock:{{q:{queue}}}:rebuild"


def scheduled(queue: str) -> str:
    return f"penstock:{{q:{queue}}}:scheduled"


def ready(queue: str, kinds: Iterable[str]) -> list[str]:
    return [f"penstock:{{q:{queue}}}:ready:{kind}" for kind in kinds]


def ready_prefix(queue: str) -> str:
    return f"penstock:{{q:{queue}}}:ready:"


def lock(name: str) -> str:
    return f"penstock:lock:{name}"


def rate(counts: str, sub: str) -> str:
    """Of a caller's budget. By a digest: a `sub` may hold anything, and is nobody's business."""
    return f"penstock:rate:{counts}:{blake2b(sub.encode(), digest_size=16).hexdigest()}"


def sort_of(key: str) -> str:
    """What Redis holds there: "hash", "string" or "zset"."""
    if key.endswith("}:meta"):
        return "hash"
    is_string = key.endswith("}:rebuild") or key.startswith((lock(""), "penstock:rate:"))
    return "string" if is_string else "zset"
