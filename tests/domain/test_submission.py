"""What becomes of submissions whose keys may be taken."""

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.domain.errors import DuplicateJob, KeyBusy, KeyReused
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob
from penstock.domain.submission import (
    Accepted,
    Again,
    Answer,
    Found,
    Refuse,
    Replay,
    RequestKey,
    Resolution,
    Store,
    Submission,
    resolve,
)
from tests.support import making
from tests.support.making import NOON

KEY = RequestKey(b"k" * 16, b"b" * 32)
OTHER_BODY = RequestKey(KEY.id, b"c" * 32)


def keyed(*names: str, **fields: Any) -> Submission:
    """Jobs with these unique keys; "" has none."""
    jobs = [making.new_job(unique_key=name or None, **fields) for name in names]
    return Submission(jobs)


def only(submission: Submission, found: Found) -> Resolution:
    (one,) = resolve([submission], found)
    return one


def holders_of(resolution: Resolution) -> dict[int, JobId]:
    assert isinstance(resolution, Refuse)
    assert isinstance(resolution.error, DuplicateJob)
    return dict(resolution.error.holders)


def ids(jobs: Sequence[NewJob]) -> list[JobId]:
    return [job.id for job in jobs]


def test_what_has_no_keys_is_stored() -> None:
    submission = keyed("", "")
    assert not submission.has_keys
    assert only(submission, Found()) == Store(submission.jobs, ids(submission.jobs), frozenset())


def test_a_key_that_nobody_holds_is_stored_with_its_job() -> None:
    submission = keyed("a", "", "b")
    assert submission.has_keys
    assert submission.unique_keys() == [("default", "a"), ("default", "b")]
    assert only(submission, Found()) == Store(submission.jobs, ids(submission.jobs), frozenset())


def test_a_held_key_refuses_the_whole_submission_and_names_each_holder() -> None:
    a, c = making.job_ids(2)
    found = Found(holders={("default", "a"): a, ("default", "c"): c})
    assert holders_of(only(keyed("a", "b", "c"), found)) == {0: a, 2: c}
    assert ("default", "b") not in found.holders, "of a refused one nothing is taken"


def test_a_held_key_of_another_queue_is_none_of_its_business() -> None:
    found = Found(holders={("default", "a"): making.job_id()})
    assert isinstance(only(keyed("a", queue="other"), found), Store)


def test_who_asks_for_the_holder_is_answered_with_it() -> None:
    holder = making.job_id()
    submission = keyed("a", "b", return_holder=True)
    done = only(submission, Found(holders={("default", "a"): holder}))
    a, b = submission.jobs
    assert done == Store([b], [holder, b.id], frozenset({holder}))
    assert a.id not in ids(done.new)


def test_of_twins_in_one_batch_the_first_wins() -> None:
    first, second = keyed("a"), keyed("a")
    others = [keyed("a", return_holder=True) for _ in range(3)]
    stored, refused, *returned = resolve([first, second, *others], Found())
    holder = first.jobs[0].id
    assert isinstance(stored, Store)
    assert holders_of(refused) == {0: holder}
    assert returned == [Store([], [holder], frozenset({holder}))] * 3


def test_twins_in_one_submission_are_refused_by_the_first_of_them() -> None:
    submission = keyed("a", "a", "a")
    first = submission.jobs[0].id
    assert holders_of(only(submission, Found())) == {1: first, 2: first}


def test_what_a_refused_submission_would_have_taken_is_free_for_the_next() -> None:
    found = Found(holders={("default", "a"): making.job_id()})
    refused, stored = resolve([keyed("b", "a"), keyed("b")], found)
    assert isinstance(refused, Refuse)
    assert isinstance(stored, Store)


def test_a_key_held_by_the_job_itself_was_stored_by_an_earlier_sending() -> None:
    submission = keyed("a")
    (job,) = submission.jobs
    done = only(submission, Found(holders={("default", "a"): job.id}))
    assert done == Store([job], [job.id], frozenset())


def test_a_key_that_another_transaction_is_taking_is_looked_at_again() -> None:
    found = Found(busy_keys=frozenset({("default", "a")}))
    again, stored = resolve([keyed("b", "a"), keyed("b")], found)
    assert again == Again()
    assert isinstance(stored, Store)


def test_a_request_that_is_under_way_elsewhere_is_refused_at_once() -> None:
    done = only(Submission(making.new_jobs(1), KEY), Found(busy_requests=frozenset({KEY.id})))
    assert isinstance(done, Refuse)
    assert isinstance(done.error, KeyBusy)


def test_of_two_requests_with_one_key_in_a_batch_the_second_is_refused() -> None:
    first, second = (Submission(making.new_jobs(1), KEY) for _ in range(2))
    stored, refused = resolve([first, second], Found())
    assert isinstance(stored, Store)
    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, KeyBusy)


def test_a_refused_request_does_not_take_its_key() -> None:
    found = Found(holders={("default", "a"): making.job_id()})
    first = Submission([making.new_job(unique_key="a")], KEY)
    refused, stored = resolve([first, Submission(making.new_jobs(1), KEY)], found)
    assert isinstance(refused, Refuse)
    assert isinstance(stored, Store)


@pytest.mark.parametrize("busy", [False, True])
def test_an_answered_request_is_answered_again(busy: bool) -> None:
    accepted = Accepted(NOON, making.job_ids(2), frozenset(), replayed=True)
    found = Found(answers={KEY.id: Answer(KEY.body, accepted)})
    found.busy_requests = frozenset({KEY.id}) if busy else frozenset()
    assert only(Submission(making.new_jobs(2), KEY), found) == Replay(accepted)


def test_another_body_under_an_answered_key_is_refused() -> None:
    accepted = Accepted(NOON, making.job_ids(1))
    found = Found(answers={KEY.id: Answer(KEY.body, accepted)})
    done = only(Submission(making.new_jobs(1), OTHER_BODY), found)
    assert isinstance(done, Refuse)
    assert isinstance(done.error, KeyReused)


def test_the_answer_to_our_own_first_sending_is_no_replay() -> None:
    jobs = making.new_jobs(2)
    accepted = Accepted(NOON, ids(jobs), replayed=True)
    done = only(Submission(jobs, KEY), Found(answers={KEY.id: Answer(KEY.body, accepted)}))
    assert done == Replay(Accepted(NOON, ids(jobs), replayed=False))
