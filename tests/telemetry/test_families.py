"""Label values are bounded, known ones are there at 0, and a histogram counts what it is given."""

import random

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from penstock.telemetry.families import NAMES_MAX, OTHER, Bins, Maker, Pairs

UPPERS = (0.1, 0.5, 1.0, 5.0)


def lines(make: Maker, name: str) -> list[str]:
    text = generate_latest(make.registry).decode()
    return [line for line in text.splitlines() if line.startswith(name)]


def test_labels_that_are_known_are_there_at_0() -> None:
    make = Maker(CollectorRegistry())
    make.counts("x", "Help.", a=("1", "2"), b=("3",))
    assert lines(make, "x_total") == ['x_total{a="1",b="3"} 0.0', 'x_total{a="2",b="3"} 0.0']


def test_those_beside_the_first_of_a_name_are_there_at_0() -> None:
    make = Maker(CollectorRegistry())
    make.counts("x", "Help.", queue=make.queues, state=("a", "b"))("mail", "b").inc()
    assert lines(make, "x_total") == [
        'x_total{queue="mail",state="b"} 1.0',
        'x_total{queue="mail",state="a"} 0.0',
    ]


def test_what_only_occurs_is_not_there_before_it_does() -> None:
    make = Maker(CollectorRegistry())
    make.counts("x", "Help.", route=None)
    assert lines(make, "x_total") == []


def test_queues_and_kinds_that_go_together_are_bounded_together() -> None:
    make = Maker(CollectorRegistry())
    pairs = make.pairs
    found = {pairs(f"q{i}", f"k{j}") for i in range(50) for j in range(50)}
    assert len(found) == NAMES_MAX + 1
    assert (OTHER, OTHER) in found
    assert pairs("q0", "k0") == ("q0", "k0")


def test_a_name_that_became_other_is_other_in_pairs_too() -> None:
    make = Maker(CollectorRegistry())
    for i in range(NAMES_MAX):
        make.queues(f"q{i}")
    assert Pairs(make.queues, make.kinds)("late", "echo") == (OTHER, "echo")


@pytest.mark.parametrize("count", [1, 5, 31, 32, 33, 500])
def test_a_batch_counts_as_its_values_one_by_one(count: int) -> None:
    draw = random.Random(count)
    values = [draw.choice([0.0, 0.1, 0.5, 1.0, 5.0, 7.0, draw.random() * 6]) for _ in range(count)]
    one_by_one, at_once = Bins(UPPERS), Bins(UPPERS)
    for value in values:
        one_by_one.observe(value)
    at_once.observe_all(list(values))
    assert at_once.counts == one_by_one.counts
    assert at_once.sum == pytest.approx(one_by_one.sum)


def test_what_we_write_says_the_same_as_the_library() -> None:
    make = Maker(CollectorRegistry())
    tally = make.tally("a_seconds", "Help.", UPPERS, queue=make.queues, end=None)
    for value in (0.0, 0.1, 0.3, 5.0, 9.0, 1e-7):
        tally('a"b\\', "x").observe(value)
    make.tally("b_seconds", "Help.", UPPERS)().observe_all([0.25] * 40)
    make.counts("c", "Help.", queue=make.queues)("line\nbreak").inc(2**40)
    make.gauges("d", "Help.", state=("x", "y"))("x").set(-1.5)
    make.told("e", "Help.", "queue").now = [(("q",), 3), (("r",), 1e20)]
    make.told("f", "Help.").now = [((), True)]
    ours = list(text_string_to_metric_families("".join(one.written() for one in make.writes)))
    theirs = list(text_string_to_metric_families(generate_latest(make.registry).decode()))
    assert len(ours) == 6
    assert {(one.name, one.type, one.documentation) for one in ours} == {
        (one.name, one.type, one.documentation) for one in theirs if one.name != "c_created"
    }
    assert samples_of(ours) == samples_of(theirs)


def samples_of(families: list[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in families
        for one in family.samples
        if not one.name.endswith("_created")
    }


def test_told_gauges_say_what_was_told_last_and_nothing_else() -> None:
    make = Maker(CollectorRegistry())
    told = make.told("x", "Help.", "queue")
    told.now = [(("a",), 1), (("b",), 2)]
    assert lines(make, "x{") == ['x{queue="a"} 1.0', 'x{queue="b"} 2.0']
    told.now = [(("b",), 3)]
    assert lines(make, "x{") == ['x{queue="b"} 3.0']
    told.tell = lambda: [(("c",), 4)]
    assert lines(make, "x{") == ['x{queue="c"} 4.0']
