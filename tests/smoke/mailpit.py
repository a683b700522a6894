"""A stand-in for Mailpit where no container runs: takes mail, shows it by the same call.

Only what `drive` asks for: GET /api/v1/messages, and of each message its recipients and the first
250 characters of its text (https://mailpit.axllent.org/docs/api-v1/). Also as a program, to stand
for the container: `python -m tests.smoke.mailpit SMTP_PORT HTTP_PORT`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage

from aiohttp import web

from tests.outlets.mailbox import mailbox
from tests.support.ports import free_port

_SNIPPET_MAX = 250


@dataclass(frozen=True)
class Mailpit:
    smtp_port: int
    url: str


@asynccontextmanager
async def mailpit(
    host: str = "127.0.0.1", smtp_port: int = 0, port: int = 0
) -> AsyncIterator[Mailpit]:
    async with mailbox(host=host, port=smtp_port) as box:

        async def messages(_request: web.Request) -> web.Response:
            return web.json_response({"messages": [_shown(*letter) for letter in box.letters]})

        app = web.Application()
        app.router.add_get("/api/v1/messages", messages)
        runner = web.AppRunner(app)
        await runner.setup()
        port = port or free_port()
        await web.TCPSite(runner, host, port).start()
        try:
            yield Mailpit(box.port, f"http://127.0.0.1:{port}")
        finally:
            await runner.cleanup()


def _shown(sender: str, recipients: list[str], letter: EmailMessage) -> dict[str, object]:
    body = letter.get_body(("plain",))
    text = "" if body is None else " ".join(str(body.get_content()).split())
    to = [{"Name": "", "Address": address} for address in recipients]
    return {"From": {"Address": sender}, "To": to, "Snippet": text[:_SNIPPET_MAX]}


async def _main(smtp_port: int, port: int) -> None:
    async with mailpit("0.0.0.0", smtp_port, port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
