"""What a job gets that doesn't say it itself."""

from penstock.domain.defaults import Book, Defaults, Layer, matching
from penstock.domain.retry import Backoff, Curve


def test_nothing_said_is_what_all_jobs_get() -> None:
    jobs = Defaults(priority=7, timeout_s=9)
    assert Book(jobs).resolve("echo") == jobs
    assert Book(jobs).resolve("echo", "mail") == Defaults("mail", priority=7, timeout_s=9)


def test_each_field_is_the_kinds_else_the_queues_else_that_of_all() -> None:
    book = Book(
        Defaults(priority=1, max_attempts=1, timeout_s=1),
        {"fail": Layer({"queue": "mail", "priority": 3}, {"base_s": 3.0})},
        {"mail": Layer({"priority": 2, "max_attempts": 2, "strict": True}, {"max_s": 2.0})},
    )
    expected = Defaults("mail", 3, 2, Backoff(base_s=3.0, max_s=2.0), 1, strict=True)
    assert book.resolve("fail") == expected
    assert book.resolve("fail", "mail") == expected
    assert book.resolve("fail", "other") == Defaults(
        "other", 3, 1, Backoff(base_s=3.0), 1, strict=False
    )
    assert book.resolve("echo", "mail").priority == 2


def test_queues_say_together_and_the_one_that_means_it_more_goes_first() -> None:
    queues = {
        "*": Layer({"priority": 0, "max_attempts": 10, "timeout_s": 1}, {"kind": Curve.FIXED}),
        "mail*": Layer({"priority": 1, "timeout_s": 2}),
        "mail-eu": Layer({"priority": 2}),
        "mail-?u": Layer({"priority": 3, "timeout_s": 3}),
    }
    found = Book(queues=queues).resolve("echo", "mail-eu")
    assert (found.priority, found.timeout_s, found.max_attempts) == (2, 3, 10)
    assert found.backoff == Backoff(kind=Curve.FIXED)


def test_the_order_of_globs_is_theirs_alone() -> None:
    names = ["*", "a*", "ab", "a?", "b", "[ab]b", "*b"]
    assert matching(names, "ab") == matching(reversed(names), "ab")
    assert matching(names, "ab")[0] == "ab"
    assert matching(names, "ab")[-1] == "*"
    assert "b" not in matching(names, "ab")
