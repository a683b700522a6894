"""Text that is fit to be stored, to be shown, and cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.handlers.text import cut, one_line, printable, storable


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain ß 漢 🚰", "plain ß 漢 🚰"),
        ("a\nb\r\nc", "a\\nb\\r\\nc"),
        ("a\tb", "a\tb"),
        ("a\0b", "a\\x00b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u2028b", "a\\u2028b"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\ufffd"),
    ],
)
def test_one_line_is_one_line(text: str, wanted: str) -> None:
    assert one_line(text) == wanted


def test_storable_text_keeps_its_lines() -> None:
    assert storable("a\nb\0c\ud800d") == "a\nb\ufffdc\ufffdd"


def test_printable_text_keeps_tabs_and_lines() -> None:
    assert printable("a\n\r\tb\0\x07\x1b\x9f\ud800") == "a\n\r\tb" + "\ufffd" * 5


@given(st.text(max_size=200), st.integers(3, 300))
def test_a_cut_text_fits_and_begins_like_the_whole(text: str, bytes_max: int) -> None:
    text = storable(text)
    short = cut(text, bytes_max)
    assert len(short.encode()) <= bytes_max
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))
    if len(text.encode()) <= bytes_max:
        assert short == text
