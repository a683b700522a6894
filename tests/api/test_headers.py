"""Headers that carry a wish or a trace."""

import pytest
from multidict import CIMultiDict

from penstock.api import traces
from penstock.api.prefer import applied, wait_s

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ([], None),
        (["wait=10"], 10),
        (["WAIT = 10"], 10),
        (['wait="10"'], 10),
        (["respond-async, wait=10; x=y, wait=20"], 10),
        (["return=minimal", "wait=7"], 7),
        (["wait=61"], 60),
        (["wait=999999999"], 60),
        (["wait=99999999999999999999"], 60),
        (["wait=0"], 0),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=soon"], None),
        (["wait=" + "9" * 41], None),
        (["wait=٣"], None),
        (["await=5"], None),
    ],
)
def test_how_long_a_caller_is_willing_to_wait(sent: list[str], seconds: int | None) -> None:
    assert wait_s(CIMultiDict(("Prefer", value) for value in sent)) == seconds


def test_a_granted_wish_is_said() -> None:
    assert applied(None) == {}
    assert applied(60) == {"Preference-Applied": "wait=60"}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TRACE, True),
        (TRACE.replace("00-", "cc-", 1), True),
        (TRACE.upper(), False),
        (TRACE.replace("00-", "ff-", 1), False),
        ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01", False),
        (TRACE + "-more", False),
        (TRACE + "\n", False),
        ("", False),
    ],
)
def test_only_a_sound_trace_is_kept(sent: str, kept: bool) -> None:
    assert traces.sent(CIMultiDict(traceparent=sent)) == (sent if kept else None)


def test_without_a_trace_there_is_none() -> None:
    assert traces.sent(CIMultiDict()) is None
