"""The text of an answer: every charset that a server can name, and some that it made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.egress import Response


def _response(body: bytes, content_type: str, *, truncated: bool = False) -> Response:
    return Response(200, {"content-type": content_type}, body, truncated)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", "Grüße".encode()),
        ("text/plain; charset=utf-8", "Grüße".encode()),
        ("text/plain; charset=UTF8", b"\xef\xbb\xbf" + "Grüße".encode()),
        ("text/plain; charset=iso-8859-1", "Grüße".encode("latin-1")),
        ('text/plain; charset="windows-1252"', "Grüße".encode("cp1252")),
        ("text/plain; format=flowed; charset=utf-16", "Grüße".encode("utf-16")),
        ("text/plain; charset=klingon", "Grüße".encode()),
        ("text/plain; charset=", "Grüße".encode()),
    ],
)
def test_text_is_read_by_the_charset_that_the_server_named(content_type: str, body: bytes) -> None:
    assert _response(body, content_type).text() == "Grüße"


@pytest.mark.parametrize("charset", ["zip", "hex", "rot13", "idna", "punycode", "unicode-escape"])
def test_a_codec_that_is_no_charset_is_not_used(charset: str) -> None:
    assert _response(b"abc\\u0041-", f"text/plain; charset={charset}").text() == "abc\\u0041-"


def test_a_character_that_the_cut_went_through_is_left_out() -> None:
    body = "aß".encode()[:-1]
    assert _response(body, "text/plain", truncated=True).text() == "a"
    assert _response(body, "text/plain").text() == "a\ufffd"


def test_the_media_type_is_bare_and_lower_case() -> None:
    assert _response(b"", "Text/HTML; charset=x").content_type == "text/html"
    assert Response(200, {}, b"").content_type == ""


@given(st.binary(max_size=200), st.text(max_size=50))
def test_any_bytes_with_any_content_type_give_some_text(body: bytes, content_type: str) -> None:
    _response(body, content_type).text()
    _response(body, f"text/plain; charset={content_type}").text()
