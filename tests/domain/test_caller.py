"""Roles and queues of a caller."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.caller import Caller, Role, too_much

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
        (("billing",), "billing-x", False),
        (("billing",), "x-billing", False),
        (("a", "b*"), "ab", False),
        (("*",), "anything", True),
        (("",), "a", False),
        (("mail-[ab]",), "mail-b", True),
        (("mail-[!ab]",), "mail-b", False),
        (("mail.out",), "mail-out", False),
        (("a|b",), "a", False),
        (("mail-[",), "mail-[", True),
    ],
)
def test_queues_are_shell_globs(globs: tuple[str, ...] | None, queue: str, sees: bool) -> None:
    assert Caller("x", frozenset(), globs).sees(queue) is sees


GLOB = st.text("ab*?[]!-^\\|.&~", max_size=12)


@given(st.lists(GLOB, max_size=5), st.text("ab-[]", max_size=8))
def test_many_globs_open_what_each_alone_would(globs: list[str], queue: str) -> None:
    alone = any(fnmatchcase(queue, glob) for glob in globs)
    assert Caller("x", frozenset(), tuple(globs)).sees(queue) is alone


@given(st.lists(st.text(max_size=20), max_size=5), st.text(max_size=8))
def test_no_text_breaks_the_globs(globs: list[str], queue: str) -> None:
    assert Caller("x", frozenset(), tuple(globs)).sees(queue) in (True, False)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "glob", ["*a*a*a*a*b", "*a" * 49 + "b", "*[a-z]" * 16 + "!", "*?" * 49 + "!"]
)
def test_no_glob_takes_exponential_time(glob: str) -> None:
    assert not Caller("x", frozenset(), (glob,)).sees("a" * 63)


@pytest.mark.parametrize(
    ("globs", "words"),
    [
        ([], None),
        (["mail-*"] * 100, None),
        (["x"] * 101, "100"),
        (["x" * 101], "100 characters"),
        (["x" * 99 + "*"] * 100, None),
        (["*-x"] * 66, None),
        (["*-x"] * 67, "200 characters together"),
        (["*x*"] * 67, "200 characters together"),
        (["x**"] * 67, None),
    ],
)
def test_what_would_be_dear_to_look_through_is_too_much(
    globs: list[str], words: str | None
) -> None:
    found = too_much(globs)
    assert found is None if words is None else words in (found or "")
