"""Who asks: subject, roles and the queues that the token opens."""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


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
        return self.queues is None or any(fnmatchcase(queue, glob) for glob in self.queues)
