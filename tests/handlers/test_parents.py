"""What a handler sees of its parents, and what its payload becomes with their results in it."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.workflow import Kin, Parent
from penstock.handlers import PermanentError
from penstock.handlers.parents import resolved
from tests.handlers.factory import context

MIB = 1024 * 1024


def parent(name: str, result: Any = None, state: State = State.SUCCEEDED) -> Parent:
    return Parent(JobId(bytes(15) + b"a"), name, state, orjson.dumps(result).decode())


def kin(*parents: Parent, withheld: int = 0) -> Kin:
    return Kin("load", {one.name: one for one in parents}, withheld)


def put_in(payload: Any, of: Kin, bytes_max: int = MIB) -> Any:
    return orjson.loads(resolved(orjson.dumps(payload).decode(), of, bytes_max))


def failure(payload: Any, of: Kin, bytes_max: int = MIB) -> tuple[str | None, str]:
    with pytest.raises(PermanentError) as raised:
        put_in(payload, of, bytes_max)
    return raised.value.type, str(raised.value)


def test_a_context_shows_its_parents_by_name() -> None:
    ctx = context(graph_id=JobId(bytes(15) + b"w"))
    ctx.kin = kin(parent("extract", {"rows": [1, 2]}), parent("clean", state=State.DEAD))
    extract, clean = ctx.parents["extract"], ctx.parents["clean"]
    assert (ctx.name, ctx.workflow_id) == ("load", "00000000-0000-0000-0000-000000000077")
    assert (extract.name, extract.state, extract.succeeded) == ("extract", "succeeded", True)
    assert extract.id == "00000000-0000-0000-0000-000000000061"
    assert extract.result == {"rows": [1, 2]}
    assert (clean.state, clean.succeeded, clean.result) == ("dead", False, None)
    assert list(ctx.parents) == ["extract", "clean"]


def test_a_job_that_is_alone_has_neither_parents_nor_a_workflow() -> None:
    ctx = context()
    assert (dict(ctx.parents), ctx.workflow_id, ctx.name) == ({}, None, None)
    loose = context(graph_id=JobId(bytes(16)))
    assert loose.workflow_id is None


def test_what_a_handler_does_to_a_result_no_other_job_sees() -> None:
    shared = kin(parent("a", [1]))
    one, other = context(), context()
    one.kin = other.kin = shared
    one.parents["a"].result.append(2)
    assert one.parents["a"].result == [1, 2]
    assert other.parents["a"].result == [1]
    assert put_in({"$result": "a"}, shared) == [1]
    with pytest.raises(TypeError):
        one.parents["b"] = one.parents["a"]  # type: ignore[index]


def test_references_are_replaced_by_results_and_by_parts_of_them() -> None:
    of = kin(parent("extract", {"rows": [{"n": 1}, {"n": 2}], "a/b": None}), parent("b", "text"))
    payload = {
        "all": {"$result": "extract"},
        "list": [{"$result": "extract", "pointer": "/rows/1/n"}, {"$result": "b", "pointer": ""}],
        "none": {"$result": "extract", "pointer": "/a~1b"},
        "kept": "$result",
    }
    assert put_in(payload, of) == {
        "all": {"rows": [{"n": 1}, {"n": 2}], "a/b": None},
        "list": [2, "text"],
        "none": None,
        "kept": "$result",
    }
    assert put_in({"$result": "b"}, of) == "text"


def test_what_a_result_says_is_no_reference() -> None:
    of = kin(parent("a", {"$result": "b", "pointer": "/x"}), parent("b", 1))
    assert put_in([{"$result": "a"}], of) == [{"$result": "b", "pointer": "/x"}]


@pytest.mark.parametrize("state", [State.DEAD, State.CANCELLED, State.SKIPPED, State.RUNNING])
def test_a_parent_that_did_not_succeed_is_null_wherever_one_points(state: State) -> None:
    of = kin(parent("a", state=state))
    assert put_in([{"$result": "a"}, {"$result": "a", "pointer": "/x/0"}], of) == [None, None]


def test_outside_of_workflows_a_parent_goes_by_its_id() -> None:
    id_ = "01939f3e-7a00-7000-8000-0000000000aa"
    assert put_in({"$result": id_.upper()}, kin(parent(id_, 7))) == 7


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"$result": "a", "pointer": "/rows/0"}, "/rows/0 of the result of 'a': there is no mem"),
        ({"$result": "a", "pointer": "/x/1"}, "/x/1 of the result of 'a': '1' is no index"),
        ({"x": [{"$result": "c"}]}, "/x/0: 'c' is no parent of this job"),
        ({"$result": "c" * 1000}, "…' is no parent of this job"),
        ({"$result": 3}, "the payload: $result must be the name of a parent"),
        ({"x": {"$result": "a", "pointer": "x"}}, "/x: a JSON Pointer is empty or begins"),
    ],
)
def test_a_reference_that_does_not_resolve_fails_the_attempt_for_good(
    payload: Any, words: str
) -> None:
    kind, message = failure(payload, kin(parent("a", {"x": [1]})))
    assert kind == "reference-unresolved"
    assert words in message
    assert len(message) < 400


def test_the_payload_with_results_in_it_has_a_limit() -> None:
    of = kin(parent("a", "x" * 1000))
    assert put_in([{"$result": "a"}] * 3, of, bytes_max=3100) == ["x" * 1000] * 3
    kind, message = failure([{"$result": "a"}] * 4, of, bytes_max=3100)
    assert (kind, "more than 3100 bytes" in message) == ("payload-too-large", True)
    assert failure(["y" * 3000, {"$result": "a"}], of, bytes_max=3100)[0] == "payload-too-large"


def test_a_thousand_references_to_a_large_result_are_refused_before_they_are_built() -> None:
    of = kin(parent("a", "x" * MIB))
    assert failure([{"$result": "a"}] * 1000, of, bytes_max=16 * MIB)[0] == "payload-too-large"


def test_results_that_were_withheld_fail_who_asks_for_them_and_nobody_else() -> None:
    of = kin(parent("a"), parent("b", state=State.DEAD), withheld=17 * MIB)
    kind, message = failure({"$result": "a"}, of)
    assert (kind, str(17 * MIB) in message) == ("parents-too-large", True)
    assert put_in([{"$result": "b"}], of) == [None]
    assert put_in({"none": 1}, of) == {"none": 1}
    ctx = context()
    ctx.kin = of
    assert (ctx.parents["a"].state, ctx.parents["b"].result) == ("succeeded", None)
    with pytest.raises(PermanentError, match="parents have"):
        ctx.parents["a"].result  # noqa: B018 - it is decoded when it is asked for


def test_a_payload_without_references_stays_as_it_was_written() -> None:
    text = '{"b" : 1.0, "a":"\\u00e4"}'
    assert resolved(text, kin(), 1) is text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=4).filter(lambda key: key != "$result"), inner)
        ),
        max_leaves=10,
    )
)
def test_any_result_comes_out_as_it_went_in(result: Any) -> None:
    assert put_in({"x": {"$result": "a"}}, kin(parent("a", result))) == {"x": result}
    pointed = {"$result": "a", "pointer": "/y"}
    assert put_in({"x": pointed}, kin(parent("a", {"y": result}))) == {"x": result}
