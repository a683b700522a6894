"""The kind `word-count`: counts the words of a text or of a page on the web.

An `async def`, as suits work that waits for the network. What takes computing is sent to a thread,
so that the other jobs of this process go on meanwhile.
"""

import asyncio
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from penstock.clock import wall_s
from penstock.egress import Response, is_transient, retry_after_s
from penstock.handlers import Context, PermanentError, RetryLater, handler

PAGE_MAX_BYTES = 1024 * 1024
TOP = 10
PATIENCE_S = 5.0  # before we ask a busy server again that doesn't say when

_WORD = re.compile("[^\\W_]+(?:['\u2019-][^\\W_]+)*")
_HIDDEN = frozenset({"script", "style", "template", "noscript"})
_PAGES = frozenset({"text/html", "application/xhtml+xml"})


class WordCount(BaseModel):
    """What to count: a `text`, or the page at a `url`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    text: Annotated[str, Field(max_length=PAGE_MAX_BYTES)] | None = None
    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.text is None) == (self.url is None):
            raise ValueError('give either "text" or "url"')
        return self


@handler("word-count")
async def word_count(payload: WordCount, ctx: Context) -> dict[str, Any]:
    """Answers `{"total", "distinct", "top": [{"word", "count"}, …]}`, the ten commonest first."""
    text = payload.text if payload.url is None else await _page(payload.url, ctx)
    counts = await asyncio.to_thread(_counts, text or "")
    ctx.log.info("counted", total=counts.total(), distinct=len(counts))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "total": counts.total(),
        "distinct": len(counts),
        "top": [{"word": word, "count": count} for word, count in ranked[:TOP]],
    }


async def _page(url: str, ctx: Context) -> str:
    """The page's readable text. Connection failures are retried by the job's own back-off."""
    ctx.log.info("fetching")  # the URL is in the payload, and may hold a token
    page = await ctx.services.http.request(
        "GET", url, timeout_s=ctx.remaining_s(), response_max_bytes=PAGE_MAX_BYTES
    )
    ctx.log.info("fetched", status=page.status, bytes=len(page.body))
    _check(page)
    if page.truncated:
        ctx.log.warning("the page is too long, counting only its beginning", bytes=PAGE_MAX_BYTES)
    text = page.text()
    return await asyncio.to_thread(stripped, text) if page.content_type in _PAGES else text


def _check(page: Response) -> None:
    """Raises what tells the worker whether to try again."""
    if is_transient(page.status):
        wait = retry_after_s(page.headers, wall_s())
        after_s = PATIENCE_S if wait is None else wait
        raise RetryLater(f"the server answered {page.status}", after_s)
    if page.status != 200:
        raise PermanentError(f"the server answered {page.status}")
    if page.content_type not in _PAGES and not page.content_type.startswith("text/"):
        raise PermanentError(f"a page of words was expected, but it is {page.content_type!r}")


def _counts(text: str) -> Counter[str]:
    return Counter(match[0].casefold().replace("\u2019", "'") for match in _WORD.finditer(text))


def stripped(html: str) -> str:
    """The text between the tags of `html`, without scripts and the like."""
    reader = _Reader()
    # A tag at the end, instead of `close`, makes the reader give what it held back. `close` would
    # read markup that never ends again and again: minutes for a megabyte of "<!--".
    reader.feed(html + "<br>")
    return " ".join(reader.parts)


class _Reader(HTMLParser):
    """Collects what a reader would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden_in: str | None = None  # these elements don't nest

    def parse_html_declaration(self, i: int) -> int:
        """As browsers do: "<![…>" is a comment. Before Python 3.14 the base class fails on most."""
        if self.rawdata.startswith("<![", i):
            return self.parse_bogus_comment(i)
        return super().parse_html_declaration(i)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the base class passes them
        if self._hidden_in is None and tag in _HIDDEN:
            self._hidden_in = tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass  # <script/> hides nothing

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden_in:
            self._hidden_in = None

    def handle_data(self, data: str) -> None:
        if self._hidden_in is None:
            self.parts.append(data)
