"""Roles and queues of a caller."""

import pytest

from penstock.domain.caller import Caller, Role

EVERYTHING = set(Role)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, {Role.VIEWER}),
        (Role.SUBMITTER, {Role.VIEWER, Role.SUBMITTER}),
        (Role.WORKER, {Role.WORKER}),
        (Role.OPERATOR, {Role.VIEWER, Role.SUBMITTER, Role.OPERATOR}),
        (Role.ADMIN, EVERYTHING),
    ],
)
def test_each_role_may_what_its_row_says(role: Role, may: set[Role]) -> None:
    caller = Caller("x", frozenset({role}))
    assert {one for one in Role if caller.may(one)} == may


def test_roles_add_up() -> None:
    caller = Caller("x", frozenset({Role.WORKER, Role.VIEWER}))
    assert caller.may(Role.WORKER)
    assert caller.may(Role.VIEWER)
    assert not caller.may(Role.SUBMITTER)


@pytest.mark.parametrize(
    ("globs", "queue", "sees"),
    [
        (None, "anything", True),
        ((), "anything", False),
        (("mail-*",), "mail-out", True),
        (("mail-*",), "mail", False),
        (("mail-?",), "mail-a", True),
        (("billing", "mail-*"), "billing", True),
        (("billing",), "Billing", False),
    ],
)
def test_queues_are_shell_globs(globs: tuple[str, ...] | None, queue: str, sees: bool) -> None:
    assert Caller("x", frozenset(), globs).sees(queue) is sees
