"""Counting words of real text and of real pages, fetched from a real server."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.domain.attempt import Outcome
from penstock.egress import Egress
from penstock.examples.word_count import stripped
from penstock.handlers import Registry
from tests.egress.receiver import receiver, saying
from tests.handlers.factory import context, handler_of, run

WORD_COUNT = handler_of("word-count", "penstock.examples")

PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>Of pipes</title><style>p { color: red }</style>
<script>var hidden = "<p>no word of this</p>";</script></head>
<body><!-- nor of <b>this</b> --><h1>The pen&shy;stock</h1>
<p>The gate meters the water; the water turns the wheel.</p>
<p>It&rsquo;s the miller&#39;s water &amp; the miller's wheel, well-worn.<br>The end</p>
<template><p>nothing</p></template><noscript>nothing</noscript></body></html>
"""


@pytest.fixture
async def http() -> AsyncIterator[Egress]:
    async with Egress(["127.0.0.0/8"]) as egress:
        yield egress


async def count(payload: Any) -> dict[str, Any]:
    ending = await run(WORD_COUNT, payload, context())
    assert ending.outcome is Outcome.SUCCEEDED, ending.failure
    assert ending.result is not None
    result: dict[str, Any] = orjson.loads(ending.result)
    return result


async def test_words_of_a_text_are_counted_the_commonest_first() -> None:
    result = await count({"text": "The gate, the wheel. THE WATER: it's a well-worn wheel 24 7"})
    assert result["total"] == 12
    assert result["distinct"] == 9
    assert result["top"][:3] == [
        {"word": "the", "count": 3},
        {"word": "wheel", "count": 2},
        {"word": "24", "count": 1},
    ]


@pytest.mark.parametrize("text", ["", " ", "...", "_", "—"])
async def test_a_text_without_words_has_none(text: str) -> None:
    assert await count({"text": text}) == {"total": 0, "distinct": 0, "top": []}


async def test_at_most_ten_words_are_named() -> None:
    result = await count({"text": " ".join(f"word{n}" for n in range(50))})
    assert (result["distinct"], len(result["top"])) == (50, 10)


async def test_words_of_any_script_are_words() -> None:
    result = await count({"text": "Straße STRASSE вода Вода 水 été"})
    assert result["top"][:2] == [{"word": "strasse", "count": 2}, {"word": "вода", "count": 2}]


async def test_a_page_is_fetched_stripped_and_counted(http: Egress) -> None:
    ctx = context(http=http)
    async with receiver(saying(PAGE, headers={"Content-Type": "text/html"})) as there:
        ending = await run(WORD_COUNT, {"url": f"{there.url}/page"}, ctx)
    assert ending.result is not None
    result = orjson.loads(ending.result)
    words = {item["word"]: item["count"] for item in result["top"]}
    assert words["the"] == 8
    assert words["water"] == 3
    assert "hidden" not in stripped(PAGE)
    assert "nothing" not in stripped(PAGE)
    assert "It’s the miller's water & the miller's wheel" in stripped(PAGE)  # noqa: RUF001
    messages = [line.message for line in ctx.take_logs()]
    assert [message.split()[0] for message in messages] == ["fetching", "fetched", "counted"]
    assert "status=200" in messages[1]


async def test_plain_text_is_not_taken_for_html(http: Egress) -> None:
    async with receiver(saying("a <b> c", headers={"Content-Type": "text/plain"})) as there:
        ending = await run(WORD_COUNT, {"url": there.url}, context(http=http))
    assert ending.result is not None
    assert orjson.loads(ending.result)["total"] == 3


async def test_a_page_that_is_too_long_is_counted_as_far_as_it_was_read(http: Egress) -> None:
    ctx = context(http=http)
    async with receiver(saying("word " * 400_000, headers={"Content-Type": "text/plain"})) as there:
        ending = await run(WORD_COUNT, {"url": there.url}, ctx)
    assert ending.outcome is Outcome.SUCCEEDED
    assert "warning" in [line.level for line in ctx.take_logs()]


@pytest.mark.parametrize(
    ("status", "headers", "retryable", "after_s"),
    [
        (503, {"Retry-After": "7"}, True, 7.0),
        (500, {}, True, 5.0),
        (404, {}, False, None),
        (301, {"Location": "https://example.com/"}, False, None),
        (200, {"Content-Type": "image/png"}, False, None),
    ],
)
async def test_a_page_that_can_not_be_counted_fails_as_it_should(
    http: Egress, status: int, headers: dict[str, str], retryable: bool, after_s: float | None
) -> None:
    async with receiver(saying("x", status, headers)) as there:
        ending = await run(WORD_COUNT, {"url": there.url}, context(http=http))
    assert ending.outcome is Outcome.FAILED
    assert (ending.retryable, ending.retry_after_s) == (retryable, after_s)


async def test_an_address_inside_is_refused_for_good() -> None:
    async with Egress() as http:
        ending = await run(WORD_COUNT, {"url": "http://127.0.0.1:8080/"}, context(http=http))
    assert ending.failure is not None
    assert (ending.failure.type, ending.retryable) == ("egress-refused", False)


@pytest.mark.parametrize(
    "payload", [None, {}, {"text": 1}, {"text": "a", "url": "b"}, {"url": ""}, {"txt": "a"}]
)
def test_a_bad_payload_is_refused_at_the_door(payload: Any) -> None:
    assert Registry.load(["penstock.examples"]).payload_errors("word-count", payload)


@given(st.text("<>/!-ab &;\"'=?[]script", max_size=300))
@example("<![")
@example("<![if x]>a<![endif]>")
def test_any_markup_is_read_to_its_end(html: str) -> None:
    stripped(html)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["<!--", "<a ", "<a b='", "</", "<!", "<?", "<![CDATA[", "&"])
def test_markup_that_never_ends_takes_no_longer_than_other_markup(piece: str) -> None:
    stripped(piece * 100_000)
