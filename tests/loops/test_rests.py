"""How long an endpoint that failed is left alone."""

from penstock.loops.rests import Rests


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_rest_doubles_with_each_failure_up_to_five_minutes() -> None:
    clock = Clock()
    rests, lengths = Rests(clock), []
    for _ in range(11):
        rests.failed("a")
        began = clock.now
        while rests.names():
            clock.now += 1
        lengths.append(clock.now - began)
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_success_ends_it() -> None:
    rests = Rests(Clock())
    rests.failed("a")
    rests.failed("b")
    rests.works("a")
    rests.works("c")
    assert rests.names() == ["b"]


def test_an_endpoint_may_ask_for_a_longer_one() -> None:
    clock = Clock()
    rests = Rests(clock)
    rests.failed("a", 1800.0)
    clock.now = 1799
    assert rests.names() == ["a"]
    clock.now = 1801
    assert rests.names() == []


def test_only_so_many_are_remembered_the_youngest() -> None:
    rests = Rests(Clock())
    for n in range(3000):
        rests.failed(str(n))
    assert rests.names() == [str(n) for n in range(1000, 3000)]
