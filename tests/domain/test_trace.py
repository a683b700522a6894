"""W3C Trace Context as a caller may send it, and as it goes on."""

import pytest

from penstock.domain.trace import headers_of, id_of, is_kept, parent_of, sound, state_of, trace_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("sent", "state"),
    [
        ("", None),
        ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
        ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        (" a=1 , b=2 ,, ", "a=1,b=2"),
        ("tenant@vendor=x y", "tenant@vendor=x y"),
        ("a=" + "v" * 256, "a=" + "v" * 256),
        ("a=" + "v" * 257, None),
        ("A=1", None),
        ("a", None),
        ("a=", None),
        ("a=1=2", None),
        ("a=\x1b[31m", None),
        ("a=é", None),
        ("a=1\r\nX-Evil: 1", None),
        (",".join(f"k{n}=1" for n in range(32)), ",".join(f"k{n}=1" for n in range(32))),
        (",".join(f"k{n}=1" for n in range(33)), None),
        (",".join(f"k{n}={'v' * 60}" for n in range(9)), None),
    ],
)
def test_a_state_is_kept_if_it_is_well_formed_and_short(sent: str, state: str | None) -> None:
    trace = trace_of(PARENT, sent)
    assert (parent_of(trace), state_of(trace)) == (PARENT, state)


@pytest.mark.parametrize(
    "parent", [None, "", PARENT.upper(), PARENT + "-00", f" {PARENT}", "ff" + PARENT[2:]]
)
def test_without_a_parent_there_is_no_trace(parent: str | None) -> None:
    assert trace_of(parent, "congo=1") is None


def test_it_goes_on_as_it_came() -> None:
    assert headers_of(None) == {}
    assert headers_of(PARENT) == {"traceparent": PARENT}
    assert headers_of(f"{PARENT} a=1,b=2") == {"traceparent": PARENT, "tracestate": "a=1,b=2"}


@pytest.mark.parametrize(
    ("flags", "kept"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_who_began_it_says_whether_it_is_kept(flags: str, kept: bool) -> None:
    assert is_kept(f"{PARENT[:-2]}{flags} a=1") is kept


@pytest.mark.parametrize("stored", [None, "", "00", "00-1-2-01", PARENT + "x", " " + PARENT])
def test_a_stored_one_that_is_none_is_none(stored: str | None) -> None:
    assert sound(stored) is None
    assert sound(f"{PARENT} a=1") == f"{PARENT} a=1"


def test_its_id_is_what_all_its_spans_share() -> None:
    assert id_of(f"{PARENT} a=1") == "0af7651916cd43dd8448eb211c80319c"
    assert (id_of(None), parent_of(None), state_of(None)) == (None, None, None)
