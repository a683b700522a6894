"""Who goes at which age."""

from penstock.domain.keeping import EVERYBODY, Kept, Whose


def test_without_exceptions_all_go_at_one_age_or_never() -> None:
    assert Kept(60.0).groups(()) == [(60.0, EVERYBODY)]
    assert Kept(0.0).groups(()) == []


def test_a_kind_goes_before_its_queue_and_that_before_all() -> None:
    kept = Kept(60.0, {"audit": 900.0, "ping": 60.0}, {"bulk": 120.0})
    assert kept.groups(["default", "bulk"]) == [
        (60.0, Whose(("audit", "ping"), ("ping",), ("default",))),
        (120.0, Whose(("audit", "ping"), (), ("bulk",))),
        (900.0, Whose(("audit", "ping"), ("audit",), ())),
    ]


def test_for_ever_is_an_exception_like_others() -> None:
    assert Kept(60.0, {"audit": 0.0}).groups(["default"]) == [
        (60.0, Whose(("audit",), (), ("default",)))
    ]
    assert Kept(0.0, {}, {"bulk": 60.0}).groups(["default", "bulk"]) == [
        (60.0, Whose((), (), ("bulk",)))
    ]


def test_the_longest_glob_counts_and_a_name_before_all() -> None:
    kept = Kept(0.0, {}, {"*": 60.0, "mail-*": 120.0, "mail-out": 180.0})
    groups = {whose.queues: age for age, whose in kept.groups(["a", "mail-in", "mail-out"])}
    assert groups == {("a",): 60.0, ("mail-in",): 120.0, ("mail-out",): 180.0}


def test_of_a_queue_that_is_not_known_nothing_goes() -> None:
    assert Kept(60.0, {"audit": 0.0}).groups([]) == []
