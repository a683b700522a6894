"""A caller that can send anything at all, also what is not HTTP."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from tests.support.contract import contract


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


async def raw(port: int, sent: bytes) -> Answer:
    """Sends bytes on a connection of its own, and reads one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await read_answer(reader)
    finally:
        await close(writer)


async def read_answer(reader: asyncio.StreamReader, *, with_body: bool = True) -> Answer:
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        size = int(headers.get("content-length", 0)) if with_body and status >= 200 else 0
        return Answer(status, headers, await reader.readexactly(size))


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def call(
    port: int, method: str, target: str, body: bytes | None = None, **headers: str
) -> Answer:
    """One request; `a_b="x"` sends the header `a-b: x`. A body is JSON unless said otherwise."""
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        lines = {"content-type": "application/json", "content-length": str(len(body))} | lines
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    sent = f"{method} {target} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode("latin-1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent + (body or b""))
        answer = await read_answer(reader, with_body=method != "HEAD")
    finally:
        await close(writer)
    if method != "HEAD":
        contract().check(method, target, answer.status, answer.headers, answer.body)
    return answer
