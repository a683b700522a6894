"""Query strings: what is read as what, and what is refused."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.api.problems import Problem
from penstock.api.queries import Cursors, JobsQuery, PageQuery, parse
from penstock.domain.caller import Caller, Role
from penstock.domain.job import State

ADA = Caller("ada", frozenset({Role.VIEWER}))


def read(query: str) -> JobsQuery:
    parsed = parse(JobsQuery, query)
    assert isinstance(parsed, JobsQuery)
    return parsed


def test_nothing_asked_for_is_all_defaults() -> None:
    for query in ("", "&", "&&"):
        assert read(query) == JobsQuery()
    assert JobsQuery().limit == 50


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=200", {"limit": 200}),
        ("state=dead&state=ready", {"state": [State.DEAD, State.READY]}),
        ("state=blocked&kind=a&kind=b", {"state": [State.BLOCKED], "kind": ["a", "b"]}),
        ("queue=a.b-c_1&limit=1", {"queue": ["a.b-c_1"], "limit": 1}),
        ("tag=a+b&tag=a%2Bb&tag=%C3%BC&tag=a%26b", {"tag": ["a b", "a+b", "ü", "a&b"]}),
        ("tag=a=b", {"tag": ["a=b"]}),
        ("%6Cimit=7", {"limit": 7}),
        ("include=payload,result", {"include": "payload,result"}),
        ("include=result%2Cpayload", {"include": "result,payload"}),
        (
            "created_after=2026-11-21T10:00:00.5Z",
            {"created_after": datetime(2026, 11, 21, 10, 0, 0, 500_000, UTC)},
        ),
        (
            "created_before=2026-11-21t10:00:00%2B02:00",
            {"created_before": datetime(2026, 11, 21, 8, tzinfo=UTC)},
        ),
    ],
)
def test_what_is_asked_for_is_read(query: str, fields: dict[str, Any]) -> None:
    assert read(query).model_dump() == {**JobsQuery().model_dump(), **fields}


@pytest.mark.parametrize(
    ("query", "slug"),
    [
        ("stat=dead", "unknown-query-parameter"),
        ("State=dead", "unknown-query-parameter"),
        ("workflow=0190aaaa-0000-7000-8000-000000000000", "unknown-query-parameter"),
        ("workflow_id=0190aaaa-0000-7000-8000", "bad-query-parameter"),
        ("state[]=dead", "unknown-query-parameter"),
        ("=dead", "unknown-query-parameter"),
        ("offset=50", "unknown-query-parameter"),
        ("state=failed", "bad-query-parameter"),
        ("state=", "bad-query-parameter"),
        ("state", "bad-query-parameter"),
        ("state=dead,ready", "bad-query-parameter"),
        ("state=DEAD", "bad-query-parameter"),
        ("limit=0", "bad-query-parameter"),
        ("limit=201", "bad-query-parameter"),
        ("limit=-1", "bad-query-parameter"),
        ("limit=1.0", "bad-query-parameter"),
        ("limit=5_0", "bad-query-parameter"),
        ("limit=%205", "bad-query-parameter"),
        ("limit=%D9%A5", "bad-query-parameter"),
        ("limit=99999999999999999999999", "bad-query-parameter"),
        ("limit=", "bad-query-parameter"),
        ("limit=5&limit=5", "bad-query-parameter"),
        ("cursor=a&cursor=a", "bad-query-parameter"),
        ("include=payload&include=result", "bad-query-parameter"),
        ("include=error", "bad-query-parameter"),
        ("include=payload,payload", "bad-query-parameter"),
        ("created_after=2026-11-21", "bad-query-parameter"),
        ("created_after=2026-11-21T10:00:00", "bad-query-parameter"),
        ("created_after=2026-11-21T10:00:00+02:00", "bad-query-parameter"),
        ("created_after=2026-02-30T10:00:00Z", "bad-query-parameter"),
        ("created_after=1795000000", "bad-query-parameter"),
        ("queue=A", "bad-query-parameter"),
        ("queue=*", "bad-query-parameter"),
        ("queue=" + "a" * 64, "bad-query-parameter"),
        ("kind=a%0A", "bad-query-parameter"),
        ("tag=", "bad-query-parameter"),
        ("tag=" + "a" * 65, "bad-query-parameter"),
        ("tag=a%0Ab", "bad-query-parameter"),
        ("&".join(["queue=a"] * 101), "bad-query-parameter"),
        ("cursor=" + "a" * 129, "bad-query-parameter"),
        ("tag=%00", "bad-request"),
        ("tag=%", "bad-request"),
        ("tag=%4", "bad-request"),
        ("tag=%zz", "bad-request"),
        ("tag=%FF", "bad-request"),
        ("tag=%C3", "bad-request"),
        ("tag=%ED%A0%80", "bad-request"),
        ("%FF=1", "bad-request"),
        ("tag=\udcff", "bad-request"),
    ],
)
def test_what_cannot_be_read_is_refused(query: str, slug: str) -> None:
    with pytest.raises(Problem) as refused:
        read(query)
    assert refused.value.slug == slug
    assert refused.value.status == 400


def test_the_refusal_names_the_parameter_and_what_it_should_be() -> None:
    with pytest.raises(Problem) as refused:
        read("limit=201")
    assert refused.value.detail == "limit: must be at most 200"
    assert refused.value.members == {"parameter": "limit"}
    with pytest.raises(Problem) as refused:
        read("stat=dead")
    assert "'stat'" in refused.value.detail
    assert "state" in refused.value.detail


POSITION = bytes(range(16))


def cursors(query: str, caller: Caller = ADA, name: str = "jobs") -> Cursors:
    return Cursors(name, read(query), caller)


@pytest.mark.parametrize(
    ("query", "other"),
    [
        ("state=dead", "state=dead&limit=7"),
        ("state=dead", "state=dead&include=payload"),
        ("state=dead&kind=a", "kind=a&state=dead"),
    ],
)
def test_a_cursor_goes_on_with_its_own_query_in_pages_of_any_size(query: str, other: str) -> None:
    text = cursors(query).cursor(POSITION)
    assert cursors(f"{other}&cursor={text}").position(16) == POSITION
    assert cursors(query).position(16) is None


@pytest.mark.parametrize(
    "mine",
    [
        {"query": "state=ready"},
        {"query": ""},
        {"query": "state=dead&tag=a"},
        {"query": "state=dead&created_after=2026-11-21T10:00:00Z"},
        {"caller": Caller("ada", frozenset({Role.VIEWER}), ("a",))},
        {"name": "queues"},
    ],
)
def test_a_cursor_of_another_query_or_other_queues_is_refused(mine: dict[str, Any]) -> None:
    text = cursors("state=dead").cursor(POSITION)
    whole = {"query": "state=dead", **mine}
    whole["query"] += f"&cursor={text}"
    with pytest.raises(Problem, match="bad-cursor"):
        cursors(**whole).position(16)


def test_who_sees_the_same_queues_may_use_the_same_cursor() -> None:
    text = cursors("").cursor(POSITION)
    bob = Caller("bob", frozenset({Role.ADMIN}))
    assert cursors(f"cursor={text}", bob).position(16) == POSITION


def forged() -> list[str]:
    good = cursors("").cursor(POSITION)
    raw = base64.urlsafe_b64decode(good)
    texts = [raw[:-1], raw + b"x", raw[:8], raw[:7], b"", bytes(len(raw))]
    short = [base64.urlsafe_b64encode(text).decode().rstrip("=") for text in texts]
    standard = base64.b64encode(b"\xfb\xff" * 12).decode()
    return [*short, good + "=", good + "%3D", good[:-1], f"%20{good}", "!", standard, "ü"]


@pytest.mark.parametrize("text", forged())
def test_a_cursor_that_we_did_not_make_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        cursors(f"cursor={text}").position(16)
    assert refused.value.slug == "bad-cursor"


def test_bits_of_a_cursor_that_decoding_would_drop_must_be_zero() -> None:
    text = cursors("", name="queues").cursor(b"ab")
    assert cursors(f"cursor={text}", name="queues").position() == b"ab"
    with pytest.raises(Problem, match="bad-cursor"):
        cursors(f"cursor={text[:-1]}{chr(ord(text[-1]) + 1)}", name="queues").position()


def test_every_parameter_of_a_list_is_told_in_the_schema() -> None:
    """The document of the API is made from it."""
    schema = JobsQuery.model_json_schema()
    assert set(schema["properties"]) == {
        *("limit", "cursor", "queue", "state", "kind", "tag"),
        *("workflow_id", "created_after", "created_before", "include"),
    }
    assert all("description" in one for one in schema["properties"].values())
    assert PageQuery.model_json_schema()["properties"]["limit"]["maximum"] == 200
