"""What a job goes by as things stand: what it follows, and what it doesn't."""

import itertools

import pytest

from penstock.domain.defaults import Book, Defaults, Layer
from penstock.domain.retry import Backoff, Curve
from penstock.domain.terms import ALL, FOLLOWED, MAX_ATTEMPTS, Current, Terms, followed
from tests.support import making

THEN = {"max_attempts": 2, "backoff": Backoff(base_s=7.0), "timeout_s": 9.0}
NOW = Defaults(max_attempts=8, backoff=Backoff(Curve.FIXED, 1.0), timeout_s=4.0)


@pytest.mark.parametrize("follows", range(ALL + 1))
def test_a_job_follows_what_it_left_out_and_nothing_else(follows: int) -> None:
    job = followed(making.started(**THEN, follows=follows), NOW)
    for name, bit in FOLLOWED.items():
        assert getattr(job, name) == (getattr(NOW, name) if follows & bit else THEN[name])


def test_a_job_that_nothing_changes_for_is_the_same_one() -> None:
    job = making.started(max_attempts=8, backoff=NOW.backoff, timeout_s=4.0, follows=ALL)
    assert followed(job, NOW) is job


def test_its_kind_and_queue_decide() -> None:
    book = Book(
        kinds={"mail": Layer({"max_attempts": 1})},
        queues={"bulk": Layer({"max_attempts": 2, "timeout_s": 60.0})},
    )
    current = Current(Terms(book))
    found = {
        (kind, queue): current.followed(making.started(kind=kind, queue=queue, follows=ALL))
        for kind, queue in itertools.product(("mail", "other"), ("bulk", "default"))
    }
    assert {pair: (job.max_attempts, job.timeout_s) for pair, job in found.items()} == {
        ("mail", "bulk"): (1, 60.0),
        ("mail", "default"): (1, 300.0),
        ("other", "bulk"): (2, 60.0),
        ("other", "default"): (5, 300.0),
    }


def test_exchanged_terms_count_at_once() -> None:
    current = Current()
    job = making.started(**THEN, follows=MAX_ATTEMPTS)
    assert current.followed(job).max_attempts == 5
    current.terms = Terms(Book(NOW))
    assert current.followed(job).max_attempts == 8
    assert current.followed(job).timeout_s == THEN["timeout_s"]


def test_names_that_callers_choose_are_not_kept_for_ever() -> None:
    terms = Terms(Book())
    for n in range(10_000):
        terms.of(f"kind-{n}", f"queue-{n}")
    assert terms.of.cache_info().currsize <= 4096  # type: ignore[attr-defined]


def test_known_is_what_has_a_handler_or_an_entry() -> None:
    terms = Terms(Book(kinds={"report": Layer()}), served=("mail",))
    known = [kind for kind in ("mail", "report", "workflow", "other") if terms.knows(kind)]
    assert known == ["mail", "report", "workflow"]


@pytest.mark.parametrize(
    ("book", "may"),
    [
        (Book(), False),
        (Book(Defaults(strict=True)), True),
        (Book(queues={"a": Layer({"strict": True})}), True),
        (Book(queues={"a": Layer({"strict": False})}), False),
    ],
)
def test_whether_any_kind_may_be_refused_is_known_beforehand(book: Book, may: bool) -> None:
    assert Terms(book).may_refuse is may
