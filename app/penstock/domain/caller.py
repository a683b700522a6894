"""Who asks: subject, roles and the queues that the token opens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache

_GLOBS_MAX = 100
_GLOB_CHARS_MAX = 100
_SLOW_CHARS_MAX = 200


class Role(StrEnum):
    VIEWER = "viewer"
    SUBMITTER = "submitter"
    WORKER = "worker"
    OPERATOR = "operator"
    ADMIN = "admin"


# A role may do all that the roles in its row may do (api.md, "Authentication and roles").
GRANTS: dict[Role, frozenset[Role]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.SUBMITTER: frozenset({Role.VIEWER, Role.SUBMITTER}),
    Role.WORKER: frozenset({Role.WORKER}),
    Role.OPERATOR: frozenset({Role.VIEWER, Role.SUBMITTER, Role.OPERATOR}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """One authenticated caller. `queues` are shell-style globs, None opens all."""

    sub: str
    roles: frozenset[Role]
    queues: tuple[str, ...] | None = None

    def may(self, role: Role) -> bool:
        return any(role in GRANTS[own] for own in self.roles)

    def sees(self, queue: str) -> bool:
        return self.queues is None or _any_of(self.queues).match(queue) is not None


def too_much(globs: Sequence[str]) -> str | None:
    """What is too much of a token's globs, so that no look at a queue takes longer than 20 us."""
    if len(globs) > _GLOBS_MAX:
        return f"there may be {_GLOBS_MAX}"
    if any(len(glob) > _GLOB_CHARS_MAX for glob in globs):
        return f"each may have {_GLOB_CHARS_MAX} characters"
    if sum(len(glob) for glob in globs if "*" in glob.rstrip("*")) > _SLOW_CHARS_MAX:
        return f"those with a * before their end may have {_SLOW_CHARS_MAX} characters together"
    return None


def glob_of(glob: str) -> re.Pattern[str]:
    """One glob as a pattern for whole texts."""
    return re.compile(translate(glob))


# One pattern for all globs of a caller: a hundred names or prefixes on ten thousand queues take
# 3 ms, and 220 ms one by one. fnmatch's patterns never take back what they have matched, so nothing
# is exponential; but a * before the end makes the rest of its glob be tried at every place.
@lru_cache(maxsize=256)
def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)) or r"(?!)")
