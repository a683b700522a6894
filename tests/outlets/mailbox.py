"""A real SMTP server in the test's own loop, which answers as it is told to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

Answers = Callable[[str], Awaitable[str]]


@dataclass
class Mailbox:
    """`letters`: (sender, recipients, letter) of each that was taken. `on_recipient(address)` and
    `on_text(sender)` answer a line of SMTP; `connections` counts them;
    `password` opens it to who logs in."""

    port: int = 0
    letters: list[tuple[str, list[str], EmailMessage]] = field(default_factory=list)
    on_recipient: Answers | None = None
    on_text: Answers | None = None
    logins: list[bool] = field(default_factory=list)
    connections: int = 0
    password: str = "open sesame"

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self.on_recipient(address) if self.on_recipient else "250 OK"
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        answer = await self.on_text(str(envelope.mail_from)) if self.on_text else "250 OK"
        if answer.startswith("2"):
            assert isinstance(envelope.content, bytes)
            letter = message_from_bytes(envelope.content, policy=default)
            assert isinstance(letter, EmailMessage)
            self.letters.append((str(envelope.mail_from), envelope.rcpt_tos, letter))
        return answer

    def log_in(self, server: Any, session: Any, envelope: Any, kind: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = (data.login, data.password) == (b"penstock", self.password.encode())
        self.logins.append(right)
        return AuthResult(success=right, handled=False)


@asynccontextmanager
async def mailbox(
    tls: ssl.SSLContext | None = None,
    *,
    from_the_start: bool = False,
    wants_login: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Mailbox]:
    """`tls`: offered after STARTTLS, and demanded; or from the first byte."""
    here = Mailbox()
    loop = asyncio.get_running_loop()

    def made() -> SMTP:
        here.connections += 1
        after = tls is not None and not from_the_start
        return SMTP(
            here,
            hostname="mail.test",
            loop=loop,
            tls_context=tls if after else None,
            require_starttls=after,
            authenticator=here.log_in if wants_login else None,
            auth_required=wants_login and after,
            auth_require_tls=after,  # it doesn't see the other kind
        )

    server = await loop.create_server(made, host, port, ssl=tls if from_the_start else None)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
