"""References: what is one, what is wrong with one, and what a pointer names."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.references import (
    Reference,
    Unresolved,
    may_refer,
    pointed,
    references,
    replaced,
)

_RFC = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", _RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_pointers_name_what_rfc_6901_says(pointer: str, value: Any) -> None:
    assert pointed(_RFC, pointer) == value


@pytest.mark.parametrize(
    ("pointer", "why"),
    [
        ("/no", "there is no member 'no'"),
        ("/foo/2", "'2' is no index of an array of 2"),
        ("/foo/-", "'-' is no index"),
        ("/foo/01", "'01' is no index"),
        ("/foo/-1", "'-1' is no index"),
        ("/foo/+1", "'+1' is no index"),
        ("/foo/ 1", "' 1' is no index"),
        ("/foo/1_0", "'1_0' is no index"),
        ("/foo/\u0661", "is no index"),
        ("/foo/" + "9" * 5000, "is no index"),
        ("/foo/", "'' is no index"),
        ("/foo/0/0", "/0 leads into what is neither an object nor an array"),
        ("//x", "/x leads into what is neither"),
        ("foo", "empty or begins with /"),
        ("/m~n", "only 0 or 1 may follow ~"),
        ("/m~", "only 0 or 1 may follow ~"),
    ],
)
def test_a_pointer_that_names_nothing_says_so(pointer: str, why: str) -> None:
    with pytest.raises(Unresolved) as raised:
        pointed(_RFC, pointer)
    assert why in str(raised.value)
    assert len(str(raised.value)) < 200


def test_references_are_found_in_order_with_their_places() -> None:
    payload = {
        "b": [{"$result": "x"}, 1, {"$result": "y", "pointer": "/rows/0"}],
        "a/~": {"$result": "z", "pointer": ""},
        "c": {"d": {"result": "no"}},
    }
    assert list(references(payload)) == [
        Reference("/b/0", "x"),
        Reference("/b/2", "y", "/rows/0"),
        Reference("/a~1~0", "z"),
    ]
    assert list(references({"$result": "x"})) == [Reference("", "x")]


@pytest.mark.parametrize("payload", [None, 1, "$result", [], {}, ["$result"], {"pointer": "/a"}])
def test_what_holds_none_has_none(payload: Any) -> None:
    assert list(references(payload)) == []
    assert replaced(copy.deepcopy(payload), _never) == payload


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"$result": 1}, "must be the name of a parent"),
        ({"$result": None}, "must be the name of a parent"),
        ({"$result": "x", "other": 1}, "may have only pointer besides"),
        ({"$result": "x", "pointer": 3}, "must be a JSON Pointer"),
        ({"$result": "x", "pointer": None}, "must be a JSON Pointer"),
        ({"$result": "x", "pointer": "rows"}, "empty or begins with /"),
        ({"$result": "x", "pointer": "/~2"}, "only 0 or 1 may follow ~"),
    ],
)
def test_an_object_with_the_key_that_is_no_reference_is_a_fault(value: Any, why: str) -> None:
    [found] = references([value])
    assert found.at == "/0"
    assert why in (found.fault or "")
    with pytest.raises(Unresolved, match=r"^/0: "):
        replaced([value], _never)


def test_a_deep_payload_is_searched_without_recursion() -> None:
    payload: Any = {"$result": "x"}
    for _ in range(50_000):
        payload = [payload]
    assert [one.name for one in references(payload)] == ["x"]


def test_what_was_put_in_place_is_not_searched_again() -> None:
    inner = {"$result": "other"}
    assert replaced([{"$result": "x"}, {"$result": "x"}], lambda _one: inner) == [inner, inner]


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ('{"$result":"x"}', True),
        ('{"\\u0024result":"x"}', True),
        ('{"$\\u0072es\\u0075lt":"x"}', True),
        ('{"$resu\\u006Ct":"x"}', True),
        ('{"result":"$result of it"}', False),
        ('{"a":"\\u00e9"}', False),
        ("null", False),
    ],
)
def test_only_text_that_may_hold_one_is_worth_decoding(text: str, may: bool) -> None:
    assert may_refer(text) is may


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_KEYS = st.sampled_from(["", "a", "~", "/", "a/b", "0", "01", "-", "pointer"]) | st.text(max_size=4)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)
_REFERENCES = st.builds(
    lambda name, pointer: {"$result": name, **({} if pointer is None else {"pointer": pointer})},
    st.sampled_from(["x", "y"]),
    st.sampled_from([None, "", "/a", "/0/~0~1"]),
)
_PAYLOADS = st.recursive(
    _SCALARS | _REFERENCES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


def _never(reference: Reference) -> Any:
    raise AssertionError(reference)


def _ways(value: Any, at: str = "") -> list[tuple[str, Any]]:
    """Every pointer into a value, made by the other direction of RFC 6901, and what it names."""
    items = enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict):
        items = value.items()  # type: ignore[assignment]
    return [(at, value)] + [
        way
        for key, inner in items
        for way in _ways(inner, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")
    ]


@given(_VALUES)
def test_every_value_is_named_by_its_pointer(value: Any) -> None:
    for pointer, inner in _ways(value):
        assert pointed(value, pointer) is inner


@given(_PAYLOADS)
def test_each_reference_is_at_its_pointer_and_nothing_else_changes(payload: Any) -> None:
    found = list(references(payload))
    before = copy.deepcopy(payload)
    after = replaced(payload, lambda one: ("put", one.name, one.pointer))
    for one in found:
        assert pointed(after, one.at) == ("put", one.name, one.pointer)
        assert pointed(before, one.at)["$result"] == one.name
    assert list(references(after)) == []
    assert _without_places(before) == _without_places(after)
    assert bool(found) <= may_refer(json.dumps(before))


def _without_places(value: Any) -> Any:
    if isinstance(value, tuple) or (isinstance(value, dict) and "$result" in value):
        return "a reference"
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    return value
