"""Entries of the audit log for what a request asks for.

In: a request that was let in. Out: an entry, which the command that it is handed to stores in the
transaction that does what was asked.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

from penstock.api.ask import Ask
from penstock.domain.audit_log import OBJECT_MAX, Entry
from penstock.domain.caller import Role


def entry(ask: Ask, object_id: str | None, queue: str | None = None, **details: Any) -> Entry:
    """That this caller did to this object what the route does."""
    assert ask.action is not None, "a route that changes something has an action"
    return Entry(
        id=ask.door.minter.mint(),
        action=ask.action,
        actor=ask.caller.sub,
        roles=_roles(ask.caller.roles),
        address=ask.door.peers.address_of(ask.request),
        request_id=ask.request_id,
        object_id=object_id,
        queue=queue,
        details=details,
    )


def submission(
    ask: Ask, object_id: str | None, queues: Collection[str], **details: Any
) -> Entry | None:
    """The same of jobs that go to these queues; None where such entries aren't wanted."""
    return entry(ask, object_id, only(queues), **details) if ask.door.logs_submissions else None


def refusal(ask: Ask) -> Entry:
    """That this caller isn't let do what he asked for."""
    one = entry(ask, ask.key[:OBJECT_MAX].replace("\0", "") or None)
    return one.refused()


def only(queues: Collection[str]) -> str | None:
    """The one queue that these are, if they are one."""
    return next(iter(queues)) if len(queues) == 1 else None


@lru_cache(maxsize=64)
def _roles(roles: frozenset[Role]) -> str:
    return ",".join(sorted(roles))
