"""Reads what a server answers, and says what is wrong with it."""

import asyncio
import re
from dataclasses import dataclass

import orjson

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class NotHttp(Exception):
    """What came is no answer of HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


async def read(reader: asyncio.StreamReader, *, to_head: bool = False) -> Answer | None:
    """The next final answer, or None if the connection was closed instead."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise NotHttp(f"half an answer: {error.partial[:80]!r}") from None
            return None
        except ConnectionError:
            return None
        lines = head.decode("latin-1").split("\r\n")[:-2]
        status = re.fullmatch(r"HTTP/1\.[01] (\d{3}) [\x20-\x7e]*", lines[0])
        if status is None:
            raise NotHttp(f"a strange first line: {lines[0][:80]!r}")
        if status[1] != "100":
            headers = dict(_header(line) for line in lines[1:])
            size = 0 if to_head else int(headers.get("content-length", "0"))
            return Answer(int(status[1]), headers, await reader.readexactly(size))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(": ")
    if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise NotHttp(f"a strange header: {line[:80]!r}")
    return name.lower(), value


def complaint(answer: Answer, *, to_head: bool = False) -> str | None:
    """What is wrong with an answer, whatever was asked."""
    if answer.status >= 500 and not (answer.status == 503 and "retry-after" in answer.headers):
        return f"{answer.status}: {answer.body[:200]!r}"
    if not _ID.fullmatch(answer.headers.get("x-request-id", "")):
        return "no X-Request-Id"
    kept = answer.headers.get("cache-control")
    if kept != "no-store" and not (kept == "no-cache" and "etag" in answer.headers):
        return "may be cached"  # but for the document and its page, which are asked for each time
    kind = answer.headers.get("content-type", "")
    if answer.status >= 400 and kind != "application/problem+json":
        return f"{answer.status} is no problem document but {kind}"
    if "json" in kind and not to_head:
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            return "a body that isn't JSON"
        if answer.status >= 400 and document.get("status") != answer.status:
            return "a problem document of another status"
        if answer.status >= 400 and len(answer.body) > 40_000:
            return f"an answer of {len(answer.body)} bytes to a refusal"
    return None
