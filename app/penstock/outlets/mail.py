"""E-mail: text and HTML from templates, by SMTP, over one connection a batch.

In: messages for one address. Out: what came of each. Always holds: one recipient, named to the
server apart from the text; the same `Message-ID` at each try, so that a mailbox can tell a
repetition (a server that hangs after the text may have taken it). What the server refuses for good
is not tried again; what ails the server, or our rights there, is.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
)
from jinja2 import TemplateError

from penstock import clock
from penstock.domain import trust
from penstock.domain.effect import DELIVERED, Delivery, Fate, Message
from penstock.outlets.letter import Letters
from penstock.outlets.tls import context_of

_BATCH_S = 45.0  # well within the relay's lease
_REFUSED = 500  # SMTP: from here on a reply is for good
_TOLD_MAX = 500


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed in. `tls`: from the first byte, after STARTTLS, or none."""

    host: str
    port: int
    from_address: str
    username: str | None = None
    password: str | None = None
    tls: Literal["none", "starttls", "tls"] = "starttls"
    ca_file: str | None = None
    timeout_s: float = 20.0


class Mail:
    """`why`: what kept us from the server when it was tried last; None: nothing did."""

    at_once = 5
    name = "smtp"

    def __init__(self, server: Server) -> None:
        self.why: str | None = None
        self._server = server
        self._letters = Letters(server.from_address)
        self._tls = None if server.tls == "none" else context_of(server.ca_file)

    async def deliver(self, batch: Sequence[Message]) -> list[Delivery]:
        until = clock.monotonic() + _BATCH_S
        client = self._client()
        told: list[Delivery] = []
        try:
            async with asyncio.timeout(self._server.timeout_s):
                await client.connect()
            self.why = None
            for message in batch:
                fate = await self._hand_in(client, message, until)
                told.append(fate)  # what was told before an error stands
        except (SMTPException, OSError, ValueError) as error:  # TimeoutError is an OSError
            self.why = _said(error, self._server.timeout_s)
            left = Delivery(Fate.LATER, self.why)
            told += [left] * (len(batch) - len(told))
        finally:
            client.close()  # a farewell would be one more chance to hang
        return told

    async def fault(self) -> str | None:
        """Greets, logs in and leaves without a letter: what kept us from it, or None."""
        client = self._client()
        try:
            async with asyncio.timeout(self._server.timeout_s):
                await client.connect()
        except (SMTPException, OSError, ValueError) as error:
            return _said(error, self._server.timeout_s)
        finally:
            client.close()
        return None

    async def close(self) -> None:
        """Nothing: no connection outlives its batch."""

    def _client(self) -> SMTP:
        server = self._server
        return SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            local_hostname=socket.gethostname(),
            timeout=server.timeout_s,
            use_tls=server.tls == "tls",
            start_tls=server.tls == "starttls",
            tls_context=self._tls,
        )

    async def _hand_in(self, client: SMTP, message: Message, until: float) -> Delivery:
        """Raises what ends the connection; what is about this message alone is answered."""
        try:
            whole = self._letters.written(message)
        except TemplateError as error:  # a bug of ours must not hold up the others
            return Delivery(Fate.LATER, f"the letter could not be written: {error}"[:_TOLD_MAX])
        within_s = min(self._server.timeout_s, until - clock.monotonic())
        recipient = message.effect.endpoint
        try:
            async with asyncio.timeout(within_s):
                await client.sendmail(self._server.from_address, [recipient], whole)
        except SMTPRecipientsRefused as refused:
            return _refused(refused.recipients[0])
        except (SMTPRecipientRefused, SMTPDataError) as refused:
            return _refused(refused)
        return DELIVERED


def _refused(reply: SMTPResponseException) -> Delivery:
    fate = Fate.NEVER if reply.code >= _REFUSED else Fate.LATER
    return Delivery(fate, f"the mail server answered {reply.code} {reply.message}"[:_TOLD_MAX])


def _said(error: Exception, timeout_s: float) -> str:
    if isinstance(error, SMTPResponseException):
        return f"the mail server answered {error.code} {error.message}"[:_TOLD_MAX]
    if fault := trust.fault_of(error):
        return f"the mail server can't be trusted: {fault}; see smtp.host and smtp.ca_file"
    if isinstance(error, TimeoutError):
        return f"the mail server did not answer within {timeout_s:g} s"
    return f"the mail server can't be reached: {str(error) or type(error).__name__}"[:_TOLD_MAX]
