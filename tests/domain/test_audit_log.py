"""Entries of the audit log."""

import pytest

from penstock.domain.audit_log import SUBMISSIONS, Action, Entry, EntryOutcome, Object, object_of

ENTRY = Entry(b"id", Action.QUEUE_PAUSE, "ada", details={"why": "rest"})


@pytest.mark.parametrize("action", Action)
def test_each_action_names_the_sort_of_thing_that_it_is_done_to(action: Action) -> None:
    assert action.value.startswith(f"{action.object}.")


def test_each_sort_of_thing_has_an_action() -> None:
    assert {action.object for action in Action} == set(Object)


def test_submissions_make_jobs() -> None:
    assert {one.value.partition(".")[2] for one in SUBMISSIONS} == {"submit", "submit_many", "add"}


def test_what_is_added_to_an_entry_leaves_the_rest_of_it() -> None:
    changed = ENTRY.changed("paused", False, True)
    assert changed.details == {
        "why": "rest",
        "before": {"paused": False},
        "after": {"paused": True},
    }
    about = ENTRY.about("mail", "mail", jobs=2)
    assert (about.object_id, about.queue, about.details) == (
        "mail",
        "mail",
        {"why": "rest", "jobs": 2},
    )
    assert ENTRY.refused().outcome is EntryOutcome.REFUSED
    assert (ENTRY.outcome, ENTRY.object_id, ENTRY.details) == (
        EntryOutcome.DONE,
        None,
        {"why": "rest"},
    )


def test_an_action_of_a_later_version_has_an_object_too() -> None:
    assert object_of("schedule.create") == "schedule"
