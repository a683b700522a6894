"""Describing tables: real ones, empty ones, broken ones."""

import statistics
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.attempt import CANCELLED, Ending, Outcome
from penstock.handlers import Registry, ending_of, failure_of
from tests.handlers.factory import context, handler_of

CSV_STATS = handler_of("csv-stats", "penstock.examples")

ORDERS = """\ufefforder,customer,amount,paid,note
1,"Ann, Inc.",19.50,yes,
2,Bob,-3,no,
3,"Ann, Inc.",1e3,yes,

4,"Carl ""C"" Cook", 0 ,,
"""


def describe(csv: str, **more: Any) -> Ending:
    ctx = context()
    try:
        payload = orjson.dumps({"csv": csv, **more}).decode()
        return ending_of(CSV_STATS.invoke(payload, ctx), 1024 * 1024)
    except Exception as exc:
        return failure_of(exc)


def stats(csv: str, **more: Any) -> dict[str, Any]:
    ending = describe(csv, **more)
    assert ending.outcome is Outcome.SUCCEEDED, ending.failure
    assert ending.result is not None
    result: dict[str, Any] = orjson.loads(ending.result)
    return result


def test_it_runs_in_a_thread() -> None:
    assert not CSV_STATS.is_async


def test_each_column_is_described_by_its_kind() -> None:
    result = stats(ORDERS)
    assert result["rows"] == 4
    order, customer, amount, paid, note = result["columns"]
    assert order == {
        "name": "order",
        "kind": "number",
        "count": 4,
        "missing": 0,
        "min": 1.0,
        "max": 4.0,
        "mean": 2.5,
        "stdev": pytest.approx(1.2909944),
    }
    assert (amount["min"], amount["max"], amount["mean"]) == (-3.0, 1000.0, 254.125)
    assert customer == {
        "name": "customer",
        "kind": "text",
        "count": 4,
        "missing": 0,
        "distinct": 3,
        "top": [
            {"value": "Ann, Inc.", "count": 2},
            {"value": "Bob", "count": 1},
            {"value": 'Carl "C" Cook', "count": 1},
        ],
    }
    assert (paid["kind"], paid["count"], paid["missing"]) == ("text", 3, 1)
    assert note == {"name": "note", "kind": "empty", "count": 0, "missing": 4}


def test_it_tells_which_column_it_is_at() -> None:
    ctx = context()
    CSV_STATS.invoke(orjson.dumps({"csv": ORDERS}).decode(), ctx)
    told = ctx.take_progress()
    assert told is not None
    assert (told.percent, told.message) == (100, "column note")


def test_other_delimiters_are_read_when_named() -> None:
    result = stats("a;b\n1;x\n", delimiter=";")
    assert [column["name"] for column in result["columns"]] == ["a", "b"]
    assert stats("a\tb\n1\tx\n", delimiter="\t")["rows"] == 1


def test_a_table_of_names_only_has_no_rows() -> None:
    result = stats("a,b")
    assert result["rows"] == 0
    assert [column["kind"] for column in result["columns"]] == ["empty", "empty"]


def test_one_number_has_no_deviation() -> None:
    (column,) = stats("a\n5\n")["columns"]
    assert (column["mean"], column["stdev"]) == (5.0, None)


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1_000", "1e999", "1e200", "0x10"])
def test_what_only_python_takes_for_a_number_is_text(value: str) -> None:
    assert stats(f"a\n{value}\n")["columns"][0]["kind"] == "text"


@pytest.mark.parametrize(
    ("csv", "told"),
    [
        ("\n\n", "empty"),
        ("a,b\n1\n", "line 2 has 1 values, but there are 2 columns"),
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 values"),
        ('a,b\n"x\ny",2\n1\n', "line 4 has 1 values"),
        ("a,a\n1,2\n", "'a' is there twice"),
        ('a\n"open', "line 2"),
        ('a\n"x"y\n', "line 2"),
        ("a\n" + "x" * 200_000, "field larger"),
        (",".join(f"c{n}" for n in range(201)), "more than 200 columns"),
    ],
)
def test_a_broken_table_fails_for_good_and_says_where(csv: str, told: str) -> None:
    ending = describe(csv)
    assert ending.failure is not None
    assert told in ending.failure.message
    assert (ending.failure.type, ending.retryable) == ("bad-csv", False)


@pytest.mark.parametrize(
    "payload", [None, {}, {"csv": ""}, {"csv": 1}, {"csv": "a", "path": "/etc"}]
)
def test_a_bad_payload_is_refused_at_the_door(payload: Any) -> None:
    assert Registry.load(["penstock.examples"]).payload_errors("csv-stats", payload)


def test_it_stops_when_it_is_told_to() -> None:
    ctx = context()
    ctx.cancel("requested")
    payload = orjson.dumps({"csv": ORDERS}).decode()
    with pytest.raises(Exception, match="requested") as caught:
        CSV_STATS.invoke(payload, ctx)
    assert failure_of(caught.value) is CANCELLED


@given(st.lists(st.floats(-1e100, 1e100), min_size=2, max_size=50))
def test_numbers_are_summed_up_as_the_statistics_module_does(numbers: list[float]) -> None:
    (column,) = stats("n\n" + "\n".join(map(repr, numbers)))["columns"]
    assert column["kind"] == "number"
    assert column["mean"] == pytest.approx(statistics.fmean(numbers))
    assert column["stdev"] == pytest.approx(statistics.stdev(numbers))


@given(st.text('a1,"\n\r;. ', max_size=100))
def test_any_text_is_described_or_refused_for_good(csv: str) -> None:
    ending = describe(csv)
    assert ending.outcome is Outcome.SUCCEEDED or not ending.retryable
